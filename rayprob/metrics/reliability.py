"""Calibration of marginals. N samples, L labels, B bins; marginals_NL in [0, 1], targets_NL, known_NL.

Each known (sample, label) pair is one forecast of one event: the label is present. Binned errors depend on the bins, so
compare numbers only with the same binning and number of bins.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rayprob.arrays import AnyFloats, Bools
from rayprob.errors import MetricError
from rayprob.metrics.inputs import check_marginals, label_columns, pooled
from rayprob.registry import choose

BINS = 15


@dataclass(frozen=True)
class ReliabilityCurve:
    """Mean marginal and observed share per bin; a bin without pairs has nan in both columns."""

    edges: NDArray[np.float64]  # B + 1; bin b holds edges[b] < marginal <= edges[b + 1], the first its lower edge too
    pairs_B: NDArray[np.int64]
    mean_marginal_B: NDArray[np.float64]
    present_share_B: NDArray[np.float64]

    @property
    def calibration_error(self) -> float:
        """The mean over pairs of |present share - mean marginal| of their bin; nan without pairs."""
        if not self.pairs_B.any():
            return float("nan")
        return float(np.nansum(self.pairs_B * self._gap_B) / self.pairs_B.sum())

    @property
    def _gap_B(self) -> NDArray[np.float64]:
        return np.abs(self.present_share_B - self.mean_marginal_B)


def reliability_curve(
    marginals_NL: AnyFloats, targets_NL: Bools, known_NL: Bools | None = None, *, binning: str = "equal_width", bins: int = BINS
) -> ReliabilityCurve:
    """Return the curve of all pairs together. Raises MetricError for marginals outside [0, 1] and unknown binnings."""
    check_marginals(marginals_NL, targets_NL, known_NL)
    return _curve(*pooled(marginals_NL, targets_NL, known_NL), binning, bins)


def reliability_curves(
    marginals_NL: AnyFloats, targets_NL: Bools, known_NL: Bools | None = None, *, binning: str = "equal_width", bins: int = BINS
) -> list[ReliabilityCurve]:
    """Return the curve of each label; raises as `reliability_curve`."""
    check_marginals(marginals_NL, targets_NL, known_NL)
    return [_curve(*column, binning, bins) for column in label_columns(marginals_NL, targets_NL, known_NL)]


def expected_calibration_error(
    marginals_NL: AnyFloats, targets_NL: Bools, known_NL: Bools | None = None, *, bins: int = BINS
) -> float:
    """Return ECE over all pairs with bins of equal width (Naeini et al., AAAI 2015, for each label's presence)."""
    return reliability_curve(marginals_NL, targets_NL, known_NL, bins=bins).calibration_error


def adaptive_calibration_error(
    marginals_NL: AnyFloats, targets_NL: Bools, known_NL: Bools | None = None, *, bins: int = BINS
) -> float:
    """Return ECE over all pairs with bins of equal mass (Nguyen and O'Connor, EMNLP 2015); equal marginals share a bin."""
    return reliability_curve(marginals_NL, targets_NL, known_NL, binning="equal_mass", bins=bins).calibration_error


def calibration_error_of_labels(
    marginals_NL: AnyFloats, targets_NL: Bools, known_NL: Bools | None = None, *, binning: str = "equal_width", bins: int = BINS
) -> NDArray[np.float64]:
    """Return the calibration error of each label [L], nan if none is known; their mean is the classwise ECE (Kull 2019)."""
    curves = reliability_curves(marginals_NL, targets_NL, known_NL, binning=binning, bins=bins)
    return np.array([curve.calibration_error for curve in curves])


@dataclass(frozen=True)
class BrierScore:
    """Mean squared error of marginals = reliability - resolution + uncertainty + within_bins."""

    value: float
    reliability: float  # squared distance of marginals from the observed shares, per bin; 0 is best
    resolution: float  # squared distance of the bins' present shares from the overall share; higher is better
    uncertainty: float  # variance of the event itself
    within_bins: float  # what binning hides: variance of marginals in a bin less twice their covariance with the event


def brier_score(
    marginals_NL: AnyFloats, targets_NL: Bools, known_NL: Bools | None = None, *, binning: str = "equal_width", bins: int = BINS
) -> BrierScore:
    """Return the Brier score over all known pairs with Murphy's three components (1973) and the within-bin component.

    The last one is that of Stephenson, Coelho and Jolliffe (2008), without which the components do not add up if marginals
    differ within a bin. Raises MetricError as `reliability_curve`, and if nothing is known.
    """
    check_marginals(marginals_NL, targets_NL, known_NL)
    marginals_M, targets_M = pooled(marginals_NL, targets_NL, known_NL)
    if not len(marginals_M):
        raise MetricError(NOTHING_KNOWN)
    value = float(np.mean((marginals_M.astype(np.float64) - targets_M) ** 2))
    curve = _curve(marginals_M, targets_M, binning, bins)
    share = float(targets_M.mean())
    weight_B = curve.pairs_B / len(marginals_M)
    reliability = float(np.nansum(weight_B * (curve.mean_marginal_B - curve.present_share_B) ** 2))
    resolution = float(np.nansum(weight_B * (curve.present_share_B - share) ** 2))
    uncertainty = share * (1 - share)
    return BrierScore(value, reliability, resolution, uncertainty, value - (reliability - resolution + uncertainty))


@dataclass(frozen=True)
class Honesty:
    """Calibration of marginals and likelihood of distributions; 0 is best. The NLL is that of an image's whole label set."""

    ECE: float
    adaptive_ECE: float
    Brier: float
    nll_nats: float


def honesty(marginals_NL: AnyFloats, log_prob_N: AnyFloats, targets_NL: Bools, known_NL: Bools) -> Honesty:
    """Return calibration errors and Brier score of marginals, and the mean of -log_prob_N of whole label sets."""
    rows = marginals_NL, targets_NL, known_NL
    return Honesty(
        ECE=expected_calibration_error(*rows),
        adaptive_ECE=adaptive_calibration_error(*rows),
        Brier=brier_score(*rows).value,
        nll_nats=float(-np.mean(log_prob_N)),
    )


def _curve(marginals_M: AnyFloats, targets_M: Bools, binning: str, bins: int) -> ReliabilityCurve:
    edges_of = choose(BINNINGS, binning, "binning", MetricError)
    if bins < 1:
        raise MetricError(f"bins is {bins}; give at least 1")
    edges = edges_of(marginals_M, bins)
    bin_M = np.searchsorted(edges[1:-1], marginals_M, side="left")
    pairs_B = np.bincount(bin_M, minlength=bins)
    sums = (np.bincount(bin_M, weights=values_M, minlength=bins) for values_M in (marginals_M, targets_M))
    mean_marginal_B, present_share_B = (np.where(pairs_B, sum_B / np.maximum(pairs_B, 1), np.nan) for sum_B in sums)
    return ReliabilityCurve(edges, pairs_B.astype(np.int64), mean_marginal_B, present_share_B)


def _equal_width(marginals_M: AnyFloats, bins: int) -> NDArray[np.float64]:
    return np.linspace(0, 1, bins + 1)


def _equal_mass(marginals_M: AnyFloats, bins: int) -> NDArray[np.float64]:
    if not len(marginals_M):
        return _equal_width(marginals_M, bins)
    return np.asarray(np.percentile(marginals_M.astype(np.float64), np.linspace(0, 1, bins + 1) * 100))


NOTHING_KNOWN = "no label of any sample is known; this metric needs at least one known pair"
BINNINGS: dict[str, Callable[[AnyFloats, int], NDArray[np.float64]]] = {"equal_width": _equal_width, "equal_mass": _equal_mass}
