"""`rayprob evaluate`: a trained run's numbers on a split, next to the paper's. N samples, L labels."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rayprob.data.manifest.areas import largest_areas
from rayprob.data.manifest.dataset import Dataset, Manifest
from rayprob.labels import COCO_80
from rayprob.loader.augment import build_transform
from rayprob.loader.order import Place
from rayprob.loader.streams import EvalStream
from rayprob.metrics.counting import PaperMetrics, best_single_threshold, label_sets, paper_metrics, top_k
from rayprob.metrics.ranking import average_precision, mean_average_precision_by_size
from rayprob.probability.distributions.distribution import LabelDistribution
from rayprob.probability.families import from_outputs
from rayprob.runs.bundle import Bundle
from rayprob.runs.finished import open_bundle
from rayprob.runs.folder import open_run
from rayprob.runs.paths import RunFolder
from rayprob.runs.predictions import Predictions
from rayprob.runs.spec import Run
from rayprob.text import columns, printable
from rayprob.train.compute import Compute
from rayprob.train.evaluate import marginals, predict_split, ranking_scores
from rayprob.train.other_labels import OtherLabels, compare_other_labels

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
    threshold: float  # the single one with the best OF1 on holdout
    at_half: PaperMetrics
    at_threshold: PaperMetrics
    tuned: PaperMetrics | None  # calibrated, with per-label thresholds for OF1; None before `rayprob calibrate`
    with_prior: PaperMetrics | None  # at 0.5, with the bundle's label prior; None without one
    top_3: PaperMetrics
    other_labels: tuple[OtherLabels, ...] | None  # None if labels are independent: evidence changes nothing
    map_by_size: dict[str, float | None]
    ap: dict[str, float]
    is_coco: bool = False  # whether the labels are COCO's 80, those of the paper's numbers

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return asdict(self)

    def __repr__(self) -> str:
        shown = {"at 0.5": self.at_half, f"at {self.threshold:.3f}": self.at_threshold, "prior, at 0.5": self.with_prior}
        shown |= {"tuned (per label)": self.tuned, "top 3": self.top_3}
        sets = {title: metrics for title, metrics in shown.items() if metrics}
        rows = [(name, *(f"{getattr(metrics, name):.4f}" for metrics in sets.values())) for name in NUMBERS]
        return f"{printable(self.run)} on {self.split}: {self.num_samples:,} images\n{columns([('', *sets), *rows])}"


def assess(folder: str, split: str, on_progress: Callable[[int, int], None] = lambda done, total: None) -> Assessment:
    """Predict a split with a run's bundle, write `predictions/<split>.parquet`, and return its numbers.

    The threshold comes from the run's holdout predictions; nothing is chosen on the split itself. `on_progress` gets the number
    of samples done and the total. Raises RunError for a run without a bundle, DatasetError for an unknown split.
    """
    run = open_run(folder)
    bundle = open_bundle(folder)
    predictions, manifest = predict_run(run, bundle, split, on_progress)
    predictions.write(RunFolder(folder).predictions(split))
    return assessment(run, bundle, predictions, largest_areas(manifest, predictions.sample_ids_N))


def predict_run(run: Run, bundle: Bundle, split: str, on_progress: Callable[[int, int], None]) -> tuple[Predictions, Manifest]:
    """Return the uncalibrated predictions of a run's bundle for a split of its dataset, and the split."""
    dataset = Dataset.open(run.data.root)
    bundle.label_space.require_same(dataset.label_space, f"the bundle of {run.name}", run.data.root)
    manifest = dataset.split(split)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    compute = Compute.plan(run.precision, Place(), device)
    compute.place_weights(bundle.classifier)
    transform = build_transform(bundle.transform_spec)
    stream = EvalStream(manifest, run.stream, transform, place=Place(), micro_batch=run.evaluation.micro_batch)
    facts = {key: fact for key, fact in bundle.facts.items() if key != "calibration"}
    facts["dataset_fingerprint"] = dataset.fingerprint
    return predict_split(bundle.classifier, manifest, stream, compute, facts, on_progress), manifest


def tuned_threshold(run: Run) -> float:
    """Return the single threshold with the best OF1 on the run's holdout predictions."""
    holdout = Predictions.read(RunFolder(run.run_folder).predictions(run.evaluation.split))
    return best_single_threshold(marginals(holdout), holdout.targets_NL, holdout.known_NL, objective="OF1").threshold


def assessment(run: Run, bundle: Bundle, predictions: Predictions, areas_NL: NDArray[np.float64]) -> Assessment:
    """Return all numbers of one table of predictions."""
    scores_NL, marginals_NL = ranking_scores(predictions), marginals(predictions)
    targets_NL, known_NL = predictions.targets_NL, predictions.known_NL

    def numbers(predicted_NL: NDArray[np.bool_], ranked_NL: NDArray[Any] = scores_NL) -> PaperMetrics:
        return paper_metrics(ranked_NL, predicted_NL, targets_NL, known_NL)

    threshold, calibrated = tuned_threshold(run), bundle.distribution(predictions.outputs)
    # A calibrator that changes the kind of distribution, as a label prior does, changes the ranking of labels.
    has_prior = bundle.family != bundle.classifier.family
    calibrated_NL = calibrated.ranking_scores() if has_prior else scores_NL
    tuned = numbers(bundle.label_sets(calibrated, TUNED), calibrated_NL) if TUNED in bundle.thresholds else None
    by_size = mean_average_precision_by_size(scores_NL, targets_NL, areas_NL, known_NL)
    ap_L = average_precision(scores_NL, targets_NL, known_NL)
    names = predictions.label_space.names
    return Assessment(
        run=run.name,
        split=str(predictions.facts["split"]),
        num_samples=len(predictions.sample_ids_N),
        threshold=threshold,
        at_half=numbers(label_sets(marginals_NL, 0.5)),
        at_threshold=numbers(label_sets(marginals_NL, threshold)),
        tuned=tuned,
        with_prior=numbers(bundle.label_sets(calibrated, "0.5"), calibrated_NL) if has_prior else None,
        top_3=numbers(top_k(scores_NL, min(3, len(names)))),
        other_labels=other_labels(calibrated, predictions) if calibrated.num_components > 1 else None,
        map_by_size={size: mean.value if mean else None for size, mean in by_size.items()},
        ap={label: float(ap) for label, ap in zip(names, ap_L, strict=True) if np.isfinite(ap)},
        is_coco=predictions.label_space == COCO_80,
    )


def other_labels(joint: LabelDistribution, predictions: Predictions) -> tuple[OtherLabels, ...]:
    """Return how a joint distribution ranks the other labels once some are known, compared with the classifier's marginals."""
    logits_NL = from_outputs(predictions.family, predictions.outputs).marginal_logits()
    alone = from_outputs("bernoulli", {"logits": logits_NL})
    return compare_other_labels(alone, joint, predictions.targets_NL, predictions.known_NL)
