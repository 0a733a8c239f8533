"""Intervals over images: a metric on images resampled with replacement. N images, D draws.

A draw is a row of counts_DN with the sum N: how often each image is drawn. A statistic maps rows of counts to values [D];
`drawn.py` builds statistics from metrics. Equal seeds draw equal images, so the difference of two statistics of the same
images is paired, as a comparison of models needs (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayprob.arrays import Floats
from rayprob.errors import MetricError
from rayprob.seeds import derive

DrawnCounts = NDArray[np.int32]
Statistic = Callable[[DrawnCounts], NDArray[Any]]

DRAWS, CONFIDENCE = 1000, 0.95
COUNTS_AT_ONCE = 2**21  # counts [D, N] in memory at a time: 8 MiB


@dataclass(frozen=True)
class Interval:
    """The value on all images, and its bootstrap interval."""

    value: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, eq=False)
class Resampled:
    """A statistic on all images and on each draw: value, drawn_D; `drawn_from` is the number of images and the seed."""

    value: float
    drawn_D: Floats
    drawn_from: tuple[int, int]

    def interval(self, confidence: float = CONFIDENCE) -> Interval:
        """Return the percentile interval. Draws in which the statistic is undefined (nan) are left out.

        Images drawn twice raise ECE, and mAP if labels have few positives, so the intervals of these values are too high;
        those of differences are hardly affected.
        """
        defined_D = self.drawn_D[~np.isnan(self.drawn_D)]
        if not len(defined_D):
            return Interval(self.value, float("nan"), float("nan"))
        low, high = np.quantile(defined_D, [(1 - confidence) / 2, (1 + confidence) / 2])
        return Interval(self.value, float(low), float(high))

    def __sub__(self, other: "Resampled") -> "Resampled":
        """Return the paired difference, draw by draw. Raises MetricError if the draws differ."""
        if (self.drawn_from, len(self.drawn_D)) != (other.drawn_from, len(other.drawn_D)):
            raise MetricError(
                f"a paired difference needs the same draws; found {len(self.drawn_D)} draws of (images, seed) "
                f"{self.drawn_from} and {len(other.drawn_D)} of {other.drawn_from}; call bootstrap with equal settings"
            )
        return Resampled(self.value - other.value, self.drawn_D - other.drawn_D, self.drawn_from)


def bootstrap(statistic: Statistic, num_samples: int, *, draws: int = DRAWS, seed: int = 0) -> Resampled:
    """Return a statistic on all images and on `draws` draws. Raises MetricError without images or draws."""
    return bootstrap_each(lambda counts_DN: statistic(counts_DN)[:, None], num_samples, draws=draws, seed=seed)[0]


def bootstrap_each(
    statistics: Callable[[DrawnCounts], NDArray[Any]], num_samples: int, *, draws: int = DRAWS, seed: int = 0
) -> list[Resampled]:
    """Return the M statistics that a function computes together, [D, M] from counts_DN, all on the same draws."""
    whole_M = statistics(np.ones((1, num_samples), dtype=np.int32))[0]
    blocks = [statistics(counts_DN) for counts_DN in drawn_counts(num_samples, draws=draws, seed=seed)]
    drawn_MD = np.concatenate(blocks).astype(np.float64).T
    return [Resampled(float(value), drawn_D, (num_samples, seed)) for value, drawn_D in zip(whole_M, drawn_MD, strict=True)]


def drawn_counts(num_samples: int, *, draws: int = DRAWS, seed: int = 0) -> Iterator[DrawnCounts]:
    """Yield how often each image is drawn, in blocks [D, N] of draws; the draws do not depend on the block size."""
    if num_samples < 1 or draws < 1:
        raise MetricError(f"a bootstrap needs at least 1 image and 1 draw; found {num_samples} and {draws}")
    random = np.random.default_rng(derive(seed, "bootstrap"))
    step = max(1, COUNTS_AT_ONCE // num_samples)
    for start in range(0, draws, step):
        rows = [random.integers(num_samples, size=num_samples) for _ in range(min(step, draws - start))]
        yield np.stack([np.bincount(row, minlength=num_samples) for row in rows]).astype(np.int32)
