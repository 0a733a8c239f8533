"""Exact ranking metrics. N samples, L labels, P distinct scores of positives; scores_NL (logits or marginals), targets_NL."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rayprob.arrays import AnyFloats, Bools
from rayprob.errors import MetricError
from rayprob.metrics.inputs import check_scores, label_columns, pooled
from rayprob.registry import choose

SIZES = ("small", "medium", "large")
SIZE_LIMITS_PX2 = (32**2, 96**2)  # COCO: small is below the first, large from the second on


@dataclass(frozen=True)
class MeanAveragePrecision:
    """The mean of AP over labels with at least one positive, and the AP of each label."""

    value: float
    ap_L: NDArray[np.float64]  # nan for a label without positives
    labels_counted: int


def mean_average_precision(
    scores_NL: AnyFloats, targets_NL: Bools, known_NL: Bools | None = None, *, variant: str = "exact"
) -> MeanAveragePrecision:
    """Return the macro average of AP, over the labels with a positive; arrays are [N, L], and all [N, L] are known by default.

    Raises MetricError as `average_precision`, and if no label has a positive.

    Example::

        rp.mean_average_precision(scores_NL, targets_NL).value      # a fraction of one; `ap_L` has that of each label
    """
    return mean_over_labels(average_precision(scores_NL, targets_NL, known_NL, variant=variant))


def mean_over_labels(ap_L: NDArray[np.float64]) -> MeanAveragePrecision:
    """Return the mean over the labels whose AP is not nan. Raises MetricError if there is none."""
    counted_L = ~np.isnan(ap_L)
    if not counted_L.any():
        raise MetricError(f"none of the {len(ap_L)} labels has a known positive; mean AP needs at least one")
    return MeanAveragePrecision(float(ap_L[counted_L].mean()), ap_L, int(counted_L.sum()))


def average_precision(
    scores_NL: AnyFloats, targets_NL: Bools, known_NL: Bools | None = None, *, variant: str = "exact"
) -> NDArray[np.float64]:
    """Return AP of each label [L], in float64; nan for a label without a known positive.

    Samples with equal scores form one group, so the order of rows never matters. `exact` is the non-interpolated AP,
    sum over thresholds of (recall gained) x precision, as scikit-learn's `average_precision_score`; `voc2010` and
    `voc2007` are the interpolated ones of PASCAL VOC. Raises MetricError for scores that are not finite, naming
    rows and columns, for shapes that differ, and for an unknown variant.
    """
    average = choose(VARIANTS, variant, "AP variant", MetricError)
    check_scores(scores_NL, targets_NL, known_NL)
    return np.array([average(_curve(*column)) for column in label_columns(scores_NL, targets_NL, known_NL)])


def micro_average_precision(
    scores_NL: AnyFloats, targets_NL: Bools, known_NL: Bools | None = None, *, variant: str = "exact"
) -> float:
    """Return the AP of all (sample, label) pairs ranked together; nan without any known positive."""
    average = choose(VARIANTS, variant, "AP variant", MetricError)
    check_scores(scores_NL, targets_NL, known_NL)
    return average(_curve(*pooled(scores_NL, targets_NL, known_NL)))


@dataclass(frozen=True)
class Curve:
    """Precision and recall of one label at each distinct score of a positive, highest score first.

    Between two of these thresholds only negatives are added, so these points hold every optimum of the whole curve.
    """

    thresholds_P: AnyFloats
    true_positives_P: NDArray[np.int64]  # with score >= threshold
    predicted_P: NDArray[np.int64]  # with score >= threshold
    positives: int

    @property
    def precision_P(self) -> NDArray[np.float64]:
        """True positives over predicted."""
        return self.true_positives_P / self.predicted_P

    @property
    def recall_P(self) -> NDArray[np.float64]:
        """True positives over positives."""
        return self.true_positives_P / self.positives


def precision_recall_curves(scores_NL: AnyFloats, targets_NL: Bools, known_NL: Bools | None = None) -> list[Curve]:
    """Return the curve of each label; without points for a label without a known positive."""
    check_scores(scores_NL, targets_NL, known_NL)
    return [_curve(*column) for column in label_columns(scores_NL, targets_NL, known_NL)]


def pooled_curve(scores_NL: AnyFloats, targets_NL: Bools, known_NL: Bools | None = None) -> Curve:
    """Return the curve of all (sample, label) pairs taken together."""
    check_scores(scores_NL, targets_NL, known_NL)
    return _curve(*pooled(scores_NL, targets_NL, known_NL))


def mean_average_precision_by_size(
    scores_NL: AnyFloats, targets_NL: Bools, areas_px2_NL: AnyFloats, known_NL: Bools | None = None
) -> dict[str, MeanAveragePrecision | None]:
    """Return mAP for small, medium and large objects; None for a size without positives.

    `areas_px2_NL` is the area of the largest object with that label in that image (read at positives only). Positives
    of a size are the pairs whose largest object has it; negatives are the images without the label; the other
    positives count as unknown. Raises MetricError as `average_precision`, and for a positive without an area.
    """
    known_NL = np.ones_like(targets_NL) if known_NL is None else known_NL
    check_scores(scores_NL, targets_NL, known_NL)
    sizes_NL = _sizes(areas_px2_NL, targets_NL)
    means: dict[str, MeanAveragePrecision | None] = {}
    for number, size in enumerate(SIZES):
        asked_NL = known_NL & (~targets_NL | (sizes_NL == number))
        exists = bool((targets_NL & asked_NL).any())
        means[size] = mean_average_precision(scores_NL, targets_NL, asked_NL) if exists else None
    return means


def _sizes(areas_px2_NL: AnyFloats, targets_NL: Bools) -> NDArray[np.int64]:
    if areas_px2_NL.shape != targets_NL.shape:
        raise MetricError(f"areas_px2_NL has shape {list(areas_px2_NL.shape)} but targets_NL {list(targets_NL.shape)}")
    without = int((~(areas_px2_NL >= 0) & targets_NL).sum())
    if without:
        raise MetricError(f"{without:,} positives have no area (nan or negative); mAP by size needs one for each positive")
    return np.digitize(areas_px2_NL, SIZE_LIMITS_PX2)


def _curve(scores_N: AnyFloats, targets_N: Bools) -> Curve:
    # Only the few positives need their rank, and two sorts of plain values are vectorised while an argsort is not.
    thresholds_P, at_threshold_P = np.unique(scores_N[targets_N], return_counts=True)
    below_P = np.searchsorted(np.sort(scores_N), thresholds_P, side="left")
    return Curve(
        thresholds_P=thresholds_P[::-1],
        true_positives_P=np.cumsum(at_threshold_P[::-1], dtype=np.int64),
        predicted_P=(len(scores_N) - below_P)[::-1],
        positives=int(at_threshold_P.sum()),
    )


def _exact(curve: Curve) -> float:
    return _area(curve, curve.precision_P)


def _voc2010(curve: Curve) -> float:
    """The precision at a recall is the best one at that recall or a higher one (PASCAL VOC 2010 development kit, `VOCap.m`)."""
    return _area(curve, np.maximum.accumulate(curve.precision_P[::-1])[::-1])


def _voc2007(curve: Curve) -> float:
    """Mean over recalls 0, 0.1 ... 1 of the best precision at that recall or a higher one (PASCAL VOC 2007)."""
    if not curve.positives:
        return float("nan")
    best_P = np.maximum.accumulate(curve.precision_P[::-1])[::-1]
    # In integers: 0.1 * 3 is not 0.3, and a recall of exactly 0.3 must count.
    reached = np.searchsorted(10 * curve.true_positives_P, np.arange(11) * curve.positives, side="left")
    return float(best_P[reached].mean())


def _area(curve: Curve, precision_P: NDArray[np.float64]) -> float:
    if not curve.positives:
        return float("nan")
    gained_P = np.diff(curve.true_positives_P, prepend=0)
    return float((gained_P * precision_P).sum() / curve.positives)


VARIANTS: dict[str, Callable[[Curve], float]] = {"exact": _exact, "voc2010": _voc2010, "voc2007": _voc2007}
