"""Uncertainty from several members: how much, and of which kind. M members, N samples, L labels; nats throughout.

Members are passes of one model under Monte-Carlo dropout (Gal and Ghahramani, ICML 2016) or models of an ensemble
(Lakshminarayanan et al., NeurIPS 2017). For each label, total = entropy of the mean marginal, aleatoric = mean of the members'
entropies, epistemic = total - aleatoric: the mutual information between label and member (Houlsby et al. 2011; Depeweg et al.,
ICML 2018). More training does not reduce aleatoric uncertainty; epistemic uncertainty is the members' disagreement.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy  # loads scipy.integrate on first use; every prediction imports this module
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr

from rayprob.arrays import Floats, Rows
from rayprob.errors import CalibrationError
from rayprob.seeds import derive

NUM_RANDOM_ORDERS = 20
COVERAGES = tuple(percent / 100 for percent in range(10, 101, 5))


@dataclass(frozen=True)
class Uncertainty:
    """Mean marginals and entropies per label [N, L]; `*_N` sum them over labels.

    The sums are entropies of the label set for independent labels only; else `total_N` and `aleatoric_N` are upper bounds.
    """

    marginals_NL: Floats
    total_NL: Floats
    aleatoric_NL: Floats
    epistemic_NL: Floats
    num_members: int

    @property
    def total_N(self) -> Floats:
        """Return the total uncertainty of each sample."""
        return np.asarray(self.total_NL.sum(axis=-1))

    @property
    def aleatoric_N(self) -> Floats:
        """Return the part of it that the members agree on."""
        return np.asarray(self.aleatoric_NL.sum(axis=-1))

    @property
    def epistemic_N(self) -> Floats:
        """Return the part of it that comes from the members' disagreement."""
        return np.asarray(self.epistemic_NL.sum(axis=-1))


@dataclass(frozen=True)
class AbstentionCurve:
    """Quality on the `coverage_C` share of samples that are answered, for three orders of abstention.

    `quality_C` abstains on the most uncertain first, `random_C` at random (mean of several orders), `oracle_C` on the samples
    of the highest loss. Areas are means over the coverages; `gain` is 0 for a useless order and 1 for the oracle's.
    """

    coverage_C: Floats
    quality_C: Floats
    random_C: Floats
    oracle_C: Floats

    @property
    def area(self) -> float:
        """Return the area under the curve."""
        return _area(self.quality_C, self.coverage_C)

    @property
    def gain(self) -> float:
        """Return (area - random area) / (oracle area - random area), nan if the oracle gains nothing."""
        random, oracle = (_area(curve_C, self.coverage_C) for curve_C in (self.random_C, self.oracle_C))
        return (self.area - random) / (oracle - random) if abs(oracle - random) > 1e-12 else float("nan")


def uncertainty(member_marginals_MNL: ArrayLike) -> Uncertainty:
    """Return the uncertainty of equally weighted members. Raises CalibrationError for one member, or values outside [0, 1]."""
    members_MNL = np.asarray(member_marginals_MNL, dtype=np.float64)
    if members_MNL.ndim != 3 or len(members_MNL) < 2:
        raise CalibrationError(
            f"member marginals have shape {list(members_MNL.shape)}; give [members, samples, labels] of at least 2 members, "
            "since one cannot disagree with itself"
        )
    if not ((members_MNL >= 0) & (members_MNL <= 1)).all():
        raise CalibrationError("member marginals are not all between 0 and 1; pass probabilities, not logits")
    mean_NL = members_MNL.mean(axis=0)
    total_NL, aleatoric_NL = _entropy(mean_NL), _entropy(members_MNL).mean(axis=0)
    return Uncertainty(mean_NL, total_NL, aleatoric_NL, np.maximum(total_NL - aleatoric_NL, 0.0), len(members_MNL))


def abstention_curve(
    uncertainty_N: ArrayLike,
    quality: Callable[[Rows], float],
    losses_N: ArrayLike,
    *,
    coverages_C: ArrayLike = COVERAGES,
    seed: int = 0,
) -> AbstentionCurve:
    """Return quality against coverage; `quality(rows)` is larger where better, for any metric of a subset of the samples.

    `losses_N` orders the oracle's abstentions. Raises CalibrationError for lengths that differ or coverages outside (0, 1].
    """
    uncertainty_N, losses_N = (np.asarray(values, dtype=np.float64) for values in (uncertainty_N, losses_N))
    coverage_C = np.asarray(coverages_C, dtype=np.float64)
    _check_curve(uncertainty_N, losses_N, coverage_C)
    kept_C = np.maximum(1, np.round(coverage_C * len(losses_N)).astype(np.int64))

    def curve(order_N: Rows) -> Floats:
        return np.array([quality(order_N[:kept]) for kept in kept_C])

    generator = np.random.default_rng(derive(seed, "abstention"))
    random_C = np.mean([curve(generator.permutation(len(losses_N))) for _ in range(NUM_RANDOM_ORDERS)], axis=0)
    by_uncertainty_N, by_loss_N = (np.argsort(values, kind="stable") for values in (uncertainty_N, losses_N))
    return AbstentionCurve(coverage_C, curve(by_uncertainty_N), random_C, curve(by_loss_N))


def _entropy(marginals: Floats) -> Floats:
    return np.asarray(entr(marginals) + entr(1.0 - marginals))


def _area(curve_C: Floats, coverage_C: Floats) -> float:
    if len(curve_C) == 1:
        return float(curve_C[0])
    return float(scipy.integrate.trapezoid(curve_C, coverage_C) / (coverage_C[-1] - coverage_C[0]))


def _check_curve(uncertainty_N: Floats, losses_N: Floats, coverage_C: NDArray[np.float64]) -> None:
    if uncertainty_N.ndim != 1 or uncertainty_N.shape != losses_N.shape or not len(losses_N):
        raise CalibrationError(
            f"uncertainties {list(uncertainty_N.shape)} and losses {list(losses_N.shape)} must have one value per sample"
        )
    if not len(coverage_C) or not ((coverage_C > 0) & (coverage_C <= 1)).all() or (np.diff(coverage_C) <= 0).any():
        raise CalibrationError(f"coverages {coverage_C.tolist()} must increase within (0, 1], such as 0.5, 0.75, 1")
