"""Outputs -> calibrated probabilities, as modules of plain tensor operations for export. N images, K components, L labels."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rayprob.errors import ModelError
from rayprob.probability.calibration.affine import AffineCalibrator
from rayprob.probability.calibration.candidates import OutputsCalibrator
from rayprob.probability.calibration.isotonic import IsotonicCalibrator
from rayprob.probability.calibration.mixture import MixtureCalibrator


class BernoulliProbabilities(nn.Module):
    """Logits, calibrated by a scale and a shift, through the sigmoid."""

    def __init__(self, scale_L: NDArray[Any], shift_L: NDArray[Any]) -> None:
        super().__init__()
        self.scale_L, self.shift_L = _constant(scale_L), _constant(shift_L)

    def forward(self, outputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Return the marginals."""
        return (torch.sigmoid(outputs["logits"].double() * self.scale_L + self.shift_L).float(),)


class IsotonicProbabilities(nn.Module):
    """Logits through two rising curves, the label's own and the pooled one, as `IsotonicCalibrator` has them."""

    def __init__(self, calibrator: IsotonicCalibrator) -> None:
        super().__init__()
        curves = calibrator.curves
        pieces = [slice(*ends) for ends in zip(curves.starts_C[:-1].tolist(), curves.starts_C[1:].tolist(), strict=True)]
        each = [(curves.knots[piece], curves.values[piece]) for piece in pieces]
        self.own, self.pooled = Curves(each[1:]), Curves(each[:1])
        self.scale_L, self.shift_L = _constant(calibrator.scale_L), _constant(calibrator.shift_L)
        self.weight_L = _constant(calibrator.weight_L)

    def forward(self, outputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Return the marginals."""
        scaled_NL = outputs["logits"].double() * self.scale_L + self.shift_L
        return ((self.weight_L * self.own(scaled_NL) + (1 - self.weight_L) * self.pooled(scaled_NL)).float(),)


class Curves(nn.Module):
    """Piecewise linear curves, one a label or one for all, level beyond their ends; M knots each after padding."""

    def __init__(self, curves: list[tuple[NDArray[Any], NDArray[Any]]]) -> None:
        super().__init__()
        longest = max(len(knots) for knots, _ in curves) + 1
        padded = [_padded(knots, values, longest) for knots, values in curves]
        self.knots_LM, self.values_LM = (_constant(np.stack(arrays)) for arrays in zip(*padded, strict=True))

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


class MixtureProbabilities(nn.Module):
    """The parameters of a mixture, calibrated by scales and a shift; and the marginals that they give."""

    def __init__(self, mixing_scale: float, scale_L: NDArray[Any], shift_L: NDArray[Any]) -> None:
        super().__init__()
        self.mixing_scale = mixing_scale
        self.scale_L, self.shift_L = _constant(scale_L), _constant(shift_L)

    def forward(self, outputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Return marginals, mixing weights and component probabilities."""
        mixing_NK = torch.softmax(outputs["mixing_logits"].double() * self.mixing_scale, dim=1)
        component_NKL = torch.sigmoid(outputs["component_logits"].double() * self.scale_L + self.shift_L)
        marginals_NL = (mixing_NK.unsqueeze(2) * component_NKL).sum(dim=1)
        return marginals_NL.float(), mixing_NK.float(), component_NKL.float()


def independent_labels(calibrator: OutputsCalibrator | None) -> nn.Module:
    """Return the module from "logits" to the marginals. Raises ModelError for a calibrator without one."""
    if isinstance(calibrator, IsotonicCalibrator):
        return IsotonicProbabilities(calibrator)
    if isinstance(calibrator, AffineCalibrator):
        return BernoulliProbabilities(calibrator.scale_L, calibrator.shift_L)
    _require_none(calibrator)
    return BernoulliProbabilities(np.ones(1), np.zeros(1))


def mixture(calibrator: OutputsCalibrator | None) -> nn.Module:
    """Return the module from "mixing_logits" and "component_logits" to marginals, mixing weights and component probabilities.

    Raises ModelError for a calibrator without one.
    """
    if isinstance(calibrator, MixtureCalibrator):
        return MixtureProbabilities(calibrator.mixing_scale, calibrator.scale_L, calibrator.shift_L)
    _require_none(calibrator)
    return MixtureProbabilities(1.0, np.ones(1), np.zeros(1))


def _require_none(calibrator: Any) -> None:
    if calibrator is not None:
        raise ModelError(
            f"calibrator {calibrator.name!r} has no graph; calibrate with one of identity, temperature, shared_platt, platt"
        )


def _constant(values: NDArray[Any]) -> nn.Buffer:
    return nn.Buffer(torch.from_numpy(np.array(values, dtype=np.float64)), persistent=False)


def _padded(knots: NDArray[Any], values: NDArray[Any], longest: int) -> tuple[NDArray[Any], NDArray[Any]]:
    beyond = knots[-1] + np.arange(1.0, longest - len(knots) + 1)
    return np.concatenate([knots, beyond]), np.concatenate([values, np.full(len(beyond), values[-1])])
