"""Losses: outputs, targets_BL, known_BL -> loss_B, one value per sample, in float32 even under autocast.

Every loss is a sum over the known labels divided by the constant L, so an unknown label adds nothing, a sample's
loss does not depend on its batch, and the learning rate does not depend on the number of labels. Times L, `bce`
(without smoothing) and `mixture` (without its usage term) are the negative log-likelihood of the label set in nats.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

from torch import Tensor

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


class LossOf01(LossSpec):
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


LOSSES: PartTable[Callable[..., Tensor]] = PartTable("LOSSES", {})  # each module of this package adds its own
