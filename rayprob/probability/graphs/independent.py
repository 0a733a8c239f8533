"""Independent labels in an exported graph: a scale and a shift of logits, or increasing curves. N images, L labels."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rayprob.probability.calibration.affine import AffineCalibrator
from rayprob.probability.calibration.isotonic import IsotonicCalibrator
from rayprob.probability.graphs.probabilities import Probabilities, constant


class AffineProbabilities(Probabilities):
    """Logits, calibrated by a scale and a shift, through the sigmoid."""

    def __init__(self, calibrator: AffineCalibrator) -> None:
        super().__init__()
        self.scale_L, self.shift_L = constant(calibrator.scale_L), constant(calibrator.shift_L)

    def logits(self, outputs: dict[str, Tensor]) -> Tensor:
        """Return the calibrated logits [N, L]."""
        return outputs["logits"].double() * self.scale_L + self.shift_L

    def forward(self, outputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Return the marginals."""
        return (torch.sigmoid(self.logits(outputs)).float(),)


class IsotonicProbabilities(Probabilities):
    """Logits mapped by two increasing curves, the label's own and the pooled one, as in `IsotonicCalibrator`."""

    def __init__(self, calibrator: IsotonicCalibrator) -> None:
        super().__init__()
        curves = calibrator.curves
        pieces = [slice(*ends) for ends in zip(curves.starts_C[:-1].tolist(), curves.starts_C[1:].tolist(), strict=True)]
        each = [(curves.knots[piece], curves.values[piece]) for piece in pieces]
        self.own, self.pooled = PiecewiseLinear(each[1:]), PiecewiseLinear(each[:1])
        self.scale_L, self.shift_L = constant(calibrator.scale_L), constant(calibrator.shift_L)
        self.weight_L = constant(calibrator.weight_L)

    def forward(self, outputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Return the marginals."""
        scaled_NL = outputs["logits"].double() * self.scale_L + self.shift_L
        return ((self.weight_L * self.own(scaled_NL) + (1 - self.weight_L) * self.pooled(scaled_NL)).float(),)


class PiecewiseLinear(nn.Module):
    """Piecewise linear curves, one per label or one for all, constant beyond their ends; M knots each after padding."""

    def __init__(self, curves: list[tuple[NDArray[Any], NDArray[Any]]]) -> None:
        super().__init__()
        longest = max(len(knots) for knots, _ in curves) + 1
        padded = [_padded(knots, values, longest) for knots, values in curves]
        self.knots_LM, self.values_LM = (constant(np.stack(arrays)) for arrays in zip(*padded, strict=True))

    def forward(self, x_NL: Tensor) -> Tensor:
        """Return the curves' values."""
        knots_NLM, values_NLM = (
            array_LM.expand(x_NL.shape[0], x_NL.shape[1], -1) for array_LM in (self.knots_LM, self.values_LM)
        )
        passed_NL1 = (x_NL.unsqueeze(2) >= knots_NLM).long().sum(dim=2, keepdim=True)
        left_NL1 = torch.clamp(passed_NL1 - 1, 0, self.knots_LM.shape[1] - 2)
        from_, to = (torch.gather(knots_NLM, 2, left_NL1 + step).squeeze(2) for step in (0, 1))
        low, high = (torch.gather(values_NLM, 2, left_NL1 + step).squeeze(2) for step in (0, 1))
        return low + torch.clamp((x_NL - from_) / (to - from_), 0.0, 1.0) * (high - low)


def _padded(knots: NDArray[Any], values: NDArray[Any], longest: int) -> tuple[NDArray[Any], NDArray[Any]]:
    beyond = knots[-1] + np.arange(1.0, longest - len(knots) + 1)
    return np.concatenate([knots, beyond]), np.concatenate([values, np.full(len(beyond), values[-1])])
