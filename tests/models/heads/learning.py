"""Small trainings of heads, and their gradients, for tests of what a head learns and from what."""

import torch
from torch import Tensor

from rayprob.models.heads import Head, HeadSpec, build_head
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


def away_from_start(head: Head) -> Head:
    """Return the head in float64 with noise on every parameter, because a start at zero would hide what follows."""
    generator = torch.Generator().manual_seed(4)
    for parameter in head.double().parameters():
        parameter.data += 0.4 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return head


def has_exact_gradients(head: Head, features: Tensor) -> bool:
    """Compare the gradients of the logits, for features and all parameters, with finite differences."""
    names = [name for name, _ in head.named_parameters()]

    def logits_BL(inputs: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(head, dict(zip(names, parameters, strict=True)), (inputs,))["logits"]

    return torch.autograd.gradcheck(logits_BL, (features.double().requires_grad_(), *head.parameters()))


def gradients_per_target(head: Head, features: Tensor, known_BL: Tensor) -> list[tuple[Tensor, ...]]:
    """Return the gradients of a head's parameters for two sets of targets, which differ in their unknown labels only."""
    found = []
    for targets_BL in (torch.zeros_like(known_BL), ~known_BL):
        loss = build_loss(LossSpec())(head(features), targets_BL, known_BL).sum()
        found.append(torch.autograd.grad(loss, list(head.parameters())))
    return found
