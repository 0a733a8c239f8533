"""Optimizers with weight decay on matrices only, and learning-rate schedules as pure functions of the step."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from rayprob.models.classifier import Classifier
from rayprob.registry import choose
from rayprob.runs.spec import OptimizerSpec, ScheduleSpec


def lr_factor(spec: ScheduleSpec, step: int, total_steps: int) -> float:
    """Return the learning rate of step `step` (0 is the first) as a factor of the peak."""
    warmup_steps = 0.0 if spec.name == "exponential" else spec.warmup * total_steps
    if step < warmup_steps:
        rise = (step + 1) / (warmup_steps + 1)
        if spec.name == "one_cycle":
            rise = (1 - math.cos(math.pi * rise)) / 2
        return spec.start_factor + (1 - spec.start_factor) * rise
    progress = (step - warmup_steps) / max(1.0, total_steps - 1 - warmup_steps)
    return choose(SHAPES, spec.name, "schedule")(spec, min(1.0, progress), step / total_steps)


def _annealed(spec: ScheduleSpec, progress: float, share: float) -> float:
    return spec.end_factor + (1 - spec.end_factor) * (1 + math.cos(math.pi * progress)) / 2


def _stepped(spec: ScheduleSpec, progress: float, share: float) -> float:
    return spec.decay ** sum(share >= milestone for milestone in spec.milestones)


def _constant(spec: ScheduleSpec, progress: float, share: float) -> float:
    return 1.0


def _exponential(spec: ScheduleSpec, progress: float, share: float) -> float:
    return float(spec.start_factor ** (1 - progress))


def build_optimizer(classifier: Classifier, spec: OptimizerSpec, device: torch.device) -> torch.optim.Optimizer:
    """Return the optimizer over four groups: backbone and head, each its matrices and its vectors (no weight decay)."""
    fused = device.type == "cuda" if spec.fused == "auto" else spec.fused
    build = choose(OPTIMIZERS, spec.name, "optimizer")
    return build(parameter_groups(classifier, spec), spec, fused)


def parameter_groups(classifier: Classifier, spec: OptimizerSpec) -> list[dict[str, Any]]:
    """Return groups with `lr`, `peak_lr` and `weight_decay`; every trainable parameter stands in exactly one."""
    parts = ((classifier.backbone_parameters(), spec.backbone_lr_factor), (classifier.head_parameters(), 1.0))
    groups = []
    for parameters, factor in parts:
        trainable = [parameter for _, parameter in parameters if parameter.requires_grad]
        for is_matrix, weight_decay in ((True, spec.weight_decay), (False, 0.0)):
            members = [parameter for parameter in trainable if (parameter.ndim >= 2) == is_matrix]
            if members:
                peak_lr = spec.lr * factor
                groups.append({"params": members, "lr": peak_lr, "peak_lr": peak_lr, "weight_decay": weight_decay})
    return groups


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate to `factor` times its peak."""
    for group in optimizer.param_groups:
        group["lr"] = factor * group["peak_lr"]


def clip_gradients(parameters: list[nn.Parameter], clip_norm: float | None) -> torch.Tensor:
    """Scale all gradients down together so that their global norm is at most `clip_norm`; return whether that norm was finite.

    The answer stays on the device. A norm that overflows counts as not finite: clipping by it would make every gradient 0.
    """
    if clip_norm is not None:
        return torch.isfinite(nn.utils.clip_grad_norm_(parameters, clip_norm))
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return torch.isfinite(nn.utils.get_total_norm(gradients))


def _sgd(groups: list[dict[str, Any]], spec: OptimizerSpec, fused: bool) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=spec.lr, momentum=spec.momentum, nesterov=spec.momentum > 0, fused=fused)


def _adam(groups: list[dict[str, Any]], spec: OptimizerSpec, fused: bool) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups, lr=spec.lr, betas=spec.betas, fused=fused)


def _adamw(groups: list[dict[str, Any]], spec: OptimizerSpec, fused: bool) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=spec.lr, betas=spec.betas, fused=fused)


OPTIMIZERS: dict[str, Callable[[list[dict[str, Any]], OptimizerSpec, bool], torch.optim.Optimizer]] = {
    "sgd": _sgd,
    "adam": _adam,
    "adamw": _adamw,
}
SHAPES: dict[str, Callable[[ScheduleSpec, float, float], float]] = {
    "one_cycle": _annealed,
    "cosine": _annealed,
    "multi_step": _stepped,
    "constant": _constant,
    "exponential": _exponential,
}
