"""Calibration by a scale and a shift of logits, for all labels or for each. N samples, L labels."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rayprob.arrays import Floats
from rayprob.errors import BundleError, CalibrationError
from rayprob.probability.calibration.of_logits import OfLogits


@dataclass(frozen=True)
class AffineCalibrator(OfLogits):
    """logit -> scale * logit + shift with scale > 0: one value for all labels [1], or one per label [L]."""

    name: str
    scale_L: Floats
    shift_L: Floats
    family: ClassVar[str] = "bernoulli"

    def apply(self, logits_NL: ArrayLike) -> Floats:
        """Return calibrated logits [N, L]; the ranking within each label does not change."""
        logits_NL = np.asarray(logits_NL, dtype=np.float64)
        if self.scale_L.size not in (1, logits_NL.shape[-1]):
            raise CalibrationError(
                f"calibrator {self.name!r} was fitted on {self.scale_L.size} labels, the logits have {logits_NL.shape[-1]}; "
                "use the calibrator of this model"
            )
        return np.asarray(logits_NL * self.scale_L + self.shift_L)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return plain arrays, for safetensors."""
        return {"scale_L": self.scale_L, "shift_L": self.shift_L}

    @classmethod
    def from_arrays(cls, name: str, arrays: Mapping[str, NDArray[Any]]) -> "AffineCalibrator":
        """Rebuild a calibrator from its name and `to_arrays`. Raises BundleError if an array is missing."""
        try:
            return cls(name, np.asarray(arrays["scale_L"], np.float64), np.asarray(arrays["shift_L"], np.float64))
        except KeyError as error:
            raise BundleError(
                f"calibrator {name!r} lacks array {error}; found {', '.join(arrays) or 'none'}; write the bundle again"
            ) from error
