"""What the calibrators of independent labels share: they map logits to logits."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from numpy.typing import ArrayLike, NDArray

from rayprob.arrays import Floats
from rayprob.probability.calibration.holdout import require_outputs
from rayprob.probability.distributions.distribution import BernoulliDistribution, LabelDistribution


class OfLogits(ABC):
    """A calibrator that is a map of logits [N, L]."""

    @abstractmethod
    def apply(self, logits_NL: ArrayLike) -> Floats:
        """Return calibrated logits [N, L]."""

    def apply_outputs(self, outputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return calibrated outputs "logits" in their input dtype. Raises CalibrationError if they are missing."""
        require_outputs(outputs, "bernoulli", "logits")
        return {"logits": self.apply(outputs["logits"]).astype(outputs["logits"].dtype)}

    def as_distribution(self, outputs: Mapping[str, NDArray[Any]]) -> LabelDistribution:
        """Return the distributions that calibrated outputs describe."""
        return BernoulliDistribution.of_outputs(outputs)
