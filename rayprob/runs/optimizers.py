"""Optimizers by name: parameter groups and options -> a torch optimizer."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat

from rayprob.config.parts import PartSpec
from rayprob.registry import PartTable

Beta = Annotated[float, Field(ge=0, lt=1)]
Groups = list[dict[str, Any]]


class OptimizerSpec(PartSpec):
    """An optimizer; `lr` is the peak learning rate of the head, the backbone's is `backbone_lr_factor` times it."""

    kind: ClassVar[str] = "optimizer"

    name: str = "adamw"
    """sgd, adam, adamw, or one of a plugin."""
    lr: PositiveFloat = 1e-4
    """Peak learning rate of the head."""
    backbone_lr_factor: NonNegativeFloat = 1.0
    """The backbone's peak learning rate, as a factor of lr."""
    weight_decay: NonNegativeFloat = 1e-4
    """Weight decay, on matrices only."""
    clip_norm: PositiveFloat | None = None
    """Clip the norm of the gradient to this; null does not clip."""
    fused: bool | Literal["auto"] = "auto"
    """Use PyTorch's fused kernels; auto does on GPUs."""

    @classmethod
    def table(cls) -> "Mapping[str, Callable[..., torch.optim.Optimizer]]":
        return OPTIMIZERS


class TorchOptimizerSpec(OptimizerSpec):
    """PyTorch's own, each of which leaves the options of the others aside."""

    as_written: ClassVar[Mapping[str, Any]] = dict.fromkeys(
        ("name", "lr", "backbone_lr_factor", "weight_decay", "momentum", "betas", "clip_norm", "fused")
    )

    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of sgd, with Nesterov's correction where it is above 0."""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """Decay rates of the moments, for adam and adamw."""


def _sgd(groups: Groups, spec: TorchOptimizerSpec, fused: bool) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=spec.lr, momentum=spec.momentum, nesterov=spec.momentum > 0, fused=fused)


def _adam(groups: Groups, spec: TorchOptimizerSpec, fused: bool) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups, lr=spec.lr, betas=spec.betas, fused=fused)


def _adamw(groups: Groups, spec: TorchOptimizerSpec, fused: bool) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=spec.lr, betas=spec.betas, fused=fused)


OPTIMIZERS: PartTable[Callable[..., torch.optim.Optimizer]] = PartTable(
    "OPTIMIZERS", {"sgd": _sgd, "adam": _adam, "adamw": _adamw}
)
