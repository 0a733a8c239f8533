"""Small trainings of heads, for tests of what a head can learn."""

import torch
from torch import Tensor

from rayprob.models.heads import HeadSpec, build_head
from rayprob.models.losses import LossSpec, build_loss


def loss_after_training(spec: HeadSpec, features: Tensor, targets_BL: Tensor, *, steps: int, lr: float) -> float:
    """Return the mean binary cross-entropy per label of a head trained with Adam on the whole of a toy dataset."""
    torch.manual_seed(0)
    head = build_head(spec, features.shape[1], targets_BL.shape[1])
    optimizer = torch.optim.Adam(head.parameters(), lr=lr)
    for _ in range(steps):
        loss = build_loss(LossSpec())(head(features), targets_BL, torch.ones_like(targets_BL)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def gradients_per_target(head: torch.nn.Module, features: Tensor, known_BL: Tensor) -> list[tuple[Tensor, ...]]:
    """Return the gradients of a head's parameters for two sets of targets, which differ in their unknown labels only."""
    found = []
    for targets_BL in (torch.zeros_like(known_BL), ~known_BL):
        loss = build_loss(LossSpec())(head(features), targets_BL, known_BL).sum()
        found.append(torch.autograd.grad(loss, list(head.parameters())))
    return found
