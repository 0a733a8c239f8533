"""The table of systems: means over seeds, intervals over images and seeds, and which differences are more than chance.

R seeds, D draws, M differences. Draw d resamples the images, the same for all systems and seeds, and of each system R of its
seeds with replacement: an interval covers both. Differences are from the first system.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rayprob.arrays import Floats
from rayprob.metrics.bootstrap import CONFIDENCE, Interval, Resampled
from rayprob.metrics.multiple import adjusted_p_values
from rayprob.seeds import derive
from rayprob.systems.work import WITH_PRIOR, Numbers, TrainedSystem

LOWER_IS_BETTER = ("NLL", "ECE")


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
        return {**asdict(self), "tried": dict(self.tried), "cells": {name: asdict(cell) for name, cell in self.cells.items()}}


def better(name: str, cell: SystemNumber) -> bool:
    """Return whether a cell differs for the better from the first system's."""
    assert cell.difference is not None
    return (cell.difference.value > 0) != (name.removesuffix(WITH_PRIOR) in LOWER_IS_BETTER)


def cells_of(judged: Mapping[str, Sequence[Numbers]], *, num_images: int, seed: int) -> dict[str, dict[str, SystemNumber]]:
    """Return the cells of each system by name; `judged` has one entry per seed, and the first system is compared with."""
    names = list(dict.fromkeys(name for runs in judged.values() for name in runs[0]))
    cells: dict[str, dict[str, SystemNumber]] = {system: {} for system in judged}
    for name in names:
        pooled = {
            system: _pooled(system, [run[name] for run in runs], (num_images, seed))
            for system, runs in judged.items()
            if name in runs[0]
        }
        reference = next(iter(judged))
        compared = [system for system in pooled if system != reference] if reference in pooled else []
        differences = {system: pooled[system] - pooled[reference] for system in compared}
        for system, p_value in zip(compared, _p_values(list(differences.values())), strict=True):
            runs = [run[name]["value"] for run in judged[system]]
            cells[system][name] = _cell(pooled[system], runs, differences[system].interval(), p_value)
        for system in pooled.keys() - differences.keys():
            cells[system][name] = _cell(pooled[system], [run[name]["value"] for run in judged[system]], None, None)
    return cells


def chosen_lr(trained: Sequence[TrainedSystem]) -> float:
    """Return the learning rate with the best mAP on holdout; the lowest if several tie."""
    return max(sorted(trained, key=lambda one: one.lr), key=lambda one: one.holdout_mAP).lr


def _pooled(system: str, runs: Sequence[Mapping[str, Any]], drawn_from: tuple[int, int]) -> Resampled:
    """Return the mean over seeds; each draw takes as many seeds as there are, with replacement."""
    draws_RD = np.array([run["draws"] for run in runs], dtype=np.float64)
    number, num_draws = draws_RD.shape
    chosen_RD = np.random.default_rng(derive(drawn_from[1], "seeds", system)).integers(number, size=(number, num_draws))
    drawn_D = np.take_along_axis(draws_RD, chosen_RD, axis=0).mean(axis=0)
    return Resampled(float(np.mean([run["value"] for run in runs])), drawn_D, drawn_from)


def _p_values(differences: Sequence[Resampled]) -> Floats:
    if not differences:
        return np.empty(0)
    drawn_DM = np.stack([one.drawn_D for one in differences], axis=1)
    return adjusted_p_values(np.array([one.value for one in differences]), drawn_DM)


def _cell(pooled: Resampled, by_seed: Sequence[float], difference: Interval | None, p_value: float | None) -> SystemNumber:
    found = pooled.interval()
    p_value = None if p_value is None else float(p_value)
    return SystemNumber(found.value, found.low, found.high, tuple(by_seed), difference, p_value)
