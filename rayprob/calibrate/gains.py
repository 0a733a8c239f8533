"""What one way to choose label sets gains over another on a split, with an interval over its images. N samples, L labels."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from rayprob.arrays import Bools, Floats
from rayprob.probability.decisions.cuts import OBJECTIVES
from rayprob.runs.predictions import Predictions
from rayprob.seeds import derive

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Gain:
    """The difference of a metric, with its 95 % percentile interval when the images are drawn again (paired bootstrap)."""

    metric: str
    over: str
    value: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0

    def to_dict(self) -> dict[str, str | float]:
        """Return plain values, for JSON."""
        return asdict(self)


def set_values(sets_NL: Bools, truth: Predictions) -> dict[str, float]:
    """Return each objective's value of label sets."""
    return _values_of(_counted(sets_NL, truth), np.ones(len(truth), dtype=np.float32))


def gains(
    winner_NL: Bools, others: dict[str, Bools], truth: Predictions, *, metrics: tuple[str, ...], draws: int, seed: int
) -> tuple[Gain, ...]:
    """Return what a rule's sets gain over each other rule's in each metric; every draw weighs the images alike for all."""
    counted = {"": _counted(winner_NL, truth)} | {name: _counted(sets_NL, truth) for name, sets_NL in others.items()}
    drawn = {name: {metric: np.empty(draws) for metric in OBJECTIVES} for name in counted}
    for place, weight_N in enumerate(_weights(len(truth), draws, seed)):
        for name, tables in counted.items():
            for metric, value in _values_of(tables, weight_N).items():
                drawn[name][metric][place] = value
    whole = {name: _values_of(tables, np.ones(len(truth), dtype=np.float32)) for name, tables in counted.items()}
    return tuple(
        Gain(metric, name, whole[""][metric] - whole[name][metric], *_interval(drawn[""][metric] - drawn[name][metric]))
        for name in others
        for metric in metrics
    )


def _interval(differences: Floats) -> tuple[float, float]:
    low, high = np.quantile(differences, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _weights(num_samples: int, draws: int, seed: int) -> Iterator[NDArray[np.float32]]:
    rng = np.random.default_rng(derive(seed, "bootstrap"))
    for _ in range(draws):
        yield np.bincount(rng.integers(num_samples, size=num_samples), minlength=num_samples).astype(np.float32)


def _counted(sets_NL: Bools, truth: Predictions) -> NDArray[np.float32]:
    """Return which decisions are right, which are made, and which labels are there [N, 3 L]."""
    present_NL, made_NL = truth.targets_NL & truth.known_NL, sets_NL & truth.known_NL
    return np.concatenate([made_NL & present_NL, made_NL, present_NL], axis=1).astype(np.float32)


def _values_of(tables: NDArray[np.float32], weight_N: NDArray[np.float32]) -> dict[str, float]:
    sums = np.rint(weight_N @ tables).astype(np.int64)
    return {name: aim.value(*np.split(sums, 3)) for name, aim in OBJECTIVES.items()}
