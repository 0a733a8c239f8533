"""The loss `two_way`: labels ranked within an image, and images ranked within a label. B samples, L labels."""

from typing import ClassVar

from pydantic import Field
from torch import Tensor
from torch.nn.functional import softplus

from rayprob.models.losses.loss import BestBy, LossSpec
from rayprob.models.losses.soft_extremes import highest_absent, lowest_present


class TwoWaySpec(LossSpec):
    """It compares the images of a micro batch, so results depend on `placement.micro_batch` and on which images meet."""

    best_by: ClassVar[BestBy] = "mAP"
    compares_samples: ClassVar[bool] = True

    temperature: float = Field(default=4.0, gt=0)
    """Temperature of the present ones; that of the absent ones is 1."""
    by_label: float = Field(default=1.0, ge=0)
    """Weight of the comparison of the images of a micro batch within a label; 0 compares labels within an image only."""


def two_way(spec: TwoWaySpec, outputs: dict[str, Tensor], targets_BL: Tensor, known_BL: Tensor) -> Tensor:
    """Return softplus(log sum exp(z absent) + T log sum exp(-z present / T)), within each image plus the mean within labels.

    Kobayashi (CVPR 2023). Labels with no present image in the micro batch are left out of the mean, as in
    the authors' code, and so are those without an absent one. Every sample gets the same mean over labels, so a batch's mean
    loss is the sum of both means; images without a present label count as 0 in the first, where the authors leave them out.
    """
    logits_BL = outputs["logits"]
    within_images_B = _ranked(spec, logits_BL, targets_BL, known_BL, dim=1)
    if not spec.by_label:
        return within_images_B
    within_labels_L = _ranked(spec, logits_BL, targets_BL, known_BL, dim=0)
    counted_L = ((targets_BL * known_BL).sum(0) > 0) & (((1 - targets_BL) * known_BL).sum(0) > 0)
    return within_images_B + spec.by_label * (within_labels_L * counted_L).sum() / counted_L.sum().clamp(min=1)


def _ranked(spec: TwoWaySpec, logits_BL: Tensor, targets_BL: Tensor, known_BL: Tensor, dim: int) -> Tensor:
    present = lowest_present(logits_BL, targets_BL, known_BL, spec.temperature, dim)
    return softplus(highest_absent(logits_BL, targets_BL, known_BL, dim=dim) + present)


LOSSES = {"two_way": two_way}
