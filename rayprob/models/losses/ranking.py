"""The loss `ranking`: in each image, present labels above absent ones. B samples, L labels."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad, softplus

from rayprob.models.losses.loss import BestBy, LossSpec
from rayprob.models.losses.soft_extremes import highest_absent, lowest_present


class RankingSpec(LossSpec):
    """A loss over the pairs of a present and an absent label of an image; a constant added to all its logits changes nothing.

    So logits have no common scale between images: choose label sets by rank or by thresholds, and calibrate probabilities.
    """

    best_by: ClassVar[BestBy] = "mAP"

    pairs: Literal["lsep", "warp"] = "lsep"
    """How pairs are joined: log-sum-exp of their differences (lsep), or hinges weighted by rank (warp)."""


def ranking(spec: RankingSpec, outputs: dict[str, Tensor], targets_BL: Tensor, known_BL: Tensor) -> Tensor:
    """Return the loss of the pairs of known labels; 0 for an image without a known present and a known absent label.

    `lsep` is log(1 + sum over pairs of exp(z_absent - z_present)) (Li, Song and Luo, CVPR 2017): over all pairs, as
    the double sum factors, so without the paper's sampling. `warp` is below.
    """
    logits_BL = outputs["logits"]
    if spec.pairs == "warp":
        return warp(logits_BL, targets_BL, known_BL)
    return softplus(highest_absent(logits_BL, targets_BL, known_BL) + lowest_present(logits_BL, targets_BL, known_BL))


def warp(logits_BL: Tensor, targets_BL: Tensor, known_BL: Tensor) -> Tensor:
    """Return sum over present labels j of (1 + 1/2 + ... + 1/r_j) times the mean of 1 - z_j + z_k over the violators k.

    Violators are the r_j absent labels with z_k > z_j - 1. This is WARP (Gong et al., ICLR 2014, section 2.2.3; Weston et al.,
    IJCAI 2011). They sample absent labels until one violates, and estimate r_j by how long that took; this is the exact rank
    and the expectation over the violators, in O(L log L) per image. No gradient flows through the ranks.
    """
    ((count_BL, excess_BL),) = violations(logits_BL, (1 - targets_BL) * known_BL, margins=(1.0,))
    return (rank_weight(count_BL).to(logits_BL.dtype) * excess_BL * targets_BL * known_BL).sum(1)


def violations(logits_BL: Tensor, absent_BL: Tensor, margins: Sequence[float]) -> list[tuple[Tensor, Tensor]]:
    """Return for each margin: of each label j, the number of absent labels k with z_k > z_j - margin, and their excess.

    The excess is the sum of margin - z_j + z_k over them.
    """
    # Ascending in -z, and absent labels first: so violators are a prefix, whose sums one pass gives.
    lowered_BL = (-logits_BL).masked_fill(absent_BL == 0, torch.inf).sort(dim=1).values
    sums_BL = pad(-lowered_BL.masked_fill(lowered_BL == torch.inf, 0).cumsum(dim=1), (1, 0))
    counts = [torch.searchsorted(lowered_BL.detach(), margin - logits_BL.detach()) for margin in margins]
    return [
        (count_BL, count_BL * (margin - logits_BL) + sums_BL.gather(1, count_BL))
        for margin, count_BL in zip(margins, counts, strict=True)
    ]


def rank_weight(count_BL: Tensor) -> Tensor:
    """Return (1 + 1/2 + ... + 1/r) / r for each count r; 0 for 0."""
    ranks = torch.arange(1, count_BL.shape[1] + 1, device=count_BL.device, dtype=torch.float64)
    weights = pad(torch.cumsum(1 / ranks, dim=0) / ranks, (1, 0))
    return weights[count_BL]


LOSSES = {"ranking": ranking}
