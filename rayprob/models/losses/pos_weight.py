"""The loss `pos_weight`: binary cross-entropy in which the positives of rare labels weigh more."""

from typing import ClassVar

from pydantic import Field
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from rayprob.models.heads.head import Start
from rayprob.models.losses.loss import BestBy, LossSpec
from rayprob.models.losses.per_label import PerLabel, prevalences


class PosWeightSpec(LossSpec):
    """A label's positives weigh (its negatives per positive in training) ** power, between 1 / highest and highest."""

    best_by: ClassVar[BestBy] = "mAP"

    power: float = Field(default=1.0, ge=0, le=1)
    """Exponent of the ratio of negatives to positives: 1 balances them, 0.5 does so by half, 0 is bce."""
    highest: float = Field(default=20.0, ge=1)
    """The largest weight of a positive."""


class PosWeight:
    """Binary cross-entropy with a weight w_l for the positives of label l (Lin et al., KDD 2017 and later practice).

    The logit of a label that is present with probability p is driven to logit p + log w_l: probabilities of rare labels are
    too high by a known factor of their odds, which a per-label calibrator (`rayprob calibrate`) takes back.
    """

    def __init__(self, spec: PosWeightSpec, start: Start) -> None:
        prevalence_L = prevalences(start, spec.name)
        ratio_L = ((1 - prevalence_L) / prevalence_L) ** spec.power
        self.weight_L = PerLabel(ratio_L.clip(1 / spec.highest, spec.highest))

    def __call__(self, outputs: dict[str, Tensor], targets_BL: Tensor, known_BL: Tensor) -> Tensor:
        """Return the loss [B]."""
        logits_BL = outputs["logits"]
        return binary_cross_entropy_with_logits(
            logits_BL, targets_BL, known_BL, reduction="none", pos_weight=self.weight_L.like(logits_BL)
        ).sum(1)


LOSSES = {"pos_weight": PosWeight}
