"""The optimizer of a classifier: weight decay on matrices only, another learning rate for the backbone, clipped gradients."""

from typing import Any

import torch
from torch import nn

from rayprob.models.classifier import Classifier
from rayprob.registry import choose
from rayprob.runs.optimizers import OPTIMIZERS, OptimizerSpec


def build_optimizer(classifier: Classifier, spec: OptimizerSpec, device: torch.device) -> torch.optim.Optimizer:
    """Return the optimizer over four groups: matrices and vectors (without weight decay) of backbone and head."""
    fused = device.type == "cuda" if spec.fused == "auto" else spec.fused
    build = choose(OPTIMIZERS, spec.name, "optimizer")
    return build(parameter_groups(classifier, spec), spec, fused)


def parameter_groups(classifier: Classifier, spec: OptimizerSpec) -> list[dict[str, Any]]:
    """Return groups with `lr`, `peak_lr` and `weight_decay`; every trainable parameter is in exactly one."""
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

    The result stays on the device. A norm that overflows counts as not finite: clipping by it would make every gradient 0.
    """
    if clip_norm is not None:
        return torch.isfinite(nn.utils.clip_grad_norm_(parameters, clip_norm))
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return torch.isfinite(nn.utils.get_total_norm(gradients))
