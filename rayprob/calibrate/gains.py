"""The gain of one rule for label sets over another on a split, with an interval over its images. N samples, L labels."""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from rayprob.arrays import Bools
from rayprob.metrics.bootstrap import Interval, Resampled, drawn_counts
from rayprob.probability.decisions.cuts import OBJECTIVES
from rayprob.runs.predictions import Predictions


@dataclass(frozen=True, kw_only=True)
class Gain(Interval):
    """The difference of a metric, with its 95 % percentile interval when the images are drawn again (paired bootstrap)."""

    metric: str
    over: str


def set_values(sets_NL: Bools, truth: Predictions) -> dict[str, float]:
    """Return each objective's value of label sets."""
    return _values_of(_counted(sets_NL, truth), np.ones(len(truth), dtype=np.float32))


def gains(
    winner_NL: Bools, others: dict[str, Bools], truth: Predictions, *, metrics: tuple[str, ...], draws: int, seed: int
) -> tuple[Gain, ...]:
    """Return the gain of a rule's sets over those of each other rule, per metric; all rules share the same draws of images."""
    counted = {"": _counted(winner_NL, truth)} | {name: _counted(sets_NL, truth) for name, sets_NL in others.items()}
    whole = np.ones(len(truth), dtype=np.float32)
    weights = [row_N for block_DN in drawn_counts(len(truth), draws=draws, seed=seed) for row_N in block_DN.astype(np.float32)]
    drawn = {name: [_values_of(tables, weight_N) for weight_N in weights] for name, tables in counted.items()}

    def resampled(name: str, metric: str) -> Resampled:
        values_D = np.array([values[metric] for values in drawn[name]])
        return Resampled(_values_of(counted[name], whole)[metric], values_D, (len(truth), seed))

    return tuple(
        Gain(metric=metric, over=name, **asdict((resampled("", metric) - resampled(name, metric)).interval()))
        for name in others
        for metric in metrics
    )


def _counted(sets_NL: Bools, truth: Predictions) -> NDArray[np.float32]:
    """Return true positives, predicted labels and present labels, side by side [N, 3 L]."""
    present_NL, made_NL = truth.targets_NL & truth.known_NL, sets_NL & truth.known_NL
    return np.concatenate([made_NL & present_NL, made_NL, present_NL], axis=1).astype(np.float32)


def _values_of(tables: NDArray[np.float32], weight_N: NDArray[np.float32]) -> dict[str, float]:
    sums = np.rint(weight_N @ tables).astype(np.int64)
    return {name: aim.value(*np.split(sums, 3)) for name, aim in OBJECTIVES.items()}
