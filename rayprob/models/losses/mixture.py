"""The loss `mixture`: the negative log-likelihood of a mixture, with a guard against unused components."""

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from rayprob.models.losses.loss import LossOf01


class MixtureLossSpec(LossOf01):
    family: ClassVar[str] = "mixture"

    usage_weight: float = Field(default=0.01, ge=0)
    """Weight of the term that keeps all components in use."""


def mixture(spec: MixtureLossSpec, outputs: dict[str, Tensor], targets_BL: Tensor, known_BL: Tensor) -> Tensor:
    """Return -log sum_k pi_k prod_l Bernoulli(y_l; p_kl) (Li et al., ICML 2016), plus the guard against collapse.

    The guard is usage_weight * KL(uniform || pi), the symmetric Dirichlet prior on mixing weights up to a constant: it is 0
    for equal weights and grows without bound as a component dies, and unlike a batch's mean usage it depends on one sample.
    """
    log_mixing_BK = torch.log_softmax(outputs["mixing_logits"], dim=1)
    logits_BKL = outputs["component_logits"]
    targets_BKL, known_BKL = (part_BL.unsqueeze(1).expand_as(logits_BKL) for part_BL in (targets_BL, known_BL))
    nll_BK = binary_cross_entropy_with_logits(logits_BKL, targets_BKL, known_BKL, reduction="none").sum(2)
    # logsumexp: the product of 80 small factors underflows float32.
    nll_B = -torch.logsumexp(log_mixing_BK - nll_BK, dim=1)
    disuse_B = -log_mixing_BK.mean(dim=1) - math.log(log_mixing_BK.shape[1])
    return nll_B + spec.usage_weight * disuse_B


LOSSES = {"mixture": mixture}
