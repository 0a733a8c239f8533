"""The table of systems: means over seeds, intervals over images and seeds, and which differences are more than chance.

R seeds, D draws of images. The variance of a mean over seeds is that over the draws of images, which are the same for all
systems and seeds, plus s^2 / R for the variance s^2 between seeds. Few seeds give a poor estimate of s^2, so intervals are
Student's, with the degrees of freedom of Welch and Satterthwaite (Biometrics Bulletin 2, 1946), and not percentiles: three
seeds drawn with replacement would find differences among equal systems. P-values are adjusted for all systems by Holm's
procedure (1979), separately for each number. With one seed, intervals cover images only.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from rayprob.arrays import Floats
from rayprob.metrics.bootstrap import CONFIDENCE, Interval
from rayprob.systems.work import WITH_PRIOR, Numbers, TrainedSystem

LOWER_IS_BETTER = ("NLL", "ECE")
MOST = {"NLL": math.inf}  # of a number that may exceed 1; none is negative


@dataclass(frozen=True)
class SystemNumber:
    """A number of a system: its mean over seeds with an interval, and its difference from the first system's.

    `p_value` is adjusted for all systems; it and the difference are None for the first system.
    """

    value: float
    low: float
    high: float
    by_seed: tuple[float, ...]
    difference: Interval | None = None
    p_value: float | None = None

    @property
    def is_clear(self) -> bool:
        """Whether the difference is more than chance."""
        return self.p_value is not None and self.p_value <= 1 - CONFIDENCE


@dataclass(frozen=True)
class SystemRow:
    """A system in the table; `lr` is the learning rate that holdout chose, `tried` its mAP there for each."""

    name: str
    file: str
    description: str
    lr: float
    tried: Mapping[str, float]
    parameters: int
    images_per_s: float
    pretrained: str
    cells: Mapping[str, SystemNumber]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            **asdict(self),
            "tried": {lr: value if math.isfinite(value) else None for lr, value in self.tried.items()},
            "cells": {name: asdict(cell) for name, cell in self.cells.items()},
        }


def better(name: str, cell: SystemNumber) -> bool:
    """Return whether a cell differs for the better from the first system's."""
    assert cell.difference is not None
    return (cell.difference.value > 0) != (name.removesuffix(WITH_PRIOR) in LOWER_IS_BETTER)


def cells_of(judged: Mapping[str, Sequence[Numbers]]) -> dict[str, dict[str, SystemNumber]]:
    """Return the numbers of each system by name; `judged` has one entry per seed, and the first system is compared with."""
    names = list(dict.fromkeys(name for runs in judged.values() for name in runs[0]))
    cells: dict[str, dict[str, SystemNumber]] = {system: {} for system in judged}
    for name in names:
        pooled = {system: Pooled.of([run[name] for run in runs]) for system, runs in judged.items() if name in runs[0]}
        first = pooled.get(next(iter(judged)))
        others = [system for system in pooled if first is not None and pooled[system] is not first]
        differences = {system: pooled[system] - first for system in others if first is not None}
        p_values = dict(zip(others, holm([differences[system].p_value for system in others]), strict=True))
        for system, one in pooled.items():
            found, difference = one.interval(), differences.get(system)
            cells[system][name] = SystemNumber(
                found.value,
                max(found.low, 0.0),
                min(found.high, MOST.get(name.removesuffix(WITH_PRIOR), 1.0)),
                one.by_seed,
                difference.interval() if difference else None,
                p_values.get(system),
            )
    return cells


@dataclass(frozen=True, eq=False)
class Pooled:
    """A mean over seeds, or a difference of two: its draws of images, and the variances over seeds of its parts."""

    value: float
    drawn_D: Floats
    by_seed: tuple[float, ...]
    seed_variances: tuple[tuple[float, int], ...]  # of the mean of each part, with its degrees of freedom

    @classmethod
    def of(cls, runs: Sequence[Mapping[str, Any]]) -> "Pooled":
        """Pool the runs of a system with different seeds."""
        values_R = np.array([run["value"] for run in runs], dtype=np.float64)
        drawn_D = np.asarray(np.array([run["draws"] for run in runs], dtype=np.float64).mean(axis=0))
        number = len(values_R)
        variances = ((float(values_R.var(ddof=1)) / number, number - 1),) if number > 1 else ()
        return cls(float(values_R.mean()), drawn_D, tuple(values_R.tolist()), variances)

    def __sub__(self, other: "Pooled") -> "Pooled":
        """Return the difference: paired over images, independent over seeds."""
        variances = self.seed_variances + other.seed_variances
        return Pooled(self.value - other.value, self.drawn_D - other.drawn_D, (), variances)

    def interval(self) -> Interval:
        """Return the value with its interval."""
        error, freedom = self._error
        half = error * float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom))
        return Interval(self.value, self.value - half, self.value + half)

    @property
    def p_value(self) -> float:
        """The two-sided p-value of a difference from 0; 1 for a difference without any variance."""
        error, freedom = self._error
        return 2 * float(stats.t.sf(abs(self.value) / error, freedom)) if error else 1.0

    @property
    def _error(self) -> tuple[float, float]:
        """The standard error and its degrees of freedom."""
        parts = [(float(np.nanvar(self.drawn_D)), len(self.drawn_D) - 1), *self.seed_variances]
        total = sum(variance for variance, _ in parts)
        uncertainty = sum(variance**2 / freedom for variance, freedom in parts if variance)
        return total**0.5, total**2 / uncertainty if uncertainty else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number, in the same order (Holm, Scandinavian Journal of Statistics 6, 1979)."""
    adjusted, largest = [1.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def chosen_lr(trained: Sequence[TrainedSystem]) -> float:
    """Return the learning rate with the best mAP on holdout; the lowest if several tie."""
    return max(sorted(trained, key=lambda one: one.lr), key=lambda one: one.holdout_mAP).lr
