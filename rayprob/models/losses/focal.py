"""The focal loss, which down-weights labels that are already right."""

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from rayprob.models.losses.loss import LossOf01


class FocalSpec(LossOf01):
    alpha: float | None = Field(default=None, gt=0, lt=1)
    """Weight of positives; negatives weigh 1 - alpha. null weighs both by 1."""
    gamma: float = Field(default=2.0, ge=0)
    """Exponent that down-weights labels that are already right."""


def focal(spec: FocalSpec, outputs: dict[str, Tensor], targets_BL: Tensor, known_BL: Tensor) -> Tensor:
    """Return the focal loss -(1 - p_t)^gamma log p_t, weighted by alpha and 1 - alpha if given (Lin et al., ICCV 2017)."""
    signed_BL = outputs["logits"] * (2 * targets_BL - 1)
    # A power of sigmoid would have a nan gradient where sigmoid is 0 and gamma below 1.
    loss_BL = -logsigmoid(signed_BL) * torch.exp(spec.gamma * logsigmoid(-signed_BL))
    if spec.alpha is not None:
        loss_BL = loss_BL * (spec.alpha * targets_BL + (1 - spec.alpha) * (1 - targets_BL))
    return (loss_BL * known_BL).sum(1)


LOSSES = {"focal": focal}
