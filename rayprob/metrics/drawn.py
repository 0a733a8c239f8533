"""Metrics as statistics of drawn images, for `bootstrap.py`. D draws, N images, L labels, P positives, B bins.

Each function returns a statistic: it maps counts_DN, how often each image is drawn, to the metric's values [D] on the drawn
images. They equal the metric on rows repeated that often, and are computed from sums or from one sort per label.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rayprob.arrays import AnyFloats, Bools, Ints
from rayprob.metrics.bootstrap import DrawnCounts, Statistic
from rayprob.metrics.counting import Counts as LabelCounts
from rayprob.metrics.counting import metrics_from
from rayprob.metrics.inputs import check_marginals, check_scores, check_targets, label_columns
from rayprob.metrics.reliability import BINS


def mean_of(values_N: NDArray[np.float64]) -> Statistic:
    """Return the mean of one value per image, such as its negative log-likelihood; images whose value is nan are left out."""
    counted_N = ~np.isnan(values_N)
    table_N2 = np.stack([np.where(counted_N, values_N, 0.0), counted_N], axis=1)

    def statistic(counts_DN: DrawnCounts) -> NDArray[np.float64]:
        total_D, number_D = (counts_DN @ table_N2).T
        return np.where(number_D > 0, total_D / np.maximum(number_D, 1), np.nan)

    return statistic


def average_precision_of(scores_NL: AnyFloats, targets_NL: Bools, known_NL: Bools | None = None) -> Statistic:
    """Return the AP of each label as values [L, D], nan where no image drawn has it; raises as `average_precision`."""
    check_scores(scores_NL, targets_NL, known_NL)
    known_NL = np.ones_like(targets_NL) if known_NL is None else known_NL
    columns = label_columns(scores_NL, targets_NL, known_NL)
    rows = (np.flatnonzero(known_N) for known_N in known_NL.T)
    pairs = zip(rows, columns, strict=True)
    ranked = {label: _Ranked.of(rows_M, *column) for label, (rows_M, column) in enumerate(pairs) if column[1].any()}

    def statistic(counts_DN: DrawnCounts) -> NDArray[np.float64]:
        ap_LD = np.full((targets_NL.shape[1], len(counts_DN)), np.nan)
        for label, one in ranked.items():
            ap_LD[label] = one.average_precision(counts_DN)
        return ap_LD

    return statistic


def mean_average_precision_of(scores_NL: AnyFloats, targets_NL: Bools, known_NL: Bools | None = None) -> Statistic:
    """Return mAP over the labels that have a positive among the images drawn; raises as `average_precision`."""
    of_labels = average_precision_of(scores_NL, targets_NL, known_NL)
    return lambda counts_DN: mean_over_drawn_labels(of_labels(counts_DN))


def mean_over_drawn_labels(ap_LD: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over the labels that are not nan [D]; nan for a draw without any."""
    number_D = (~np.isnan(ap_LD)).sum(axis=0)
    return np.where(number_D > 0, np.nansum(ap_LD, axis=0) / np.maximum(number_D, 1), np.nan)


def label_counts_of(predicted_NL: Bools, targets_NL: Bools, known_NL: Bools | None = None) -> Callable[[DrawnCounts], Ints]:
    """Return the counts of label sets on drawn images [D, 3, L]: true positives, predicted, positives; raises as `count`."""
    check_targets(targets_NL, known_NL)
    known_NL = np.ones_like(targets_NL) if known_NL is None else known_NL
    present_NL, made_NL = targets_NL & known_NL, predicted_NL & known_NL
    table_NM = np.concatenate([made_NL & present_NL, made_NL, present_NL], axis=1).astype(np.float32)

    def counts(counts_DN: DrawnCounts) -> Ints:
        sums_DM: Ints = np.rint(counts_DN.astype(np.float32) @ table_NM).astype(np.int64)  # exact below 2^24
        return sums_DM.reshape(len(sums_DM), 3, -1)

    return counts


def count_metric_of(name: str, predicted_NL: Bools, targets_NL: Bools, known_NL: Bools | None = None) -> Statistic:
    """Return OP, OR, OF1, CP, CR or CF1 of label sets; raises as `count`."""
    label_counts = label_counts_of(predicted_NL, targets_NL, known_NL)

    def statistic(counts_DN: DrawnCounts) -> NDArray[np.float64]:
        parts = (LabelCounts(*counts_3L) for counts_3L in label_counts(counts_DN))
        return np.array([getattr(metrics_from(part), name) if part.positives_L.any() else np.nan for part in parts])

    return statistic


def calibration_error_of(
    marginals_NL: AnyFloats, targets_NL: Bools, known_NL: Bools | None = None, *, bins: int = BINS
) -> Statistic:
    """Return ECE with bins of equal width, as `expected_calibration_error`, with the same checks."""
    check_marginals(marginals_NL, targets_NL, known_NL)
    known_NL = np.ones_like(targets_NL) if known_NL is None else known_NL
    bin_NL = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], marginals_NL, side="left")
    place_NL = np.arange(len(bin_NL))[:, None] * bins + bin_NL
    gap_NL: NDArray[np.float64] = targets_NL - marginals_NL.astype(np.float64)
    gap_NB = np.bincount(place_NL[known_NL], gap_NL[known_NL], bin_NL.shape[0] * bins).reshape(-1, bins)
    pairs_N = known_NL.sum(axis=1)

    def statistic(counts_DN: DrawnCounts) -> NDArray[np.float64]:
        pairs_D = counts_DN @ pairs_N
        return np.where(pairs_D > 0, np.abs(counts_DN @ gap_NB).sum(axis=1) / np.maximum(pairs_D, 1), np.nan)

    return statistic


@dataclass(frozen=True, eq=False)
class _Ranked:
    """The images of a label by falling score, in P groups that each end with the score of a positive; and its positives."""

    rows_M: NDArray[np.int64]  # down to the last positive
    starts_P: NDArray[np.int64]  # of the groups, in rows_M
    positives_M: NDArray[np.int64]
    positive_starts_P: NDArray[np.int64]  # of the same groups, in positives_M

    @classmethod
    def of(cls, rows_M: NDArray[np.int64], scores_M: AnyFloats, targets_M: Bools) -> "_Ranked":
        order_M = np.argsort(-scores_M, kind="stable")
        falling_M, targets_M = -scores_M[order_M], targets_M[order_M]
        places_M = np.flatnonzero(targets_M)
        _, positive_starts_P = np.unique(falling_M[places_M], return_index=True)
        ends_P = np.searchsorted(falling_M, falling_M[places_M][positive_starts_P], side="right")
        rows_M = rows_M[order_M]
        return cls(rows_M[: ends_P[-1]], np.append(0, ends_P[:-1]), rows_M[places_M], positive_starts_P)

    def average_precision(self, counts_DN: DrawnCounts) -> NDArray[np.float64]:
        """Return the exact AP [D], nan where a draw has no positive."""
        # Summing by group reads memory once; a running sum over all images takes twice as long.
        gained_DP = np.add.reduceat(np.take(counts_DN, self.positives_M, axis=1), self.positive_starts_P, axis=1)
        group_DP = np.add.reduceat(np.take(counts_DN, self.rows_M, axis=1), self.starts_P, axis=1)
        hits_DP, predicted_DP = gained_DP.cumsum(axis=1), group_DP.cumsum(axis=1)
        area_D = (gained_DP * (hits_DP / np.maximum(predicted_DP, 1))).sum(axis=1)
        return np.where(hits_DP[:, -1] > 0, area_D / np.maximum(hits_DP[:, -1], 1), np.nan)
