"""Losses: outputs, targets_BL, known_BL -> loss_B, one value per sample, in float32 even under autocast.

Every loss is a sum over the known labels divided by the constant L, so an unknown label adds nothing, a sample's
loss does not depend on its batch, and the learning rate does not depend on the number of labels. Times L, `bce`
(without smoothing) and `mixture` (without its usage term) are the negative log-likelihood of the label set in nats.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from rayprob.config.parts import PartSpec
from rayprob.errors import ModelError
from rayprob.models.precision import at_least_float32, full_precision
from rayprob.probability.families import family_of
from rayprob.registry import PartTable, choose

Loss = Callable[[dict[str, Tensor], Tensor, Tensor], Tensor]


class LossSpec(PartSpec):
    """A loss and its options. `family` is the kind of distribution whose outputs it reads."""

    kind: ClassVar[str] = "loss"
    family: ClassVar[str] = "bernoulli"

    name: str = "bce"
    """bce, focal, asymmetric, mixture, or one of a plugin."""

    @classmethod
    def table(cls) -> Mapping[str, Callable[..., Tensor]]:
        return LOSSES


class _LossOf01(LossSpec):
    """A loss that rayprob 0.1 had, which wrote the options of all losses into every run file."""

    as_written: ClassVar[Mapping[str, Any]] = {
        "name": "",
        "label_smoothing": 0.0,
        "alpha": None,
        "gamma": 2.0,
        "gamma_pos": 0.0,
        "gamma_neg": 4.0,
        "clip": 0.05,
        "usage_weight": 0.01,
    }


class BceSpec(_LossOf01):
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Move targets by half of this towards each other."""


class FocalSpec(_LossOf01):
    alpha: float | None = Field(default=None, gt=0, lt=1)
    """Weight of positives; negatives weigh 1 - alpha. null weighs both by 1."""
    gamma: float = Field(default=2.0, ge=0)
    """Exponent that down-weights labels that are already right."""


class AsymmetricSpec(_LossOf01):
    gamma_pos: float = Field(default=0.0, ge=0)
    """Exponent for positives."""
    gamma_neg: float = Field(default=4.0, ge=0)
    """Exponent for negatives."""
    clip: float = Field(default=0.05, ge=0, lt=1)
    """Ignore negatives whose probability is below this."""


class MixtureLossSpec(_LossOf01):
    family: ClassVar[str] = "mixture"

    usage_weight: float = Field(default=0.01, ge=0)
    """Weight of the term that keeps all components in use."""


def build_loss(spec: LossSpec) -> Loss:
    """Return a function of (outputs, targets_BL, known_BL) that returns loss_B.

    It raises ModelError for outputs of another family.
    """
    term = partial(choose(LOSSES, spec.name, "loss", ModelError), spec)
    needed = family_of(spec.family).names

    def loss(outputs: dict[str, Tensor], targets_BL: Tensor, known_BL: Tensor) -> Tensor:
        missing = [name for name in needed if name not in outputs]
        if missing:
            raise ModelError(
                f"loss {spec.name} needs a head with {', '.join(needed)}; got {', '.join(outputs)}; "
                f"use head: {{name: {spec.family}}} or another loss"
            )
        with full_precision(outputs[needed[0]]):
            full = {name: at_least_float32(outputs[name]) for name in needed}
            kind = full[needed[0]].dtype
            return term(full, targets_BL.to(kind), known_BL.to(kind)) / targets_BL.shape[1]

    return loss


def bce(spec: BceSpec, outputs: dict[str, Tensor], targets_BL: Tensor, known_BL: Tensor) -> Tensor:
    """Return binary cross-entropy; smoothing e moves targets to 1 - e/2 and e/2."""
    smooth_BL = targets_BL * (1 - spec.label_smoothing) + spec.label_smoothing / 2
    return binary_cross_entropy_with_logits(outputs["logits"], smooth_BL, known_BL, reduction="none").sum(1)


def focal(spec: FocalSpec, outputs: dict[str, Tensor], targets_BL: Tensor, known_BL: Tensor) -> Tensor:
    """Return the focal loss -(1 - p_t)^gamma log p_t, weighted by alpha and 1 - alpha if given (Lin et al., ICCV 2017)."""
    signed_BL = outputs["logits"] * (2 * targets_BL - 1)
    # A power of sigmoid would have a nan gradient where sigmoid is 0 and gamma below 1.
    loss_BL = -logsigmoid(signed_BL) * torch.exp(spec.gamma * logsigmoid(-signed_BL))
    if spec.alpha is not None:
        loss_BL = loss_BL * (spec.alpha * targets_BL + (1 - spec.alpha) * (1 - targets_BL))
    return (loss_BL * known_BL).sum(1)


def asymmetric(spec: AsymmetricSpec, outputs: dict[str, Tensor], targets_BL: Tensor, known_BL: Tensor) -> Tensor:
    """Return the asymmetric loss, negatives shifted by `clip` (Ridnik et al., ICCV 2021, equations 4 to 7).

    No gradient flows through the focusing weights, as in the authors' training runs.
    """
    logits_BL = outputs["logits"]
    negative_BL = logsigmoid(-logits_BL)
    if spec.clip:
        negative_BL = (torch.sigmoid(-logits_BL) + spec.clip).clamp(max=1).log()
    with torch.no_grad():
        positive_weight_BL = torch.sigmoid(-logits_BL) ** spec.gamma_pos
        negative_weight_BL = (1 - negative_BL.exp()).clamp(min=0) ** spec.gamma_neg
    positive_BL = targets_BL * positive_weight_BL * logsigmoid(logits_BL)
    return -((positive_BL + (1 - targets_BL) * negative_weight_BL * negative_BL) * known_BL).sum(1)


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


LOSSES: PartTable[Callable[..., Tensor]] = PartTable(
    "LOSSES", {"bce": bce, "focal": focal, "asymmetric": asymmetric, "mixture": mixture}
)
