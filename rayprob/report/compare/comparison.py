"""Compares models, from their folders to numbers, as `metrics/paired.py` defines. M images, L labels in common."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

import numpy as np

from rayprob.errors import SpecError
from rayprob.metrics.bootstrap import DRAWS, Interval
from rayprob.metrics.counting import label_sets
from rayprob.metrics.paired import ModelTables, PairedComparison, PairedRow, compare_models
from rayprob.metrics.reliability import ReliabilityCurve, reliability_curve
from rayprob.report.compare.together import Together, together
from rayprob.report.run.files import Note
from rayprob.runs.bundle import Bundle
from rayprob.runs.finished import holdout_split
from rayprob.runs.predictions import Predictions
from rayprob.train.assess import TUNED, KeptPredictions, OnProgress, kept_predictions

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
BINS = 10  # of a reliability curve


@dataclass(frozen=True)
class ComparedModel:
    """One model of a comparison; `letter` stands for it in tables."""

    letter: str
    name: str
    folder: str
    calibration: str  # the method; "" if the model is not calibrated


@dataclass(frozen=True, eq=False)
class ModelComparison:
    """The contents of a comparison; the second and later models are each compared with the first."""

    models: tuple[ComparedModel, ...]
    split: str
    data: str | None
    paired: PairedComparison
    reliability: tuple[ReliabilityCurve, ...]
    num_labels: int
    notes: tuple[Note, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        rows = {"numbers": self.paired.numbers, "labels": self.paired.labels}
        return {
            "models": [asdict(model) for model in self.models],
            "split": self.split,
            "data": self.data,
            "num_images": self.paired.num_images,
            "num_labels": self.num_labels,
            "draws": self.paired.draws,
            "seed": self.paired.seed,
            "notes": [asdict(note) for note in self.notes],
            **{key: [_plain(row) for row in found] for key, found in rows.items()},
        }


def open_models(
    folders: Sequence[str],
    split: str,
    data: str | None,
    on_progress: Callable[[str, int, int], None] = lambda folder, done, total: None,
) -> list[KeptPredictions]:
    """Return the models with their predictions of a split; missing or outdated ones are computed and stored.

    `on_progress` is called with a folder, the samples done and the total. Raises SpecError for fewer than two or too many
    folders, and what `rayprob.train.assess.assess` raises.
    """
    if not 2 <= len(folders) <= len(LETTERS):
        raise SpecError(f"compare takes 2 to {len(LETTERS)} runs or bundles; got {len(folders)}")

    def progress_of(folder: str) -> OnProgress:
        return lambda done, total: on_progress(folder, done, total)

    return [kept_predictions(folder, split, data, progress_of(folder)) for folder in folders]


def compare(
    opened: Sequence[KeptPredictions], split: str, data: str | None = None, *, draws: int = DRAWS, seed: int = 0
) -> ModelComparison:
    """Compare each model with the first, on the images and labels that all of them have.

    Raises MetricError if they have no image or label in common, if no label has a positive, and without draws.
    """
    titles = [one.trained.folder for one in opened]
    common = together([one.predictions for one in opened], titles)
    bundles = [one.trained.bundle for one in opened]
    has_tuned = all(TUNED in bundle.thresholds for bundle in bundles)
    tables = [
        _tables(one.trained.bundle, one.predictions, common, place, has_tuned=has_tuned) for place, one in enumerate(opened)
    ]
    annotations = common.targets_ML, common.known_ML
    return ModelComparison(
        models=tuple(_model(letter, one) for letter, one in zip(LETTERS, opened, strict=False)),
        split=split,
        data=data,
        paired=compare_models(tables, common.names, *annotations, draws=draws, seed=seed),
        reliability=tuple(reliability_curve(one.marginals_NL, *annotations, bins=BINS) for one in tables),
        num_labels=len(common.names),
        notes=(*_optimistic(opened, split, data), *_notes(opened), *map(Note, common.notes), *_uncalibrated(opened)),
    )


def _tables(bundle: Bundle, predictions: Predictions, common: Together, place: int, *, has_tuned: bool) -> ModelTables:
    """Return the predictions of a model that a comparison needs, on the common images and labels."""
    own, columns_L = predictions.rows(common.rows[place]), common.columns[place]
    raw, calibrated = own.distribution(), bundle.distribution(own.outputs)
    ranking = calibrated if bundle.has_prior else raw
    sets = {"at 0.5": label_sets(raw.marginals(), 0.5)[:, columns_L]}
    if has_tuned:
        sets["tuned"] = bundle.label_sets(calibrated, TUNED)[:, columns_L]
    targets_ML, known_ML = np.zeros_like(own.targets_NL), np.zeros_like(own.known_NL)
    targets_ML[:, columns_L], known_ML[:, columns_L] = common.targets_ML, common.known_ML
    return ModelTables(
        scores_NL=ranking.ranking_scores()[:, columns_L],
        marginals_NL=calibrated.marginals()[:, columns_L],
        log_prob_N=calibrated.log_prob(targets_ML, known_ML),
        sets=sets,
    )


def _model(letter: str, one: KeptPredictions) -> ComparedModel:
    calibrator = one.trained.bundle.calibrator
    return ComparedModel(letter, one.trained.name, one.trained.folder, calibrator.name if calibrator else "")


def _notes(opened: Sequence[KeptPredictions]) -> list[Note]:
    """Return notes on predictions that were computed, and on labels of the dataset that a model lacks."""
    new = [Note(one.note) for one in opened if one.note]
    return new + [Note(f"{one.trained.folder}: {one.labels.left_out}.") for one in opened if one.labels and one.labels.left_out]


def _optimistic(opened: Sequence[KeptPredictions], split: str, data: str | None) -> list[Note]:
    """Return a note if a model was chosen on the images compared."""
    chosen_on = {holdout_split(one.trained.bundle.facts.get("run")) for one in opened}
    if data is not None or split not in chosen_on:
        return []
    return [Note(f"Checkpoints were chosen on {split}, so these numbers are optimistic.")]


def _uncalibrated(opened: Sequence[KeptPredictions]) -> list[Note]:
    """Return notes on models that are not calibrated."""
    lacking = [one.trained for one in opened if TUNED not in one.trained.bundle.thresholds]
    if len(lacking) == len(opened):
        return [Note("No model is calibrated, so label sets are compared at 0.5 only.")]
    told = "{} is not calibrated: its ECE and NLL are of raw probabilities, and label sets are compared at 0.5 only."
    return [Note(told.format(one.folder), f"rayprob calibrate {shlex.quote(one.folder)}" if one.run else "") for one in lacking]


def _plain(row: PairedRow) -> dict[str, Any]:
    differences = [{**_ends(each), "p_value": each.p_value, "more_than_chance": each.is_clear} for each in row.differences]
    told: dict[str, Any] = {"name": row.name, "lower_is_better": row.is_better_lower}
    told |= {"positives": row.positives} if row.positives is not None else {}
    return {**told, "values": [_ends(each) for each in row.values], "differences": differences}


def _ends(interval: Interval) -> dict[str, float | None]:
    ends = {"value": interval.value, "low": interval.low, "high": interval.high}
    return {name: end if isfinite(end) else None for name, end in ends.items()}
