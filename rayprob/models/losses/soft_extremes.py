"""The hardest labels of an image, smoothly: what the log-sum-exp losses are made of. B samples, L labels."""

import torch
from torch import Tensor

NOTHING = -1e30  # a maximum over no labels: as good as -inf in a softplus, but with a gradient of 0 instead of nan


def highest_absent(logits_BL: Tensor, targets_BL: Tensor, known_BL: Tensor, temperature: float = 1.0, dim: int = 1) -> Tensor:
    """Return T log sum exp(z / T) over the known absent labels: their highest logit, smoothly; NOTHING if there are none."""
    return _soft_maximum(logits_BL, (1 - targets_BL) * known_BL, temperature, dim)


def lowest_present(logits_BL: Tensor, targets_BL: Tensor, known_BL: Tensor, temperature: float = 1.0, dim: int = 1) -> Tensor:
    """Return T log sum exp(-z / T) over the known present labels: minus their lowest logit; NOTHING if there are none."""
    return _soft_maximum(-logits_BL, targets_BL * known_BL, temperature, dim)


def _soft_maximum(scores_BL: Tensor, counts_BL: Tensor, temperature: float, dim: int) -> Tensor:
    kept_BL = (scores_BL / temperature).masked_fill(counts_BL == 0, NOTHING)
    return temperature * torch.logsumexp(kept_BL, dim)
