"""The loss `ramp`: hinges that stop growing, so that a wrong label in the data has a bounded pull. B samples, L labels."""

from typing import ClassVar

from pydantic import Field
from torch import Tensor, relu

from rayprob.models.losses.loss import BestBy, LossSpec
from rayprob.models.losses.ranking import rank_weight, violations


class RampSpec(LossSpec):
    """The defaults are the authors' for supervised training."""

    best_by: ClassVar[BestBy] = "mAP"

    flat_below: float = Field(default=-0.8, lt=1)
    """The margin below which the hinge flattens."""
    flatness: float = Field(default=0.9, ge=0, le=1)
    """How flat it gets: 1 for no gradient there, 0 for a plain hinge."""
    pairs: float = Field(default=0.2, ge=0)
    """Weight of the pairs of a present and an absent label, relative to single labels."""


def ramp(spec: RampSpec, outputs: dict[str, Tensor], targets_BL: Tensor, known_BL: Tensor) -> Tensor:
    """Return R(z) of present labels plus R(-z) of absent ones, plus `pairs` times R(z_j - z_k) weighted by rank.

    R(t) = max(0, 1 - t) - flatness max(0, flat_below - t) is the ramp; the pairs have the weights of WARP (Cevikalp et al.,
    CVPR Workshops 2019; the values of their published code), here from exact ranks, as the mean over a label's
    violators. A fresh head gives rare labels logits far below `flat_below`: with a flatness of 1 they would never be learned.
    Beyond its sign, a logit is not a probability: calibrate it.
    """
    logits_BL = outputs["logits"]
    signed_BL = logits_BL * (2 * targets_BL - 1)
    single_BL = relu(1 - signed_BL) - spec.flatness * relu(spec.flat_below - signed_BL)
    if not spec.pairs:
        return (single_BL * known_BL).sum(1)
    (count_BL, hinge_BL), (_, beyond_BL) = violations(logits_BL, (1 - targets_BL) * known_BL, (1.0, spec.flat_below))
    pairs_BL = rank_weight(count_BL).to(logits_BL.dtype) * (hinge_BL - spec.flatness * beyond_BL) * targets_BL
    return ((single_BL + spec.pairs * pairs_BL) * known_BL).sum(1)


LOSSES = {"ramp": ramp}
