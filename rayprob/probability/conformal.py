"""Conformal risk control: label sets that miss at most a share alpha of an image's labels on average. N samples, L labels.

A sample's risk is the share of its known labels present that its set lacks, 0 without such labels. Sets are the labels whose
marginal reaches one threshold, so the risk only rises with it, and the highest threshold whose mean risk on n calibration
samples has (n * mean + 1) / (n + 1) <= alpha gives E[risk] <= alpha for the next sample, whatever the model and distribution
(Angelopoulos, Bates, Fisch, Lei, Schuster, "Conformal risk control", ICLR 2024, theorem 1). Where marginals are not tied the
expectation is at least alpha - 2 / (n + 1) (theorem 2).

The expectation is over calibration samples and the next one, which must be exchangeable: no model choice, no early stopping and
no calibrator with parameters a label may have seen the calibration samples. One temperature, or one scale and shift for all
labels, leaves the sets what they are and may.

MAPIE 1.6 has the method but takes a fixed grid of thresholds, refuses images without labels and has no unknown labels, so
these few lines are ours; a test holds them against MAPIE.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rayprob.errors import BundleError, CalibrationError, SpecError
from rayprob.probability.holdout import Bools, Floats, checked_marginals

ROUNDING = 1e-9  # of sums of shares such as 1/3


@dataclass(frozen=True)
class RiskControl:
    """A threshold for all labels, and the guarantee that it carries: E[missed share of an image's labels] <= alpha."""

    threshold: float
    alpha: float
    num_samples: int
    empirical_risk: float  # mean missed share on the samples it was fitted on

    def decide(self, marginals_NL: ArrayLike) -> Bools:
        """Return the label sets [N, L]: marginal >= threshold, rounded to the marginals' type."""
        marginals_NL = np.asarray(marginals_NL)
        return np.asarray(marginals_NL >= np.asarray(self.threshold, dtype=marginals_NL.dtype))

    def to_dict(self) -> dict[str, float | int]:
        """Return plain numbers, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "RiskControl":
        """Rebuild a risk control from `to_dict`. Raises BundleError where a part is missing."""
        try:
            threshold, alpha, risk = (float(value[key]) for key in ("threshold", "alpha", "empirical_risk"))
            return cls(threshold, alpha, int(value["num_samples"]), risk)
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"stored risk control cannot be read ({error!r}); write the bundle again") from error


def fit_risk_control(marginals_NL: ArrayLike, targets_NL: ArrayLike, known_NL: ArrayLike, alpha: float) -> RiskControl:
    """Return the highest threshold that guarantees E[missed share] <= alpha; samples without any known label are left out.

    Raises SpecError for an alpha outside (0, 1), CalibrationError where the samples are too few for it: 1 / alpha - 1 at least.
    """
    if not 0 < alpha < 1:
        raise SpecError(f"alpha {alpha:g} is outside (0, 1); it is the share of labels that may be missed, such as 0.1")
    marginals_NL, targets_NL, known_NL = checked_marginals(marginals_NL, targets_NL, known_NL)
    stated_N = known_NL.any(axis=1)
    num_samples = int(stated_N.sum())
    missable = alpha * (num_samples + 1) - 1.0  # missed shares that the samples may sum to
    if missable < -ROUNDING:
        fewest, lowest_alpha = int(np.ceil(1 / alpha - 1 - ROUNDING)), np.ceil(1e4 / (num_samples + 1)) / 1e4
        raise CalibrationError(
            f"alpha {alpha:g} needs {fewest} calibration samples at least, found {num_samples}; add samples or take alpha "
            f"{lowest_alpha:g} or more"
        )
    threshold = _highest_threshold(marginals_NL, targets_NL, missable)
    risk_N = missed_share(marginals_NL >= threshold, targets_NL, known_NL)
    return RiskControl(threshold, alpha, num_samples, float(risk_N[stated_N].mean()))


def missed_share(sets_NL: ArrayLike, targets_NL: ArrayLike, known_NL: ArrayLike) -> Floats:
    """Return the share of each sample's known labels present that its set lacks [N], 0 where it has none."""
    present_NL = np.asarray(targets_NL, dtype=bool) & np.asarray(known_NL, dtype=bool)
    missed_N = (present_NL & ~np.asarray(sets_NL, dtype=bool)).sum(axis=1)
    return np.asarray(missed_N / np.maximum(present_NL.sum(axis=1), 1))


def _highest_threshold(marginals_NL: Floats, targets_NL: Bools, missable: float) -> float:
    """Return the highest threshold below which lie labels whose shares sum to no more than `missable`; 1 where all may."""
    share_NL = targets_NL / np.maximum(targets_NL.sum(axis=1, keepdims=True), 1)
    marginals_P, share_P = marginals_NL[targets_NL], share_NL[targets_NL]
    order_P = np.argsort(marginals_P)
    needed_P = np.flatnonzero(np.cumsum(share_P[order_P]) > missable + ROUNDING)
    return float(marginals_P[order_P[needed_P[0]]]) if len(needed_P) else 1.0
