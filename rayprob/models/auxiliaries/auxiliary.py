"""Auxiliary terms: a second term next to any loss, with a module of its own that only training has. B samples, L labels.

In training mode the classifier adds the module's result to its outputs, as EMBEDDING, so that DDP and torch.compile see one
forward pass. Checkpoints contain the module; bundles and ONNX files do not.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor, nn

from rayprob.config.parts import PartSpec
from rayprob.errors import ModelError
from rayprob.models.losses import Loss
from rayprob.models.precision import at_least_float32, full_precision
from rayprob.registry import PartTable, choose

EMBEDDING = "auxiliary"  # both the name among the classifier's outputs and the prefix of the parameters


class AuxiliarySpec(PartSpec):
    """A term next to the loss and its options. `compares_samples`: it depends on which samples share a micro batch."""

    kind: ClassVar[str] = "auxiliary"
    compares_samples: ClassVar[bool] = False

    name: str = "contrastive"
    """contrastive, or one of a plugin."""
    weight: float = Field(default=0.1, gt=0)
    """Weight of the term; both the loss and the term are divided by the number of labels."""

    @classmethod
    def table(cls) -> Mapping[str, Callable[..., Any]]:
        return AUXILIARIES

    @property
    def why_features(self) -> str:
        """Why features must be trained, starting with the option that requires it; "" if the head alone may be."""
        return ""


class Auxiliary(nn.Module):
    """The module of an auxiliary term; created with (num_features, num_labels, spec)."""

    def forward(self, features: Tensor, outputs: dict[str, Tensor]) -> Tensor:
        """Return what `term` needs [B, ...], from features [B, F] or [B, F, P] and the head's outputs per image."""
        raise NotImplementedError

    def term(self, embedding: Tensor, targets_BL: Tensor, known_BL: Tensor) -> Tensor:
        """Return the term [B], over known labels only."""
        raise NotImplementedError


def build_auxiliary(spec: AuxiliarySpec, num_features: int, num_labels: int) -> Auxiliary:
    """Return the auxiliary that `spec` names, freshly initialised."""
    part: Callable[..., Auxiliary] = choose(AUXILIARIES, spec.name, "auxiliary", ModelError)
    return part(num_features, num_labels, spec)


def with_auxiliary(loss: Loss, auxiliary: Auxiliary | None, spec: AuxiliarySpec | None) -> Loss:
    """Return the loss plus the weighted term, of outputs that have EMBEDDING; without an auxiliary, the loss itself."""
    if auxiliary is None or spec is None:
        return loss

    def total(outputs: dict[str, Tensor], targets_BL: Tensor, known_BL: Tensor) -> Tensor:
        loss_B = loss(outputs, targets_BL, known_BL)
        with full_precision(loss_B):
            embedding = at_least_float32(outputs[EMBEDDING])
            term_B = auxiliary.term(embedding, targets_BL.to(embedding.dtype), known_BL.to(embedding.dtype))
        return loss_B + spec.weight * term_B / targets_BL.shape[1]

    return total


AUXILIARIES: PartTable[Callable[..., Any]] = PartTable("AUXILIARIES", {})  # each module of this package adds its own
