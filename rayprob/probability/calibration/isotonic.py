"""Isotonic calibration on top of Platt scaling: one increasing curve for all labels, adapted to each label with enough data.

N samples, L labels. Curves map Platt-scaled logits (`platt.py`) to probabilities. A label's curve is
weight * own + (1 - weight) * pooled, with weight = positives / (positives + PRIOR_POSITIVES): the pooled curve corrects what
the logistic shape misses, and a rare label, whose own curve would be noise, stays close to it. A curve fitted on n targets
stays between 1 / (n + 2) and 1 - 1 / (n + 2) (rule of succession), so that no NLL is infinite. Isotonic regression as
calibration: Zadrozny and Elkan, KDD 2002.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logit

from rayprob.arrays import Bools, Floats
from rayprob.errors import BundleError, CalibrationError
from rayprob.probability.calibration import platt
from rayprob.probability.calibration.of_logits import OfLogits

PRIOR_POSITIVES = 400.0  # the lowest held-out NLL of 20, 100, 400 and all pooled, on 500 and 4,100 simulated samples


@dataclass(frozen=True)
class Curves:
    """C increasing piecewise linear curves in three arrays: curve c has knots[starts[c]:starts[c + 1]], and values likewise."""

    knots: Floats
    values: Floats
    starts_C: NDArray[np.int64]

    def at(self, curve: int, logits_N: Floats) -> Floats:
        """Return the curve's probability at each logit, constant beyond its first and last knot."""
        piece = slice(self.starts_C[curve], self.starts_C[curve + 1])
        return np.asarray(np.interp(logits_N, self.knots[piece], self.values[piece]))


@dataclass(frozen=True)
class IsotonicCalibrator(OfLogits):
    """Curve 0 is the pooled one, curve l + 1 that of label l, weighted by weight_L. It may tie logits, and so change AP."""

    scale_L: Floats
    shift_L: Floats
    curves: Curves
    weight_L: Floats
    name: str = "isotonic"
    family: ClassVar[str] = "bernoulli"

    def apply(self, logits_NL: ArrayLike) -> Floats:
        """Return calibrated logits [N, L], finite and increasing with the logits."""
        logits_NL = np.asarray(logits_NL, dtype=np.float64)
        if logits_NL.shape[-1] != self.weight_L.size:
            raise CalibrationError(
                f"calibrator 'isotonic' was fitted on {self.weight_L.size} labels, the logits have {logits_NL.shape[-1]}; "
                "use the calibrator of this model"
            )
        scaled_NL = self.scale_L * logits_NL + self.shift_L
        calibrated_NL: Floats = np.empty_like(scaled_NL)
        for column, weight in enumerate(self.weight_L):
            own_N = self.curves.at(column + 1, scaled_NL[..., column])
            pooled_N = self.curves.at(0, scaled_NL[..., column])
            calibrated_NL[..., column] = logit(weight * own_N + (1.0 - weight) * pooled_N)
        return calibrated_NL

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return plain arrays, for safetensors."""
        curves = {"knots": self.curves.knots, "values": self.curves.values, "starts_C": self.curves.starts_C}
        return curves | {"scale_L": self.scale_L, "shift_L": self.shift_L, "weight_L": self.weight_L}

    @classmethod
    def from_arrays(cls, name: str, arrays: Mapping[str, NDArray[Any]]) -> "IsotonicCalibrator":
        """Rebuild a calibrator from `to_arrays`. Raises BundleError if an array is missing."""
        try:
            curves = Curves(arrays["knots"], arrays["values"], arrays["starts_C"])
            return cls(arrays["scale_L"], arrays["shift_L"], curves, arrays["weight_L"], name)
        except KeyError as error:
            raise BundleError(
                f"calibrator {name!r} lacks array {error}; found {', '.join(arrays) or 'none'}; write the bundle again"
            ) from error


def fit_isotonic(logits_NL: Floats, targets_NL: Bools, known_NL: Bools) -> IsotonicCalibrator:
    """Return the isotonic calibrator of checked holdout rows."""
    theta_L2, _ = platt.fit_labels(logits_NL, targets_NL, known_NL)
    scale_L, shift_L = np.exp(theta_L2[:, 0]), theta_L2[:, 1]
    scaled_NL = scale_L * logits_NL + shift_L
    curves = [_curve(scaled_NL[known_NL], targets_NL[known_NL])]
    for scaled_N, targets_N, known_N in zip(scaled_NL.T, targets_NL.T, known_NL.T, strict=True):
        curves.append(_curve(scaled_N[known_N], targets_N[known_N]) if known_N.any() else curves[0])
    starts_C = np.cumsum([0, *(len(knots) for knots, _ in curves)])
    knots, values = (np.concatenate(parts) for parts in zip(*curves, strict=True))
    positives_L = targets_NL.sum(axis=0)
    weight_L = positives_L / (positives_L + PRIOR_POSITIVES)
    return IsotonicCalibrator(scale_L, shift_L, Curves(knots, values, starts_C), weight_L)


def _curve(logits_M: Floats, targets_M: Bools) -> tuple[Floats, Floats]:
    from sklearn.isotonic import IsotonicRegression  # imported here because every training process imports this module

    floor = 1.0 / (len(logits_M) + 2)
    fitted = IsotonicRegression(y_min=floor, y_max=1.0 - floor, out_of_bounds="clip").fit(logits_M, targets_M)
    return np.asarray(fitted.X_thresholds_, dtype=np.float64), np.asarray(fitted.y_thresholds_, dtype=np.float64)
