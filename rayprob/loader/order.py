"""Which samples come when: pure functions of (manifest, seed, epoch, lanes, window), in numpy alone.

N samples in S shards, K global batches of G samples. A row is a sample's place in its manifest.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rayprob.errors import SpecError
from rayprob.seeds import derive

Rows = NDArray[np.int64]


@dataclass(frozen=True, order=True)
class Cursor:
    """A position in an endless training stream: global batch `batch` of epoch `epoch`, both from 0."""

    epoch: int
    batch: int


@dataclass(frozen=True)
class Place:
    """Which training process this is, of how many, and how many of them share its node (and so its shard cache)."""

    rank: int = 0
    world_size: int = 1
    local_world_size: int = 1

    def __post_init__(self) -> None:
        assert 0 <= self.rank < self.world_size, self


def epoch_order(
    samples_per_shard_S: Rows, *, seed: int, epoch: int, lanes: int, window: int, global_batch: int
) -> NDArray[np.int64]:
    """Return the rows of every global batch of an epoch [K, G], with the columns grouped by lane.

    Shards are permuted and their samples concatenated and cut into `lanes` equal runs; within a lane samples are shuffled
    inside windows of `window` shards; global batch k takes G / lanes samples from each lane. A row occurs at most once, and
    fewer than G rows do not occur. Raises SpecError where G is no multiple of `lanes` or the split is smaller than G.
    """
    num_samples = int(samples_per_shard_S.sum())
    check_global_batch(num_samples, lanes=lanes, global_batch=global_batch)
    # Raw 64-bit words are the one stream that numpy promises to keep between versions; its permutations are not.
    words = np.random.PCG64(derive(seed, "order", epoch))
    shards_S = np.argsort(words.random_raw(len(samples_per_shard_S)), kind="stable")
    rows_N, position_N = _concatenate(samples_per_shard_S, shards_S)
    starts = np.arange(lanes, dtype=np.int64) * num_samples // lanes
    windows_N = _windows(position_N, starts, window)
    shuffled_N = rows_N[_shuffled_within(windows_N, words.random_raw(num_samples))]
    return _batches(shuffled_N, starts, global_batch // lanes, num_samples // global_batch)


def rank_columns(place: Place, lanes: int, global_batch: int) -> NDArray[np.int64]:
    """Return the columns of a global batch that belong to a rank: those of lanes r, r + world_size, ... in that order.

    Raises SpecError where world_size does not divide `lanes`.
    """
    check_world_size(place.world_size, lanes)
    columns_by_lane = np.arange(global_batch, dtype=np.int64).reshape(lanes, -1)
    return columns_by_lane[place.rank :: place.world_size].reshape(-1)


def evaluation_rows(num_samples: int, place: Place) -> NDArray[np.int64]:
    """Return the contiguous rows of a rank: over all ranks every row exactly once, without padding."""
    first, end = (num_samples * rank // place.world_size for rank in (place.rank, place.rank + 1))
    return np.arange(first, end, dtype=np.int64)


def micro_batches_per_step(global_batch: int, micro_batch: int, world_size: int) -> int:
    """Return how many micro batches a rank takes for a step. Raises SpecError with the nearest micro batch that fits."""
    per_rank, rest = divmod(global_batch, world_size)
    if rest:
        raise SpecError(
            f"world_size {world_size} does not divide global_batch {global_batch}; allowed: {_listed(divisors(global_batch))}"
        )
    if per_rank % micro_batch:
        nearest = _nearest(micro_batch, divisors(per_rank))
        raise SpecError(
            f"micro_batch {micro_batch} x {world_size} ranks does not divide global_batch {global_batch}; "
            f"nearest that does: {nearest}"
        )
    return per_rank // micro_batch


def check_world_size(world_size: int, lanes: int) -> None:
    """Raise SpecError unless `world_size` divides `lanes`."""
    if lanes % world_size:
        raise SpecError(f"world_size {world_size} does not divide lanes {lanes}; allowed: {_listed(divisors(lanes))}")


def check_global_batch(num_samples: int, *, lanes: int, global_batch: int) -> None:
    """Raise SpecError unless `global_batch` is a multiple of `lanes` and at most `num_samples`."""
    if global_batch % lanes:
        nearest = max(lanes, (global_batch + lanes // 2) // lanes * lanes)
        raise SpecError(f"global_batch {global_batch} is not a multiple of lanes {lanes}; nearest that is: {nearest}")
    if num_samples < global_batch:
        largest = num_samples // lanes * lanes
        remedy = f"use at most {largest}" if largest else f"use fewer than {lanes} lanes as well"
        raise SpecError(f"the split has {num_samples} samples, fewer than one global_batch of {global_batch}; {remedy}")


def divisors(number: int) -> list[int]:
    """Return the divisors of `number` in ascending order."""
    return [candidate for candidate in range(1, number + 1) if number % candidate == 0]


def _concatenate(samples_per_shard_S: Rows, shards_S: Rows) -> tuple[Rows, Rows]:
    """Return the rows of the shards in the order `shards_S` [N], and the place in that order of each row's shard [N]."""
    first_row_S = np.cumsum(samples_per_shard_S) - samples_per_shard_S
    lengths_S = samples_per_shard_S[shards_S]
    offset_S = first_row_S[shards_S] - (np.cumsum(lengths_S) - lengths_S)
    rows_N = np.arange(lengths_S.sum(), dtype=np.int64) + np.repeat(offset_S, lengths_S)
    return rows_N, np.repeat(np.arange(len(shards_S), dtype=np.int64), lengths_S)


def _windows(position_N: Rows, starts: Rows, window: int) -> Rows:
    """Return the number of each sample's (lane, window of shards): 0, 0, ..., 1, 1, ... along the lanes."""
    lengths = np.diff(starts, append=len(position_N))
    # Windows are counted from a lane's own first shard, so that each lane starts with a full window.
    within_N = (position_N - np.repeat(position_N[starts], lengths)) // window
    begins_N = np.diff(within_N, prepend=0) != 0
    begins_N[starts[1:]] = True
    return np.cumsum(begins_N)


def _shuffled_within(windows_N: Rows, words_N: NDArray[np.uint64]) -> Rows:
    """Return the places 0..N-1 shuffled by random words within each window."""
    num_samples = len(windows_N)
    place_bits, window_bits = max(num_samples - 1, 1).bit_length(), int(windows_N[-1]).bit_length()
    # Window, random bits and place in one word: sorting it is 8 times faster than a lexsort, and no two words tie.
    keys_N = words_N >> np.uint64(window_bits + place_bits) << np.uint64(place_bits)
    keys_N |= np.arange(num_samples, dtype=np.uint64)
    keys_N |= windows_N.astype(np.uint64) << np.uint64(64 - window_bits) if window_bits else np.uint64(0)
    keys_N.sort()
    return (keys_N & np.uint64((1 << place_bits) - 1)).astype(np.int64)


def _batches(shuffled_N: Rows, starts: Rows, per_lane: int, num_batches: int) -> Rows:
    """Return [K, G]: batch k takes the k-th `per_lane` samples of each lane."""
    by_lane = shuffled_N[starts[:, None] + np.arange(num_batches * per_lane)]
    return np.ascontiguousarray(by_lane.reshape(len(starts), num_batches, per_lane).swapaxes(0, 1)).reshape(num_batches, -1)


def _nearest(wanted: int, allowed: Iterable[int]) -> int:
    return min(allowed, key=lambda candidate: (abs(candidate - wanted), -candidate))


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
