"""The numbers of a card: each split's metrics, with bootstrap intervals over its images. N images, L labels."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from rayprob.errors import MetricError, RayprobError
from rayprob.files import storage
from rayprob.metrics.bootstrap import CONFIDENCE, DRAWS, Statistic, bootstrap
from rayprob.metrics.drawn import calibration_error_of, count_metric_of, mean_average_precision_of, mean_of
from rayprob.probability.decisions.rules import Rules
from rayprob.runs.bundle import Bundle
from rayprob.runs.card.content import part_of, run_of
from rayprob.runs.finished import holdout_split, staleness
from rayprob.runs.paths import TABLE, RunFolder
from rayprob.runs.predictions import Predictions

TUNED, AT_HALF = "label_OF1", "0.5"
LEAST_DRAWS = 100
PAIRS_DRAWN = 5 * 10**8  # images x labels x draws: seconds
CHOSEN, REPORTED = "the run chose its checkpoint on it", "nothing was chosen on it"


def numbers_of(bundle: Bundle, folder: str, *, intervals: bool) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the numbers of each split with predictions in a run's folder, and sentences on those that cannot be used.

    On the split that the run chose on they are those of the classifier before calibration, which is fitted there; on others
    those of the bundle. Splits that trained the weights are left out.
    """
    run = run_of(bundle)
    trained_on, holdout = part_of(run, "data").get("train_split", "train"), holdout_split(run)
    entries, faults = [], []
    for split in _splits(folder):
        if split == trained_on:
            continue
        try:
            predictions = Predictions.read(RunFolder(folder).predictions(split))
            if stale := staleness(predictions, bundle):
                faults.append(f"The predictions of {split} are not those of this bundle ({stale}), so they are not judged.")
                continue
            entries.append(split_numbers(bundle, predictions, split, is_chosen_on=split == holdout, intervals=intervals))
        except RayprobError as error:  # the card of a good bundle is still worth writing
            faults.append(f"The predictions of {split} cannot be judged: {error}.")
    return entries, faults


def _splits(folder: str) -> list[str]:
    names = storage.list_names(RunFolder(folder).all_predictions)
    return [name.removesuffix(TABLE) for name in names if name.endswith(TABLE)]


def split_numbers(
    bundle: Bundle, predictions: Predictions, split: str, *, is_chosen_on: bool, intervals: bool = True
) -> dict[str, Any]:
    """Return the numbers of one split: metrics by name, as {value, low, high}, without bounds where `intervals` is false."""
    is_calibrated = bundle.calibrator is not None and not is_chosen_on
    rule = TUNED if is_calibrated and TUNED in bundle.thresholds else AT_HALF
    num_draws = max(LEAST_DRAWS, min(DRAWS, PAIRS_DRAWN // max(predictions.targets_NL.size, 1)))
    statistics = dict(_statistics(bundle, predictions, rule, is_calibrated=is_calibrated))
    return {
        "split": split,
        "num_samples": len(predictions),
        "dataset_fingerprint": predictions.facts.get("dataset_fingerprint"),
        "role": CHOSEN if is_chosen_on else REPORTED,
        "is_calibrated": is_calibrated,
        "rule": rule,
        "confidence": CONFIDENCE if intervals else None,
        "metrics": {
            name: _as_numbers(statistic, len(predictions), num_draws if intervals else 0)
            for name, statistic in statistics.items()
        },
    }


def _statistics(bundle: Bundle, predictions: Predictions, rule: str, *, is_calibrated: bool) -> Iterator[tuple[str, Statistic]]:
    raw = predictions.distribution()
    shown = bundle.distribution(predictions.outputs) if is_calibrated else raw
    ranked = shown if is_calibrated and bundle.has_prior else raw  # any other calibrator leaves the ranking to the classifier
    targets_NL, known_NL = predictions.targets_NL, predictions.known_NL
    sets_NL = Rules(bundle.thresholds, bundle.guarantees).label_sets(shown, rule)
    if not (targets_NL & known_NL).any():
        return
    yield "mAP", mean_average_precision_of(ranked.ranking_scores(), targets_NL, known_NL)
    yield "OF1", count_metric_of("OF1", sets_NL, targets_NL, known_NL)
    yield "CF1", count_metric_of("CF1", sets_NL, targets_NL, known_NL)
    yield "ECE", calibration_error_of(shown.marginals(), targets_NL, known_NL)
    yield "NLL", mean_of(np.asarray(-shown.log_prob(targets_NL, known_NL), dtype=np.float64))


def _as_numbers(statistic: Statistic, num_samples: int, num_draws: int) -> dict[str, float | None]:
    if not num_draws:
        value = float(statistic(np.ones((1, num_samples), dtype=np.int32))[0])
        return {"value": _finite(value), "low": None, "high": None}
    try:
        interval = bootstrap(statistic, num_samples, draws=num_draws).interval()
    except MetricError:  # a split without images
        return {"value": None, "low": None, "high": None}
    return {"value": _finite(interval.value), "low": _finite(interval.low), "high": _finite(interval.high)}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
