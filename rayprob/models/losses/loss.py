"""Losses: outputs, targets_BL, known_BL -> loss_B, one value per sample, in float32 even under autocast.

Every loss is over the known labels and divided by the constant L, so an unknown label adds nothing and the learning rate
does not depend on the number of labels. A sample's loss does not depend on its batch, unless the spec's `compares_samples`
is true. Times L, `bce` (without smoothing) and `mixture` (without its usage term) are the negative log-likelihood of the
label set in nats.

A loss is a function of (spec, outputs, targets_BL, known_BL). One that needs facts about the training labels is a class
instead: created once with (spec, start), it is called with (outputs, targets_BL, known_BL).
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, Literal

from torch import Tensor

from rayprob.config.parts import PartSpec
from rayprob.errors import ModelError
from rayprob.models.heads.head import Start
from rayprob.models.precision import at_least_float32, full_precision
from rayprob.probability.families import family_of
from rayprob.registry import PartTable, choose

Loss = Callable[[dict[str, Tensor], Tensor, Tensor], Tensor]
BestBy = Literal["mAP", "nll_nats"]


class LossSpec(PartSpec):
    """A loss and its options. `family` is the kind of distribution whose outputs it reads.

    `best_by` is what a refit with this loss chooses its best evaluation by: mAP if the outputs are not probabilities before
    they are calibrated. `compares_samples`: the loss depends on which samples share a micro batch.
    """

    kind: ClassVar[str] = "loss"
    family: ClassVar[str] = "bernoulli"
    best_by: ClassVar[BestBy] = "nll_nats"
    compares_samples: ClassVar[bool] = False

    name: str = "bce"
    """bce, or another loss of the table in docs/how-to/choose-a-loss.md, or one of a plugin."""

    @classmethod
    def table(cls) -> Mapping[str, Callable[..., Any]]:
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


def build_loss(spec: LossSpec, start: Start | None = None) -> Loss:
    """Return a function of (outputs, targets_BL, known_BL) that returns loss_B.

    `start` has the facts about the training labels that some losses need; a fresh head starts from the same. Raises ModelError
    if they are missing. The function raises ModelError for outputs of another family.
    """
    part = choose(LOSSES, spec.name, "loss", ModelError)
    create: Callable[..., Loss] = part  # mypy takes what isclass() has seen for a class without parameters
    term = create(spec, start or Start()) if inspect.isclass(part) else partial(part, spec)
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


LOSSES: PartTable[Callable[..., Any]] = PartTable("LOSSES", {})  # each module of this package adds its own
