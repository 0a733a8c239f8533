"""The loss `balanced`: distribution-balanced loss for long-tailed labels. B samples, L labels."""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from rayprob.models.heads.head import Start, log_odds
from rayprob.models.losses.loss import BestBy, LossSpec
from rayprob.models.losses.per_label import PerLabel, prevalences


class BalancedSpec(LossSpec):
    """The defaults are the authors' for COCO-MLT."""

    best_by: ClassVar[BestBy] = "mAP"

    lift: float = Field(default=0.1, ge=0)
    """alpha of the paper: the smallest weight of a label."""
    slope: float = Field(default=10.0, gt=0)
    """beta of the paper: how sharply weights rise around `middle`."""
    middle: float = Field(default=0.2, ge=0)
    """mu of the paper: the ratio of sampling frequencies at which a weight is half way."""
    negative_scale: float = Field(default=2.0, ge=1)
    """lambda of the paper: logits of absent labels times this, and their losses divided by it."""
    bias: float = Field(default=0.05, ge=0)
    """kappa of the paper: logits are lowered by this times minus the log-odds of the prevalence."""
    gamma: float = Field(default=2.0, ge=0)
    """Exponent that down-weights labels that are already right, as in the focal loss; 0 leaves it out."""


class Balanced:
    """Re-balanced weights and negative-tolerant logits (Wu et al., ECCV 2020, in its focal form).

    Sampling images for label l alone would draw an image with frequency 1/(L n_l), and for all of its labels with their sum:
    r_l, their ratio, corrects that, smoothed to lift + sigmoid(slope (r_l - middle)). The n_l are the prevalences times N,
    which cancels. Unknown labels of an image add nothing to the sum. An image with no known present label has r_l = inf, as
    in the authors' code, so the largest weight. nu_l is that of the paper; their code divides it by lambda once more.
    """

    def __init__(self, spec: BalancedSpec, start: Start) -> None:
        prevalence_L = prevalences(start, spec.name)
        self.spec, self.rarity_L = spec, PerLabel(1 / prevalence_L)
        self.nu_L = PerLabel(-spec.bias * log_odds(prevalence_L))

    def __call__(self, outputs: dict[str, Tensor], targets_BL: Tensor, known_BL: Tensor) -> Tensor:
        """Return the loss [B]."""
        scale_BL = targets_BL + (1 - targets_BL) * self.spec.negative_scale
        logits_BL = (outputs["logits"] - self.nu_L.like(outputs["logits"])) * scale_BL
        signed_BL = logits_BL * (2 * targets_BL - 1)
        focused_BL = -logsigmoid(signed_BL) * torch.exp(self.spec.gamma * logsigmoid(-signed_BL))
        return (self.weights(targets_BL, known_BL) / scale_BL * focused_BL * known_BL).sum(1)

    def weights(self, targets_BL: Tensor, known_BL: Tensor) -> Tensor:
        """Return the weight of each label in each image [B, L]."""
        rarity_L = self.rarity_L.like(targets_BL)
        ratio_BL = rarity_L / (targets_BL * known_BL * rarity_L).sum(1, keepdim=True)
        return self.spec.lift + torch.sigmoid(self.spec.slope * (ratio_BL - self.spec.middle))


LOSSES = {"balanced": Balanced}
