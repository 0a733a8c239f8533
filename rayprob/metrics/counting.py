"""Precision, recall and F1 from counts. N samples, L labels, T thresholds; predicted_NL, targets_NL, known_NL bool.

OP, OR, OF1 come from counts pooled over labels; CP, CR and CF1 are averages over labels with at least one known positive
(the labels that mAP counts). A label is predicted if its score >= its threshold.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rayprob.arrays import AnyFloats, Bools
from rayprob.errors import MetricError
from rayprob.metrics.inputs import check_scores, check_targets, label_columns
from rayprob.metrics.ranking import Curve, mean_average_precision, pooled_curve
from rayprob.registry import choose

COUNTS_AT_ONCE = 2**22  # counts [T, L] in memory at a time, for any L


@dataclass(frozen=True)
class Averaging:
    """How published implementations differ: the definition of CF1, and the precision of a label that is never predicted."""

    cf1: str = "harmonic"  # of CP and CR; or "mean_of_f1": the mean over labels of each label's F1
    never_predicted: float | None = 0.0  # its precision; None leaves the label out of CP and of a mean of F1


HOUSE = Averaging()


@dataclass(frozen=True)
class CountMetrics:
    """Overall (pooled) and per-label (averaged) precision, recall and F1."""

    OP: float
    OR: float
    OF1: float
    CP: float
    CR: float
    CF1: float

    def to_dict(self) -> dict[str, float]:
        """Return the numbers by name."""
        return asdict(self)


@dataclass(frozen=True)
class PaperMetrics(CountMetrics):
    """The seven numbers of the paper's Table III, as fractions of one."""

    mAP: float


def paper_metrics(
    scores_NL: AnyFloats,
    predicted_NL: Bools,
    targets_NL: Bools,
    known_NL: Bools | None = None,
    *,
    averaging: Averaging = HOUSE,
    ap_variant: str = "exact",
) -> PaperMetrics:
    """Return mAP of the scores and OP, OR, OF1, CP, CR, CF1 of the predicted label sets.

    Raises MetricError as `mean_average_precision` and `count_metrics`.
    """
    mean = mean_average_precision(scores_NL, targets_NL, known_NL, variant=ap_variant)
    six = count_metrics(predicted_NL, targets_NL, known_NL, averaging=averaging)
    return PaperMetrics(**six.to_dict(), mAP=mean.value)


@dataclass(frozen=True)
class Counts:
    """Per label, over its known targets: the number predicted and present, predicted, and present. [L], or [T, L]."""

    true_positives_L: NDArray[np.int64]
    predicted_L: NDArray[np.int64]
    positives_L: NDArray[np.int64]


def count(predicted_NL: Bools, targets_NL: Bools, known_NL: Bools | None = None) -> Counts:
    """Return the counts of each label. Raises MetricError for wrong shapes or types."""
    check_targets(targets_NL, known_NL)
    if predicted_NL.shape != targets_NL.shape or predicted_NL.dtype != np.bool_:
        raise MetricError(
            f"predicted_NL is {predicted_NL.dtype} {list(predicted_NL.shape)}; give booleans of the shape of "
            f"targets_NL, {list(targets_NL.shape)}, as `label_sets` returns them"
        )
    if known_NL is not None:
        predicted_NL, targets_NL = predicted_NL & known_NL, targets_NL & known_NL
    return Counts(
        *(np.count_nonzero(v, axis=0).astype(np.int64) for v in (predicted_NL & targets_NL, predicted_NL, targets_NL))
    )


def count_metrics(
    predicted_NL: Bools, targets_NL: Bools, known_NL: Bools | None = None, *, averaging: Averaging = HOUSE
) -> CountMetrics:
    """Return OP, OR, OF1, CP, CR, CF1. Raises MetricError as `count`, and if no label has a known positive."""
    return metrics_from(count(predicted_NL, targets_NL, known_NL), averaging=averaging)


def metrics_from(counts: Counts, *, averaging: Averaging = HOUSE) -> CountMetrics:
    """Return the six numbers from counts [L]. Raises MetricError if no label has a positive."""
    return CountMetrics(**{name: float(value) for name, value in _six(counts, averaging).items()})


def label_sets(scores_NL: AnyFloats, thresholds: ArrayLike) -> Bools:
    """Return scores >= thresholds (a scalar or [L]); thresholds are first rounded to the dtype of the scores."""
    return np.asarray(scores_NL >= np.asarray(thresholds, dtype=scores_NL.dtype))


def top_k(scores_NL: AnyFloats, k: int, *, at_least: float | None = None) -> Bools:
    """Return the label sets of the k highest scores of each row; ties go to the lower column.

    With `at_least`, labels with a lower score are dropped, as in the top-3 numbers of ML-GCN and CSRA.
    Raises MetricError unless 1 <= k <= L.
    """
    num_labels = scores_NL.shape[1]
    if not 1 <= k <= num_labels:
        raise MetricError(f"top {k} of {num_labels} labels; choose k between 1 and {num_labels}")
    kth_N1 = np.partition(scores_NL, num_labels - k, axis=1)[:, num_labels - k, None]
    above_NL, equal_NL = scores_NL > kth_N1, scores_NL == kth_N1
    room_N1 = k - above_NL.sum(axis=1, keepdims=True)
    chosen_NL: Bools = above_NL | (equal_NL & (np.cumsum(equal_NL, axis=1) <= room_N1))
    return chosen_NL if at_least is None else chosen_NL & label_sets(scores_NL, at_least)


@dataclass(frozen=True)
class ThresholdCurve:
    """The six numbers at each of T thresholds."""

    thresholds_T: AnyFloats
    OP: NDArray[np.float64]
    OR: NDArray[np.float64]
    OF1: NDArray[np.float64]
    CP: NDArray[np.float64]
    CR: NDArray[np.float64]
    CF1: NDArray[np.float64]


def threshold_curve(
    scores_NL: AnyFloats,
    targets_NL: Bools,
    thresholds_T: ArrayLike,
    known_NL: Bools | None = None,
    *,
    averaging: Averaging = HOUSE,
) -> ThresholdCurve:
    """Return the six numbers with one threshold for all labels, at each of `thresholds_T`, from a single sort."""
    check_scores(scores_NL, targets_NL, known_NL)
    asked_T = np.asarray(thresholds_T, dtype=scores_NL.dtype)
    columns = [
        (np.sort(scores), np.sort(scores[targets])) for scores, targets in label_columns(scores_NL, targets_NL, known_NL)
    ]
    step = max(1, COUNTS_AT_ONCE // len(columns))
    blocks = np.split(asked_T, range(step, len(asked_T), step))
    parts = [_six(_counts_at(columns, block_T), averaging) for block_T in blocks]
    return ThresholdCurve(asked_T, **{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


@dataclass(frozen=True)
class BestThreshold:
    """One threshold for all labels, and the value of the objective there."""

    threshold: float
    value: float


def best_single_threshold(
    scores_NL: AnyFloats,
    targets_NL: Bools,
    known_NL: Bools | None = None,
    *,
    objective: str = "OF1",
    averaging: Averaging = HOUSE,
) -> BestThreshold:
    """Return the threshold for all labels that maximises OF1 or CF1, the highest one if several do.

    Exact over all thresholds. Choose it on holdout, never on the split that is reported. Raises MetricError
    for an unknown objective and if no label has a known positive.
    """
    values_at = choose(OBJECTIVES, objective, "objective", MetricError)
    curve = pooled_curve(scores_NL, targets_NL, known_NL)
    if not curve.positives:
        raise MetricError(NO_POSITIVE)
    # Lowering a threshold from one positive's score to the next only adds negatives, so the best is at a positive's score.
    values_P = values_at(curve, scores_NL, targets_NL, known_NL, averaging)
    best = int(np.argmax(values_P))
    return BestThreshold(float(curve.thresholds_P[best]), float(values_P[best]))


def _of1_at(curve: Curve, *_: object) -> NDArray[np.float64]:
    return 2 * curve.true_positives_P / (curve.predicted_P + curve.positives)


def _cf1_at(
    curve: Curve, scores_NL: AnyFloats, targets_NL: Bools, known_NL: Bools | None, averaging: Averaging
) -> NDArray[np.float64]:
    return threshold_curve(scores_NL, targets_NL, curve.thresholds_P, known_NL, averaging=averaging).CF1


def _counts_at(columns: list[tuple[AnyFloats, AnyFloats]], thresholds_T: AnyFloats) -> Counts:
    """Return counts [T, L] from the ascending scores of all rows and of the positives of each label."""
    predicted_TL, true_positives_TL = (
        np.stack([len(c[part]) - np.searchsorted(c[part], thresholds_T, side="left") for c in columns], axis=1)
        for part in (0, 1)
    )
    return Counts(true_positives_TL, predicted_TL, np.array([len(positives) for _, positives in columns], dtype=np.int64))


def _six(counts: Counts, averaging: Averaging) -> dict[str, NDArray[np.float64]]:
    """Return the six numbers, reduced over the last axis (labels)."""
    per_label = (counts.true_positives_L, counts.predicted_L, counts.positives_L)
    hits, predicted, positives = (number_L.sum(axis=-1) for number_L in per_label)
    if not positives:
        raise MetricError(NO_POSITIVE)
    hits_L, predicted_L, positives_L = (number_L[..., counts.positives_L > 0] for number_L in per_label)
    empty = np.nan if averaging.never_predicted is None else averaging.never_predicted
    precision_L = _ratio(hits_L, predicted_L, empty=empty)
    cp, cr = _mean(precision_L), (hits_L / positives_L).mean(axis=-1)
    # nan marks a label that is left out.
    f1_L = np.where(np.isnan(precision_L), np.nan, 2 * hits_L / (predicted_L + positives_L))
    return {
        "OP": _ratio(hits, predicted, empty=averaging.never_predicted or 0.0),
        "OR": hits / positives,
        "OF1": 2 * hits / (predicted + positives),
        "CP": cp,
        "CR": cr,
        "CF1": choose(CF1, averaging.cf1, "CF1", MetricError)(cp, cr, f1_L),
    }


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64], *, empty: float) -> NDArray[np.float64]:
    return np.where(whole > 0, part / np.maximum(whole, 1), empty)


def _mean(values_L: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over labels that are not nan; 0 if all are."""
    counted_L = ~np.isnan(values_L)
    total: NDArray[np.float64] = np.where(counted_L, values_L, 0).sum(axis=-1)
    return np.asarray(total / np.maximum(counted_L.sum(axis=-1), 1))


def _harmonic(cp: NDArray[np.float64], cr: NDArray[np.float64], f1_L: NDArray[np.float64]) -> NDArray[np.float64]:
    total = cp + cr
    return np.where(total > 0, 2 * cp * cr / np.where(total > 0, total, 1), 0)


def _mean_of_f1(cp: NDArray[np.float64], cr: NDArray[np.float64], f1_L: NDArray[np.float64]) -> NDArray[np.float64]:
    return _mean(f1_L)


NO_POSITIVE = "no label has a known positive; precision, recall and F1 need at least one"
CF1 = {"harmonic": _harmonic, "mean_of_f1": _mean_of_f1}
OBJECTIVES: dict[str, Callable[..., NDArray[np.float64]]] = {"OF1": _of1_at, "CF1": _cf1_at}
