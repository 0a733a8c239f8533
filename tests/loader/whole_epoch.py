"""The order of an epoch worked out as a whole, in arrays with a number or two for every sample: the oracle of EpochOrder.

It was the loader's own before runs needed more samples than a rank can count in memory, and no run may notice the change.
"""

import numpy as np
from numpy.typing import NDArray

from rayprob.loader.order import EpochOrder
from rayprob.seeds import derive

Rows = NDArray[np.int64]


def all_batches(samples_per_shard_S: Rows, *, seed: int, epoch: int, lanes: int, window: int, global_batch: int) -> Rows:
    """Return the rows of every global batch of an EpochOrder [K, G], with the columns grouped by lane."""
    order = EpochOrder(samples_per_shard_S, seed=seed, epoch=epoch, lanes=lanes, window=window, global_batch=global_batch)
    return np.stack(list(order.batches(range(lanes))))


def whole_epoch(samples_per_shard_S: Rows, *, seed: int, epoch: int, lanes: int, window: int, global_batch: int) -> Rows:
    num_samples = int(samples_per_shard_S.sum())
    # Raw 64-bit words are the one stream that numpy promises to keep between versions; its permutations are not.
    words = np.random.PCG64(derive(seed, "order", epoch))
    shards_S = np.argsort(words.random_raw(len(samples_per_shard_S)), kind="stable")
    rows_N, position_N = _concatenate(samples_per_shard_S, shards_S)
    starts = np.arange(lanes, dtype=np.int64) * num_samples // lanes
    windows_N = _windows(position_N, starts, window)
    shuffled_N = rows_N[_shuffled_within(windows_N, words.random_raw(num_samples))]
    return _batches(shuffled_N, starts, global_batch // lanes, num_samples // global_batch)


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
