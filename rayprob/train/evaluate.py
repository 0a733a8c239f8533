"""From a classifier and a split to predictions, and from predictions to numbers. N samples, L labels."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rayprob.data.joined.dataset import AnySplit
from rayprob.loader.streams import Batch, EvalStream
from rayprob.metrics.counting import best_single_threshold, paper_metrics
from rayprob.metrics.gather import gather_rows
from rayprob.metrics.ranking import average_precision
from rayprob.models.classifier import Classifier
from rayprob.probability.families import family_of
from rayprob.runs.predictions import Predictions
from rayprob.train.compute import Compute, evaluating
from rayprob.train.evaluable import LabelMatch


def predict_split(
    classifier: Classifier,
    manifest: AnySplit,
    stream: EvalStream,
    compute: Compute,
    facts: Mapping[str, Any],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    labels: LabelMatch | None = None,
) -> Predictions:
    """Return the predictions of a whole split on every rank: each rank computes its part, and the rows are gathered once.

    `labels` matches the classifier's labels to those of the split, by default they are the same. `on_progress` gets the samples
    done by this rank and the total. Raises MetricError if a sample is missing or duplicated.
    """
    count = 0

    def counted(batches: Iterable[Batch]) -> Iterator[Batch]:
        nonlocal count
        for batch in batches:
            yield batch
            count += len(batch)
            on_progress(count, len(manifest))

    sample_ids_n, outputs = _predict_part(classifier, counted(stream), compute)
    gathered = gather_rows(sample_ids_n, outputs, expected_ids=manifest.sample_ids_N)
    rows = np.argsort(manifest.sample_ids_N, kind="stable")
    targets_NL, known_NL = manifest.targets(rows), manifest.known(rows)
    if labels is not None:
        targets_NL, known_NL = (labels.of_model(table_ND, missing=False) for table_ND in (targets_NL, known_NL))
    return Predictions(
        label_space=manifest.label_space if labels is None else labels.model,
        sample_ids_N=manifest.sample_ids_N[rows],
        targets_NL=targets_NL,
        known_NL=known_NL,
        family=classifier.family,
        outputs=gathered | {name: _array(tensor) for name, tensor in classifier.head.shared().items()},
        facts=dict(facts, split=manifest.split),
    )


def _predict_part(
    classifier: Classifier, batches: Iterable[Batch], compute: Compute
) -> tuple[NDArray[np.int64], dict[str, NDArray[np.float32]]]:
    ids: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    parts: dict[str, list[NDArray[np.float32]]] = {}
    family = family_of(classifier.family)
    with evaluating(classifier):
        for batch in batches:
            with compute.autocast():
                outputs = classifier(compute.images(batch.images_BCHW))
            ids.append(batch.sample_ids_B.numpy())
            for name, tensor in family.of_images(outputs).items():
                parts.setdefault(name, []).append(_array(tensor))
    return np.concatenate(ids), {name: np.concatenate(arrays) for name, arrays in parts.items()}


def _array(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().float().cpu().numpy()
    return array


def marginals(predictions: Predictions) -> NDArray[np.float64]:
    """Return P(label present given image) [N, L]."""
    return predictions.distribution().marginals()


def ranking_scores(predictions: Predictions) -> NDArray[Any]:
    """Return scores [N, L] that rank like the marginals and never saturate."""
    return predictions.distribution().ranking_scores()


def evaluation_numbers(predictions: Predictions) -> dict[str, Any]:
    """Return what a run records at an evaluation: mAP, the paper's six metrics at 0.5, best OF1, NLL per image, AP per label.

    A family may add its own numbers: the mixture adds how many of its components are in use.
    """
    targets_NL, known_NL = predictions.targets_NL, predictions.known_NL
    distribution = predictions.distribution()
    marginals_NL, scores_NL = distribution.marginals(), distribution.ranking_scores()
    ap_L = average_precision(scores_NL, targets_NL, known_NL)
    at_half = paper_metrics(scores_NL, marginals_NL >= 0.5, targets_NL, known_NL)
    best = best_single_threshold(marginals_NL, targets_NL, known_NL, objective="OF1")
    log_prob_N = distribution.log_prob(targets_NL, known_NL)
    names = predictions.label_space.names
    return {
        **at_half.to_dict(),
        "best_OF1": best.value,
        "best_threshold": best.threshold,
        "nll_nats": float(-np.mean(log_prob_N)),
        **family_of(predictions.family).numbers(predictions.outputs),
        "ap": {name: float(ap) for name, ap in zip(names, ap_L, strict=True) if np.isfinite(ap)},
    }
