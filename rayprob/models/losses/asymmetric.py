"""The asymmetric loss, which focuses positives and negatives apart."""

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from rayprob.models.losses.loss import LossOf01


class AsymmetricSpec(LossOf01):
    gamma_pos: float = Field(default=0.0, ge=0)
    """Exponent for positives."""
    gamma_neg: float = Field(default=4.0, ge=0)
    """Exponent for negatives."""
    clip: float = Field(default=0.05, ge=0, lt=1)
    """Ignore negatives whose probability is below this."""


def asymmetric(spec: AsymmetricSpec, outputs: dict[str, Tensor], targets_BL: Tensor, known_BL: Tensor) -> Tensor:
    """Return the asymmetric loss, negatives shifted by `clip` (Ridnik et al., ICCV 2021, equations 4 to 7).

    No gradient flows through the focusing weights, as in the authors' training runs.
    """
    logits_BL = outputs["logits"]
    negative_BL = logsigmoid(-logits_BL)
    if spec.clip:
        negative_BL = (torch.sigmoid(-logits_BL) + spec.clip).clamp(max=1).log()
    with torch.no_grad():
        positive_weight_BL = torch.sigmoid(-logits_BL) ** spec.gamma_pos
        negative_weight_BL = (1 - negative_BL.exp()).clamp(min=0) ** spec.gamma_neg
    positive_BL = targets_BL * positive_weight_BL * logsigmoid(logits_BL)
    return -((positive_BL + (1 - targets_BL) * negative_weight_BL * negative_BL) * known_BL).sum(1)


LOSSES = {"asymmetric": asymmetric}
