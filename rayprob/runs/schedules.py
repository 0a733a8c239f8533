"""Learning-rate schedules by name, as pure functions of the step."""

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import ClassVar, Self

from pydantic import Field, model_validator

from rayprob.config.parts import PartSpec
from rayprob.registry import PartTable, choose


class ScheduleSpec(PartSpec):
    """How the learning rate moves over the run, as a factor of its peak."""

    kind: ClassVar[str] = "schedule"

    name: str = "one_cycle"
    """one_cycle, cosine, multi_step, constant, exponential, or one of a plugin."""

    @classmethod
    def table(cls) -> "Mapping[str, Callable[..., float]]":
        return SCHEDULES


class ShapeSpec(ScheduleSpec):
    """A warm-up and what follows it.

    `one_cycle` rises by half a cosine from `start_factor` during `warmup` (a share of the run) and anneals by half a
    cosine to `end_factor` (Smith and Topin, 2018, without the momentum cycle); `cosine` rises in a straight line;
    `multi_step` multiplies by `decay` at each of `milestones` (shares of the run); `constant` stays after its warm-up.
    `exponential` has no warm-up: each step multiplies by the same factor, from `start_factor` at the first to 1 at the last,
    as a learning-rate range test does.
    """

    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of the run in which the learning rate rises."""
    start_factor: float = Field(default=0.04, gt=0, le=1)
    """Where the rise starts, as a factor of the peak."""
    end_factor: float = Field(default=1e-4, ge=0, le=1)
    """Where one_cycle and cosine end, as a factor of the peak."""
    milestones: tuple[float, ...] = (0.6, 0.85)
    """Shares of the run at which multi_step drops."""
    decay: float = Field(default=0.1, gt=0, lt=1)
    """Factor of each drop."""

    @model_validator(mode="after")
    def _milestones_ascend(self) -> Self:
        inside = all(0 < milestone < 1 for milestone in self.milestones)
        if not inside or any(left >= right for left, right in pairwise(self.milestones)):
            raise ValueError(f"milestones are shares of the run: ascending, between 0 and 1; found {self.milestones}")
        return self


def lr_factor(spec: ScheduleSpec, step: int, total_steps: int) -> float:
    """Return the learning rate of step `step` (0 is the first) as a factor of the peak."""
    return choose(SCHEDULES, spec.name, "schedule")(spec, step, total_steps)


def _one_cycle(spec: ShapeSpec, step: int, total_steps: int) -> float:
    rising = _warm_up(spec, step, total_steps, lambda share: (1 - math.cos(math.pi * share)) / 2)
    return _annealed(spec, step, total_steps) if rising is None else rising


def _cosine(spec: ShapeSpec, step: int, total_steps: int) -> float:
    rising = _warm_up(spec, step, total_steps)
    return _annealed(spec, step, total_steps) if rising is None else rising


def _multi_step(spec: ShapeSpec, step: int, total_steps: int) -> float:
    rising = _warm_up(spec, step, total_steps)
    passed = sum(step / total_steps >= milestone for milestone in spec.milestones)
    return spec.decay**passed if rising is None else rising


def _constant(spec: ShapeSpec, step: int, total_steps: int) -> float:
    rising = _warm_up(spec, step, total_steps)
    return 1.0 if rising is None else rising


def _exponential(spec: ShapeSpec, step: int, total_steps: int) -> float:
    return float(spec.start_factor ** (1 - _progress(0.0, step, total_steps)))


def _warm_up(
    spec: ShapeSpec, step: int, total_steps: int, curve: Callable[[float], float] = lambda share: share
) -> float | None:
    """Return the factor during the warm-up, which rises along `curve`; None after it."""
    warmup_steps = spec.warmup * total_steps
    if step >= warmup_steps:
        return None
    return spec.start_factor + (1 - spec.start_factor) * curve((step + 1) / (warmup_steps + 1))


def _annealed(spec: ShapeSpec, step: int, total_steps: int) -> float:
    progress = _progress(spec.warmup * total_steps, step, total_steps)
    return spec.end_factor + (1 - spec.end_factor) * (1 + math.cos(math.pi * progress)) / 2


def _progress(warmup_steps: float, step: int, total_steps: int) -> float:
    """Return how far the steps after the warm-up have come, from 0 to 1."""
    return min(1.0, (step - warmup_steps) / max(1.0, total_steps - 1 - warmup_steps))


SCHEDULES: PartTable[Callable[..., float]] = PartTable(
    "SCHEDULES",
    {
        "one_cycle": _one_cycle,
        "cosine": _cosine,
        "multi_step": _multi_step,
        "constant": _constant,
        "exponential": _exponential,
    },
)
