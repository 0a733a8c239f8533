"""Logistic regressions of many labels on the same features, solved together. N samples, F features, L labels.

Each label minimises its mean cross-entropy over the samples for which it is known, plus strength / 2 times the squared norm of
its weights; the bias is free. L-BFGS (Liu and Nocedal, 1989) with a memory, a step length and a stop for each label: labels
share nothing but the matrix products with the features, 4 N F L multiplications per iteration.
"""

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

MEMORY, MOST_ITERATIONS, MOST_HALVINGS = 10, 200, 20
SUFFICIENT = 1e-4  # the share of the linear decrease that a step must reach (Armijo)
TOLERANCE = 1e-5  # of the largest component of a gradient, for features of unit variance


@dataclass(frozen=True)
class Task:
    """Standardised features with a last column of ones [N, F + 1], and what each label has to fit.

    Signs are 1 for present and -1 for absent; weights are 1 / (samples for which the label is known), 0 where it is unknown.
    """

    inputs_NG: Tensor
    signs_NL: Tensor
    weights_NL: Tensor

    @classmethod
    def of(cls, inputs_NG: Tensor, targets_NL: Tensor, known_NL: Tensor) -> "Task":
        """Build the task; a label that is not known to be both present and absent has weights of 0, so it stays unchanged."""
        known_NL = known_NL & ((targets_NL & known_NL).any(0) & (~targets_NL & known_NL).any(0))
        weights_NL = known_NL.to(inputs_NG.dtype)
        return cls(inputs_NG, 2 * targets_NL.to(inputs_NG.dtype) - 1, weights_NL / weights_NL.sum(0).clamp(min=1))

    def losses(self, logits_NL: Tensor) -> Tensor:
        """Return the mean cross-entropy of each label [L]."""
        return (self.weights_NL * softplus(-self.signs_NL * logits_NL)).sum(0)

    def gradient(self, logits_NL: Tensor, weights_GL: Tensor, strength: float) -> Tensor:
        """Return the gradient of the penalised losses [F + 1, L]."""
        pull_NL = -self.weights_NL * self.signs_NL * torch.sigmoid(-self.signs_NL * logits_NL)
        return self.inputs_NG.T @ pull_NL + strength * _without_bias(weights_GL)


def solve(task: Task, start_GL: Tensor, strength: float) -> Tensor:
    """Return the weights [F + 1, L], the biases last, that minimise each label's penalised loss, starting from `start_GL`."""
    weights_GL, logits_NL = start_GL, task.inputs_NG @ start_GL
    gradient_GL = task.gradient(logits_NL, weights_GL, strength)
    memory: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=MEMORY)
    open_L = torch.ones(start_GL.shape[1], dtype=torch.bool, device=start_GL.device)
    for _ in range(MOST_ITERATIONS):
        open_L = open_L & (gradient_GL.abs().amax(0) > TOLERANCE)
        if not open_L.any():
            break
        direction_GL = -_inverse_hessian_times(gradient_GL, memory) * open_L
        change_NL = task.inputs_NG @ direction_GL
        step_L = _step_lengths(task, logits_NL, change_NL, weights_GL, direction_GL, gradient_GL, strength)
        open_L = open_L & (step_L > 0)
        weights_GL, logits_NL = weights_GL + step_L * direction_GL, logits_NL + step_L * change_NL
        before_GL, gradient_GL = gradient_GL, task.gradient(logits_NL, weights_GL, strength)
        memory.append(_pair(step_L * direction_GL, gradient_GL - before_GL))
    return weights_GL


def _without_bias(weights_GL: Tensor) -> Tensor:
    return torch.cat([weights_GL[:-1], torch.zeros_like(weights_GL[-1:])])


def _pair(moved_GL: Tensor, bent_GL: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return a step, the change of the gradient, and 1 / their product [L]: 0 for labels that did not move."""
    product_L = (moved_GL * bent_GL).sum(dim=0)
    return moved_GL, bent_GL, product_L.reciprocal().where(product_L > 0, 0)


def _inverse_hessian_times(gradient_GL: Tensor, memory: deque[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """Return the two-loop recursion of L-BFGS for each label; without a memory, a gradient of length at most 1."""
    if not memory:
        length_L: Tensor = torch.linalg.vector_norm(gradient_GL, dim=0)
        return gradient_GL * length_L.clamp(min=1).reciprocal()
    found_GL = gradient_GL
    shares: list[Tensor] = []
    for moved_GL, bent_GL, inverse_L in reversed(memory):
        share_L = inverse_L * (moved_GL * found_GL).sum(0)
        found_GL = found_GL - share_L * bent_GL
        shares.append(share_L)
    moved_GL, bent_GL, inverse_L = memory[-1]
    scale_L = (inverse_L * (bent_GL * bent_GL).sum(0)).reciprocal()
    found_GL = found_GL * scale_L.where(inverse_L > 0, 1)
    for (moved_GL, bent_GL, inverse_L), share_L in zip(memory, reversed(shares), strict=True):
        found_GL = found_GL + (share_L - inverse_L * (bent_GL * found_GL).sum(0)) * moved_GL
    return found_GL


def _step_lengths(
    task: Task,
    logits_NL: Tensor,
    change_NL: Tensor,
    weights_GL: Tensor,
    direction_GL: Tensor,
    gradient_GL: Tensor,
    strength: float,
) -> Tensor:
    """Return each label's step along its direction [L], halved from 1 until its loss falls enough; 0 if it never does."""
    plain_GL, along_GL = _without_bias(weights_GL), _without_bias(direction_GL)
    linear_L, square_L = (strength * (plain_GL * along_GL).sum(0), strength * (along_GL * along_GL).sum(0))
    slope_L, before_L = (gradient_GL * direction_GL).sum(0), task.losses(logits_NL)
    step_L = torch.ones_like(slope_L)
    for _ in range(MOST_HALVINGS):
        penalty_L = step_L * linear_L + step_L**2 * square_L / 2
        is_enough_L = task.losses(logits_NL + step_L * change_NL) + penalty_L <= before_L + SUFFICIENT * step_L * slope_L
        if is_enough_L.all():
            return step_L
        step_L = step_L.where(is_enough_L, step_L / 2)
    return step_L.where(is_enough_L, 0)
