"""The order of an epoch, checked as properties and against a plain loop."""

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayprob.loader.order import (
    EpochOrder,
    Place,
    divisors,
    evaluation_rows,
    rank_lanes,
    rank_shares,
)
from tests.loader.whole_epoch import all_batches, whole_epoch

shard_lengths = st.lists(st.integers(0, 30), min_size=1, max_size=12)
layouts = st.tuples(shard_lengths, st.integers(1, 8), st.integers(1, 4), st.integers(1, 5))


def order_of(lengths: list[int], lanes: int, per_lane: int, window: int, *, seed: int = 0, epoch: int = 0) -> np.ndarray:
    return all_batches(np.array(lengths), seed=seed, epoch=epoch, lanes=lanes, window=window, global_batch=lanes * per_lane)


@given(layouts, st.integers(0, 2**40), st.integers(0, 50))
@settings(max_examples=150, deadline=None)
def test_an_epoch_visits_every_sample_at_most_once_and_drops_less_than_a_batch(layout, seed: int, epoch: int) -> None:
    lengths, lanes, per_lane, window = layout
    if sum(lengths) < lanes * per_lane:
        with pytest.raises(AssertionError):
            order_of(lengths, lanes, per_lane, window)
        return
    rows_KG = order_of(lengths, lanes, per_lane, window, seed=seed, epoch=epoch)
    visited = np.unique(rows_KG)
    assert len(visited) == rows_KG.size > sum(lengths) - lanes * per_lane
    assert visited[0] >= 0
    assert visited[-1] < sum(lengths)
    assert (rows_KG == order_of(lengths, lanes, per_lane, window, seed=seed, epoch=epoch)).all()


@given(layouts)
@settings(max_examples=100, deadline=None)
def test_lanes_are_equal_runs_of_whole_shards_shuffled_within_windows(layout) -> None:
    lengths, lanes, per_lane, window = layout
    if sum(lengths) < lanes * per_lane:
        return
    rows_KG = order_of(lengths, lanes, per_lane, window)
    shard_N = np.repeat(np.arange(len(lengths)), lengths)
    ends, shards_in_two_lanes, seen = [], 0, set()
    for lane in range(lanes):
        shards = shard_N[rows_KG[:, lane * per_lane : (lane + 1) * per_lane].reshape(-1)]
        # A shard appears in one window only, so between its first and last sample at most `window` shards are mixed.
        for shard in set(shards):
            first, last = np.flatnonzero(shards == shard)[[0, -1]]
            assert len(set(shards[first : last + 1])) <= window
        shards_in_two_lanes += len(seen & set(shards))
        seen |= set(shards)
        ends.append(len(shards))
    assert len(set(ends)) == 1
    # Each of the lanes - 1 cuts splits at most one shard.
    assert shards_in_two_lanes <= max(0, lanes - 1)


def test_epochs_and_seeds_differ() -> None:
    orders = [order_of([40, 40, 40], 2, 5, 2, seed=seed, epoch=epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len({rows_KG.tobytes() for rows_KG in orders}) == 4


def test_the_order_is_the_same_on_every_machine() -> None:
    assert order_of([5, 3, 4], 2, 2, 1).tolist() == [[5, 6, 3, 4], [7, 0, 11, 10], [2, 1, 9, 8]]


def test_every_sample_reaches_every_place() -> None:
    seen = np.zeros((12, 12), dtype=int)
    for epoch in range(600):
        seen[np.arange(12), order_of([3, 3, 3, 3], 1, 3, 4, epoch=epoch).reshape(-1)] += 1
    assert seen.min() > 20
    assert seen.max() < 90


@given(layouts, st.integers(0, 2**40), st.integers(0, 50), st.data())
@settings(max_examples=150, deadline=None)
def test_any_rank_from_any_cursor_sees_what_the_whole_epoch_gives(layout, seed: int, epoch: int, data: st.DataObject) -> None:
    lengths, lanes, per_lane, window = layout
    if sum(lengths) < lanes * per_lane:
        return
    sizes = {"seed": seed, "epoch": epoch, "lanes": lanes, "window": window, "global_batch": lanes * per_lane}
    whole_KG = whole_epoch(np.array(lengths), **sizes)
    assert (all_batches(np.array(lengths), **sizes) == whole_KG).all()
    world_size = data.draw(st.sampled_from(divisors(lanes)))
    place = Place(data.draw(st.integers(0, world_size - 1)), world_size)
    first_batch = data.draw(st.integers(0, len(whole_KG)))
    found = list(EpochOrder(np.array(lengths), **sizes).batches(rank_lanes(place, lanes), first_batch))
    columns_by_lane = np.arange(lanes * per_lane).reshape(lanes, per_lane)
    wanted = whole_KG[first_batch:, columns_by_lane[place.rank :: world_size].reshape(-1)]
    assert len(found) == len(wanted)
    assert all((rows == row).all() for rows, row in zip(found, wanted, strict=True))


def test_an_epoch_of_many_windows_is_the_whole_epoch() -> None:
    lengths = np.random.default_rng(1).integers(0, 700, 400)
    sizes = {"seed": 3, "epoch": 1, "lanes": 24, "window": 3, "global_batch": 240}
    assert (all_batches(lengths, **sizes) == whole_epoch(lengths, **sizes)).all()


def test_what_a_rank_holds_grows_with_the_shards_and_a_window_not_with_the_samples() -> None:
    lengths_S = np.full(100_000, 1000)  # 10^8 samples: one int64 for each would be 763 MiB
    tracemalloc.start()
    order = EpochOrder(lengths_S, seed=0, epoch=0, lanes=64, window=8, global_batch=4096)
    batches = order.batches(rank_lanes(Place(3, 64), 64), first_batch=20_000)
    rows = np.concatenate(list(itertools.islice(batches, 300)))
    held_bytes, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(np.unique(rows)) == 300 * 64
    assert held_bytes < 40 * len(lengths_S)
    assert peak_bytes < 150 * len(lengths_S)


@given(st.sampled_from([1, 2, 4, 8, 16, 64]), st.data())
def test_ranks_share_out_the_lanes_for_every_world_size(lanes: int, data: st.DataObject) -> None:
    world_size = data.draw(st.sampled_from(divisors(lanes)))
    shares = [list(rank_lanes(Place(rank, world_size), lanes)) for rank in range(world_size)]
    assert sorted(itertools.chain(*shares)) == list(range(lanes))
    for rank, share in enumerate(shares):
        assert all(lane % world_size == rank for lane in share)


@given(st.sampled_from([1, 2, 4, 8]), st.integers(1, 3), st.data())
def test_any_smaller_number_of_ranks_takes_the_same_shares(shares: int, lanes_each: int, data: st.DataObject) -> None:
    lanes = shares * lanes_each
    of_share = {share: rank_lanes(Place(share, shares), lanes) for share in range(shares)}
    world_size = data.draw(st.integers(1, shares))
    places = [Place(rank, world_size) for rank in range(world_size)]
    assert sorted(itertools.chain(*(rank_shares(place, shares) for place in places))) == list(range(shares))
    for place in places:
        wanted = [lane for share in rank_shares(place, shares) for lane in of_share[share]]
        assert rank_lanes(place, lanes, shares) == wanted


@given(st.integers(0, 200), st.integers(1, 9))
def test_evaluation_visits_every_sample_once_in_contiguous_pieces(num_samples: int, world_size: int) -> None:
    pieces = [evaluation_rows(num_samples, Place(rank, world_size)) for rank in range(world_size)]
    assert np.concatenate(pieces).tolist() == list(range(num_samples))
    assert max(map(len, pieces)) - min(map(len, pieces)) <= 1
