"""The loss `bce`: binary cross-entropy, with label smoothing on request."""

from pydantic import Field
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from rayprob.models.losses.loss import LossOf01


class BceSpec(LossOf01):
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Move targets by half of this towards each other."""


def bce(spec: BceSpec, outputs: dict[str, Tensor], targets_BL: Tensor, known_BL: Tensor) -> Tensor:
    """Return binary cross-entropy; smoothing e moves targets to 1 - e/2 and e/2."""
    smooth_BL = targets_BL * (1 - spec.label_smoothing) + spec.label_smoothing / 2
    return binary_cross_entropy_with_logits(outputs["logits"], smooth_BL, known_BL, reduction="none").sum(1)


LOSSES = {"bce": bce}
