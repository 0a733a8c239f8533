"""`rayprob evaluate`: a trained run's numbers on a split, next to the paper's. N samples, L labels."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rayprob.data.building.recipe import HOLDOUT
from rayprob.data.joined.dataset import AnyDataset, AnySplit
from rayprob.data.joined.split import JoinedSplit
from rayprob.data.manifest.areas import largest_areas
from rayprob.errors import DatasetError, StorageError
from rayprob.files import storage
from rayprob.labels import COCO_80
from rayprob.loader.augment import build_transform
from rayprob.loader.order import Place
from rayprob.loader.streams import EvalStream
from rayprob.metrics.counting import PaperMetrics, best_single_threshold, label_sets, paper_metrics, top_k
from rayprob.metrics.ranking import average_precision, mean_average_precision_by_size
from rayprob.probability.distributions.distribution import LabelDistribution
from rayprob.probability.families import from_outputs
from rayprob.runs.card import write_card
from rayprob.runs.finished import REPORTED, staleness
from rayprob.runs.paths import RunFolder
from rayprob.runs.predictions import Predictions
from rayprob.runs.spec import Run
from rayprob.runs.tracked import summarise
from rayprob.runs.tracking import scalars
from rayprob.text import columns, printable
from rayprob.train.compute import Compute
from rayprob.train.evaluable import LabelMatch, Trained, open_trained
from rayprob.train.evaluate import marginals, predict_split, ranking_scores
from rayprob.train.other_labels import OtherLabels, compare_other_labels

OnProgress = Callable[[int, int], None]

# Table III of the paper: ResNet-101 at 448 px with sigmoids and BCE, COCO-2014 val, label sets at 0.5.
TUNED = "label_OF1"
NUMBERS = ("mAP", "OP", "OR", "OF1", "CP", "CR", "CF1")
PAPER = PaperMetrics(mAP=0.794, OP=0.9947, OR=0.310, OF1=0.473, CP=0.9927, CR=0.255, CF1=0.406)


@dataclass(frozen=True, repr=False)
class Assessment:
    """The numbers of one split, all as fractions of one; `ap` has the labels with at least one positive."""

    run: str
    split: str
    num_samples: int
    threshold: float | None  # the single one with the best OF1 on the run's holdout; None for a bundle alone
    at_half: PaperMetrics
    at_threshold: PaperMetrics | None
    tuned: PaperMetrics | None  # calibrated, with per-label thresholds for OF1; None before `rayprob calibrate`
    with_prior: PaperMetrics | None  # at 0.5, with the bundle's label prior; None without one
    top_3: PaperMetrics
    other_labels: tuple[OtherLabels, ...] | None  # None if labels are independent: evidence changes nothing
    map_by_size: dict[str, float | None]
    ap: dict[str, float]
    data: str | None = None  # the root of another dataset, or the roots of the run's own if it has several
    labels: LabelMatch | None = None  # how the labels of another dataset match
    predictions: str = ""  # the path of the table
    is_coco: bool = False  # whether the labels are COCO's 80, those of the paper's numbers

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return {**asdict(replace(self, labels=None)), "labels": self.labels.to_dict() if self.labels else None}

    def summary(self) -> dict[str, Any]:
        """Return what services that track the run show: the numbers at 0.5, and `tuned` and `prior` where they are known."""
        others = {"tuned": self.tuned, "prior": self.with_prior}
        return {**self.at_half.to_dict(), **{name: metrics.to_dict() for name, metrics in others.items() if metrics}}

    def by_rule(self) -> dict[str, PaperMetrics]:
        """Return the numbers by the way in which label sets are chosen, in the order of a table."""
        shown = {"at 0.5": self.at_half, f"at {self.threshold or 0:.3f}": self.at_threshold, "prior, at 0.5": self.with_prior}
        shown |= {"tuned (per label)": self.tuned, "top 3": self.top_3}
        return {title: metrics for title, metrics in shown.items() if metrics}

    def __repr__(self) -> str:
        sets = self.by_rule()
        rows = [(name, *(f"{getattr(metrics, name):.4f}" for metrics in sets.values())) for name in NUMBERS]
        of = f" of {printable(self.data)}" if self.data else ""
        return f"{printable(self.run)} on {self.split}{of}: {self.num_samples:,} images\n{columns([('', *sets), *rows])}"


def assess(
    folder: str,
    split: str,
    on_progress: OnProgress = lambda done, total: None,
    *,
    data: str | None = None,
    out: str | None = None,
) -> Assessment:
    """Predict a split with the bundle of a run, or a bundle alone, write the predictions, and return its numbers.

    The card of a run's bundle then states the numbers of that split, too.

    `data` is the root of another dataset, whose labels are matched by name; its predictions do not replace the run's own. `out`
    is the table to write, by default one in the folder. The threshold comes from the run's holdout predictions; nothing is
    chosen on the split itself. `on_progress` gets the number of samples done and the total. Raises RunError for a run without
    a bundle and for a bundle without `data`, DatasetError for an unknown split, LabelError for a dataset without common labels.
    """
    trained = open_trained(folder, data=data)
    predicted = predict_with(trained, split, data, on_progress)
    path = out or predicted.path
    predicted.predictions.write(path)
    if trained.run is not None and path == RunFolder(folder).predictions(split):  # the table that the card reads
        write_card(folder, trained.bundle)
    found = assessment(trained, predicted, path)
    if trained.run and data is None:
        summarise(trained.run, dict(scalars({split: found.summary()})))
    return found


@dataclass(frozen=True, eq=False)
class PredictedSplit:
    """The uncalibrated predictions of a split, where they are kept, and how its labels match; None if they are the model's."""

    predictions: Predictions
    manifest: AnySplit
    labels: LabelMatch | None
    path: str


def predict_with(trained: Trained, split: str, data: str | None, on_progress: OnProgress) -> PredictedSplit:
    """Return the uncalibrated predictions of a bundle for a split of its run's dataset, or of the one at `data`."""
    dataset, bundle = trained.dataset(data), trained.bundle
    manifest = _split(dataset, split)
    labels = LabelMatch.of(bundle.label_space, dataset.label_space, dataset.root) if data is not None else None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    compute = Compute.plan(trained.precision, Place(), device)
    compute.place_weights(bundle.classifier)
    transform = build_transform(bundle.transform_spec)
    place, micro_batch = Place(), trained.micro_batch
    reading = trained.reading(data)
    stream = EvalStream(manifest, trained.stream, transform, place=place, micro_batch=micro_batch, reading=reading)
    facts = {key: fact for key, fact in bundle.facts.items() if key != "calibration"}
    facts["dataset_fingerprint"] = dataset.fingerprint
    with compute.settings():
        predictions = predict_split(bundle.classifier, manifest, stream, compute, facts, on_progress, labels=labels)
    return PredictedSplit(predictions, manifest, labels, trained.predictions_path(dataset, split, data))


def _split(dataset: AnyDataset, split: str) -> AnySplit:
    """Return a split. Raises a DatasetError that names the split to ask for instead of a missing val."""
    try:
        return dataset.split(split)
    except DatasetError as error:
        if split == REPORTED and HOLDOUT in dataset.splits:
            raise DatasetError(f"{error}; add --split {HOLDOUT}") from error
        raise


@dataclass(frozen=True, eq=False)
class KeptPredictions:
    """A model and its uncalibrated predictions of a split, which were kept, or computed now, as `note` then says."""

    trained: Trained
    predictions: Predictions
    labels: LabelMatch | None  # how the labels of another dataset match
    note: str = ""


def kept_predictions(folder: str, split: str, data: str | None, on_progress: OnProgress) -> KeptPredictions:
    """Return the predictions of a split that `evaluate` has kept; if they are missing or another bundle's, predict now.

    Raises what `assess` raises, but not for a folder that cannot be written to.
    """
    trained = open_trained(folder, data=data)
    path, labels = RunFolder(folder).predictions(split), None
    if data is not None:
        dataset = trained.dataset(data)
        path = trained.predictions_path(dataset, split, data)
        labels = LabelMatch.of(trained.bundle.label_space, dataset.label_space, dataset.root)
    if storage.exists(path):
        predictions = Predictions.read(path)
        if not staleness(predictions, trained.bundle):
            return KeptPredictions(trained, predictions, labels)
    predicted = predict_with(trained, split, data, on_progress)
    return KeptPredictions(trained, predicted.predictions, labels, _keep(predicted, folder, split))


def _keep(predicted: PredictedSplit, folder: str, split: str) -> str:
    """Write new predictions, and return in a sentence that they are new; the folder of a bundle may be read-only."""
    missing = f"Predictions of {split} by the bundle of {folder} were missing"
    try:
        predicted.predictions.write(predicted.path)
    except StorageError as error:
        return f"{missing}, and cannot be kept, so that the next command computes them again: {error}."
    return f"{missing}, and have been written."


def tuned_threshold(run: Run) -> float:
    """Return the single threshold with the best OF1 on the run's holdout predictions."""
    holdout = Predictions.read(RunFolder(run.run_folder).predictions(run.evaluation.split))
    return best_single_threshold(marginals(holdout), holdout.targets_NL, holdout.known_NL, objective="OF1").threshold


def assessment(trained: Trained, predicted: PredictedSplit, path: str) -> Assessment:
    """Return all numbers of one table of predictions, which is kept at `path`."""
    bundle, predictions = trained.bundle, predicted.predictions
    scores_NL, marginals_NL = ranking_scores(predictions), marginals(predictions)
    targets_NL, known_NL = predictions.targets_NL, predictions.known_NL

    def numbers(predicted_NL: NDArray[np.bool_], ranked_NL: NDArray[Any] = scores_NL) -> PaperMetrics:
        return paper_metrics(ranked_NL, predicted_NL, targets_NL, known_NL)

    calibrated = bundle.distribution(predictions.outputs)
    calibrated_NL = calibrated.ranking_scores() if bundle.has_prior else scores_NL
    threshold = tuned_threshold(trained.run) if trained.run else None
    tuned = numbers(bundle.label_sets(calibrated, TUNED), calibrated_NL) if TUNED in bundle.thresholds else None
    by_size = mean_average_precision_by_size(scores_NL, targets_NL, _areas(predicted), known_NL)
    ap_L = average_precision(scores_NL, targets_NL, known_NL)
    names = predictions.label_space.names
    return Assessment(
        run=trained.name,
        split=predicted.manifest.split,
        num_samples=len(predictions.sample_ids_N),
        threshold=threshold,
        at_half=numbers(label_sets(marginals_NL, 0.5)),
        at_threshold=numbers(label_sets(marginals_NL, threshold)) if threshold is not None else None,
        tuned=tuned,
        with_prior=numbers(bundle.label_sets(calibrated, "0.5"), calibrated_NL) if bundle.has_prior else None,
        top_3=numbers(top_k(scores_NL, min(3, len(names)))),
        other_labels=other_labels(calibrated, predictions) if calibrated.num_components > 1 else None,
        map_by_size={size: mean.value if mean else None for size, mean in by_size.items()},
        ap={label: float(ap) for label, ap in zip(names, ap_L, strict=True) if np.isfinite(ap)},
        data=predicted.manifest.root if predicted.labels or isinstance(predicted.manifest, JoinedSplit) else None,
        labels=predicted.labels,
        predictions=path,
        is_coco=predictions.label_space == COCO_80,
    )


def _areas(predicted: PredictedSplit) -> NDArray[np.float64]:
    areas_ND = largest_areas(predicted.manifest, predicted.predictions.sample_ids_N)
    return areas_ND if predicted.labels is None else predicted.labels.of_model(areas_ND, missing=np.nan)


def other_labels(joint: LabelDistribution, predictions: Predictions) -> tuple[OtherLabels, ...]:
    """Return how a joint distribution ranks the other labels once some are known, compared with the classifier's marginals."""
    logits_NL = from_outputs(predictions.family, predictions.outputs).marginal_logits()
    alone = from_outputs("bernoulli", {"logits": logits_NL})
    return compare_other_labels(alone, joint, predictions.targets_NL, predictions.known_NL)
