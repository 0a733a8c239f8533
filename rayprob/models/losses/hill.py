"""The loss `hill`, for data in which present labels are missing: absent labels that look present lose their weight."""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from rayprob.models.losses.loss import BestBy, LossSpec


class HillSpec(LossSpec):
    best_by: ClassVar[BestBy] = "mAP"

    top: float = Field(default=1.5, gt=1)
    """lambda of the paper: negatives weigh (top - p), so their gradient falls again as p nears 1."""
    margin: float = Field(default=1.0, ge=0)
    """Logits of positives are lowered by this, so that positives of medium difficulty count most."""
    gamma: float = Field(default=2.0, ge=0)
    """Exponent that down-weights positives that are already right."""


def hill(spec: HillSpec, outputs: dict[str, Tensor], targets_BL: Tensor, known_BL: Tensor) -> Tensor:
    """Return (top - p) p^2 for absent labels and -(1 - q)^gamma log q, q = sigmoid(z - margin), for present ones.

    These are the Hill loss and the focal margin (Zhang et al., 2021, arXiv 2112.07368). The unknown
    labels of a dataset stay out of it, as everywhere: it is for labels that are stated to be absent, but may be missing.
    """
    logits_BL = outputs["logits"]
    p_BL, lowered_BL = torch.sigmoid(logits_BL), logits_BL - spec.margin
    absent_BL = (spec.top - p_BL) * p_BL**2
    # A power of sigmoid would have a nan gradient where sigmoid is 0 and gamma below 1.
    present_BL = -logsigmoid(lowered_BL) * torch.exp(spec.gamma * logsigmoid(-lowered_BL))
    return ((targets_BL * present_BL + (1 - targets_BL) * absent_BL) * known_BL).sum(1)


LOSSES = {"hill": hill}
