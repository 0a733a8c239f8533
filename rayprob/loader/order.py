"""Which samples come when: pure functions of (manifest, seed, epoch, lanes, window), in numpy alone.

N samples in S shards, K global batches of G samples. A row is a sample's place in its manifest.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rayprob.arrays import Rows
from rayprob.seeds import derive


@dataclass(frozen=True, order=True)
class Cursor:
    """A position in an endless training stream: global batch `batch` of epoch `epoch`, both from 0."""

    epoch: int
    batch: int


@dataclass(frozen=True)
class Place:
    """The rank of this training process, the number of ranks, and how many of them share its node (and its shard cache)."""

    rank: int = 0
    world_size: int = 1
    local_world_size: int = 1

    def __post_init__(self) -> None:
        assert 0 <= self.rank < self.world_size, self


class EpochOrder:
    """The order of one epoch: a pure function of its arguments, computed window by window on demand.

    Shards are permuted and their samples concatenated and cut into `lanes` equal runs; within a lane samples are shuffled
    inside windows of `window` shards; global batch k takes G / lanes samples from each lane. A row occurs at most once, and
    fewer than G rows do not occur. It stores a few numbers per shard, and nothing per sample.
    """

    def __init__(
        self,
        samples_per_shard_S: Rows,
        *,
        seed: int,
        epoch: int,
        lanes: int,
        window: int,
        global_batch: int,
        first_rows_S: Rows | None = None,
    ) -> None:
        """`first_rows_S` is the first row of each shard; by default they lie one after the other.

        `global_batch` is a multiple of `lanes` and at most the number of samples; `batch_rules.py` checks that.
        """
        self.num_samples = int(samples_per_shard_S.sum())
        assert global_batch % lanes == 0 < global_batch <= self.num_samples, (self.num_samples, lanes, global_batch)
        self.num_batches, self.per_lane = self.num_samples // global_batch, global_batch // lanes
        self._seed = derive(seed, "order", epoch)
        # Raw 64-bit words are the only stream that numpy keeps stable between versions; its permutations may change.
        shards_S = np.argsort(np.random.PCG64(self._seed).random_raw(len(samples_per_shard_S)), kind="stable")
        lengths_S = samples_per_shard_S[shards_S]
        self._ends_S = np.cumsum(lengths_S)
        # A row is its position in the epoch plus the shift of its shard.
        if first_rows_S is None:
            first_rows_S = np.cumsum(samples_per_shard_S) - samples_per_shard_S
        self._shift_S = first_rows_S[shards_S] - (self._ends_S - lengths_S)
        self._windows_W, self._first_window = _windows(self._ends_S, lanes, window)

    def batches(self, lanes: Sequence[int], first_batch: int = 0) -> Iterator[Rows]:
        """Yield the rows of the given lanes in global batch `first_batch` and each later one, lane by lane."""
        runs = [self._run(lane, first_batch * self.per_lane) for lane in lanes]
        for _ in range(first_batch, self.num_batches):
            yield np.concatenate([next(run) for run in runs])

    def _run(self, lane: int, skipped: int) -> Iterator[Rows]:
        """Yield `per_lane` rows at a time of a lane, after the first `skipped`, with little more than one window in memory."""
        first = int(self._windows_W[self._first_window[lane]])
        window = int(np.searchsorted(self._windows_W, first + skipped, side="right")) - 1
        rows = self.window_rows(window)[first + skipped - int(self._windows_W[window]) :]
        while True:
            while len(rows) < self.per_lane:
                window += 1
                rows = np.concatenate([rows, self.window_rows(window)])
            yield rows[: self.per_lane]
            rows = rows[self.per_lane :]

    def window_rows(self, window: int) -> Rows:
        """Return the rows of a window in their shuffled order; windows are counted through all lanes."""
        first, end = int(self._windows_W[window]), int(self._windows_W[window + 1])
        words = np.random.PCG64(self._seed)
        words.advance(len(self._ends_S) + first)  # past the words of the shards and of all windows before
        places = first + self._shuffled(words.random_raw(end - first))
        return places + self._shift_S[np.searchsorted(self._ends_S, places, side="right")]

    def _shuffled(self, words_N: NDArray[np.uint64]) -> Rows:
        """Return the places 0..N-1 of a window in the order of the upper bits of their random words."""
        place_bits = max(self.num_samples - 1, 1).bit_length()
        # Earlier versions sorted a whole epoch, with the window number in the upper bits: fewer random bits, the same order.
        random_bits = 64 - place_bits - (len(self._windows_W) - 2).bit_length()
        # Random bits and position in one word: sorting it is 8 times faster than a lexsort, and no two words tie.
        keys_N = words_N >> np.uint64(64 - random_bits) << np.uint64(place_bits)
        keys_N |= np.arange(len(words_N), dtype=np.uint64)
        keys_N.sort()
        return (keys_N & np.uint64((1 << place_bits) - 1)).astype(np.int64)


def rank_shares(place: Place, shares: int) -> range:
    """Return which of the `shares` equal parts of a global batch a rank takes: r, r + world_size, ...

    Usually there are as many shares as ranks; with more, the same shares are divided among any smaller number of ranks.
    """
    assert place.world_size <= shares, (place, shares)
    return range(place.rank, shares, place.world_size)


def rank_lanes(place: Place, lanes: int, shares: int | None = None) -> list[int]:
    """Return the lanes of a rank, share by share: of share s, lanes s, s + shares, ... Without `shares`, each rank has one."""
    shares = shares or place.world_size
    assert lanes % shares == 0, (lanes, shares)
    return [lane for share in rank_shares(place, shares) for lane in range(share, lanes, shares)]


def evaluation_rows(num_samples: int, place: Place) -> NDArray[np.int64]:
    """Return the contiguous rows of a rank: over all ranks every row exactly once, without padding."""
    first, end = (num_samples * rank // place.world_size for rank in (place.rank, place.rank + 1))
    return np.arange(first, end, dtype=np.int64)


def divisors(number: int) -> list[int]:
    """Return the divisors of `number` in ascending order."""
    small = [candidate for candidate in range(1, math.isqrt(number) + 1) if number % candidate == 0]
    return small + [number // divisor for divisor in reversed(small) if divisor * divisor != number]


def _windows(ends_S: Rows, lanes: int, window: int) -> tuple[Rows, Rows]:
    """Return where each window starts, and then the number of samples [W + 1]; and the first window of each lane."""
    num_samples = int(ends_S[-1])
    starts = np.arange(lanes, dtype=np.int64) * num_samples // lanes
    pieces = np.unique(np.concatenate([starts, ends_S[ends_S < num_samples], np.zeros(1, dtype=np.int64)]))
    shards, lanes_of_pieces = (np.searchsorted(bounds, pieces, side="right") for bounds in (ends_S, starts))
    # Windows are counted from a lane's own first shard, so that each lane starts with a full window.
    within = (shards - shards[np.searchsorted(pieces, starts)][lanes_of_pieces - 1]) // window
    begins = (np.diff(within, prepend=-1) != 0) | (np.diff(lanes_of_pieces, prepend=0) != 0)
    windows_W = np.append(pieces[begins], num_samples)
    return windows_W, np.searchsorted(windows_W, starts)
