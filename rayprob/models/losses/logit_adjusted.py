"""The loss `logit_adjusted`: binary cross-entropy that takes the label prevalences out of the logits."""

from typing import ClassVar

from pydantic import Field
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from rayprob.models.heads.head import Start, log_odds
from rayprob.models.losses.loss import BestBy, LossSpec
from rayprob.models.losses.per_label import PerLabel, prevalences


class LogitAdjustedSpec(LossSpec):
    """The logits are those of data in which every label is present in half of the images (with tau 1)."""

    best_by: ClassVar[BestBy] = "mAP"

    tau: float = Field(default=1.0, ge=0)
    """How much of the prevalences to take out: 1 all of them, 0 is bce."""


class LogitAdjusted:
    """Binary cross-entropy of z_l + tau logit(prevalence_l).

    Menon et al. (ICLR 2021) add tau log(prior) to the logits of a softmax; for one label of several, present
    or absent, the two logs leave their difference, the logit of its prevalence. The loss drives z_l to logit p_l - tau
    logit(prevalence_l), so its threshold of 0.5 serves balanced accuracy; probabilities are off by that known shift of each
    label, which a per-label calibrator (`rayprob calibrate`) takes back. Ranking within a label, so mAP, is hardly changed.
    """

    def __init__(self, spec: LogitAdjustedSpec, start: Start) -> None:
        self.shift_L = PerLabel(spec.tau * log_odds(prevalences(start, spec.name)))

    def __call__(self, outputs: dict[str, Tensor], targets_BL: Tensor, known_BL: Tensor) -> Tensor:
        """Return the loss [B]."""
        adjusted_BL = outputs["logits"] + self.shift_L.like(outputs["logits"])
        return binary_cross_entropy_with_logits(adjusted_BL, targets_BL, known_BL, reduction="none").sum(1)


LOSSES = {"logit_adjusted": LogitAdjusted}
