"""The simulation of many nodes against arithmetic: where a closed form is exact, the simulated job meets it."""

import random
from collections import OrderedDict
from dataclasses import replace

import pytest
import scale_bounds as bounds
from hypothesis import given
from hypothesis import strategies as st
from scale import cache_hits
from scale_network import Scenario, fair_share
from scale_simulation import Training

from rayprob.loader.order import Cursor

SMALL = Scenario(gpus=16, images=200_000, failure_share=0.0)
SCARCE = {
    "GPU": SMALL,
    "decoding": replace(SMALL, decode_images_s=600.0),
    "node network": replace(SMALL, node_bytes_s=0.5e9),
    "store": replace(SMALL, store_bytes_s=1e9),
}


@pytest.mark.parametrize("name", SCARCE)
def test_a_scarce_resource_gives_the_speed_that_arithmetic_says(name: str) -> None:
    scenario = SCARCE[name]
    assert bounds.is_exact(scenario)
    found, supply = bounds.binding(scenario, 0.0)
    assert found == name
    reached = Training(scenario).run(16, 32).reached_images_s / scenario.gpus
    assert reached == pytest.approx(supply, rel=0.03)
    assert 1 - reached / scenario.gpu_images_s == pytest.approx(bounds.data_wait(scenario, 0.0), abs=0.03)


@pytest.mark.parametrize("name", SCARCE)
def test_the_first_batch_comes_when_its_shards_have_passed_the_links(name: str) -> None:
    scenario = SCARCE[name]
    assert Training(scenario).run(0, 0).first_batch_s == pytest.approx(bounds.first_batch_s(scenario), rel=0.02)


def test_four_connections_a_rank_are_the_limit_where_each_is_slow() -> None:
    scenario = replace(SMALL, connection_bytes_s=10e6)
    name, supply = bounds.binding(scenario, 0.0)
    assert name == "connections"
    assert Training(scenario).run(16, 32).reached_images_s / scenario.gpus == pytest.approx(supply, rel=0.1)


@pytest.mark.parametrize(("gpus", "lanes_per_gpu"), [(1, 1), (16, 1), (24, 2)])
def test_what_a_node_needs_is_what_the_order_of_an_epoch_asks_for(gpus: int, lanes_per_gpu: int) -> None:
    scenario = replace(SMALL, gpus=gpus, lanes_per_gpu=lanes_per_gpu, images=500_000)
    counted = bounds.counted_bytes_per_node(scenario)
    assert counted == pytest.approx(bounds.epoch_bytes_per_node(scenario), rel=0.03)


def test_a_budget_of_one_window_a_lane_is_slower_than_fetching_and_using_in_turn() -> None:
    windows_bytes = SMALL.gpus_of_a_node * SMALL.window_shards * SMALL.shard_bytes
    scenario = replace(SMALL, cache_bytes=float(windows_bytes))
    name, supply = bounds.binding(scenario, 0.0)
    assert name == "cache budget"
    result = Training(scenario).run(16, 32)
    assert result.reached_images_s / scenario.gpus < supply
    assert all(len(cache) * scenario.shard_bytes <= scenario.cache_bytes for cache in result.caches)


def test_failed_requests_are_tried_again_until_there_are_too_many() -> None:
    some = replace(SMALL, failure_share=0.1)
    result = Training(some).run(4, 4)
    assert result.failures > 0
    assert result.first_batch_s > bounds.first_batch_s(some)
    with pytest.raises(RuntimeError, match="a shard failed 6 times: the run would end here"):
        Training(replace(SMALL, failure_share=1.0)).run(0, 0)


def test_a_cache_with_room_for_all_fetches_each_shard_once_a_node_over_epochs() -> None:
    scenario = replace(SMALL, images=65_536, cache_bytes=1e12)
    result = Training(scenario).run(0, 2 * scenario.batches_per_epoch)
    assert result.in_hand > 2 * scenario.num_shards
    assert len(set().union(*result.caches)) == scenario.num_shards
    assert result.fetched_bytes == sum(map(len, result.caches)) * scenario.shard_bytes


def test_a_replaced_node_waits_no_longer_than_a_first_start() -> None:
    before = Training(SMALL).run(16, 0)
    again = Training(SMALL, cursor=Cursor(0, 0), caches=[{}, before.caches[1]]).run(0, 0)
    assert 0 < again.first_batch_s <= before.first_batch_s * 1.001


@pytest.mark.parametrize(("nodes", "share"), [(1, 0.25), (1, 1.0), (2, 0.5)])
def test_the_cache_finds_what_the_closed_form_says(nodes: int, share: float) -> None:
    base = Scenario(gpus=8 * nodes, images=500_000, node_bytes_s=1e13, store_bytes_s=1e15, connection_bytes_s=1e12)
    scenario = replace(base, latency_s=1e-4, cache_bytes=share * base.num_shards * base.shard_bytes)
    found, expected = cache_hits(scenario, share)
    assert found == pytest.approx(expected, abs=0.08)


@pytest.mark.parametrize(("nodes", "share"), [(1, 0.3), (1, 0.7), (3, 0.2), (3, 0.6)])
def test_the_closed_form_of_hits_is_what_a_plain_cache_counts(nodes: int, share: float) -> None:
    epochs, items, chance = 4, 3000, random.Random(0)
    kept: OrderedDict[int, None] = OrderedDict()
    for _ in range(epochs + 1):
        found, needed = 0, chance.sample(range(items), items // nodes)
        for item in needed:
            found += item in kept
            kept[item] = None
            kept.move_to_end(item)
            if len(kept) > share * items:
                kept.popitem(last=False)
    assert found / len(needed) == pytest.approx(bounds.hit_share(nodes, share, epochs, 1.0), abs=0.03)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=8), st.floats(1, 300))
def test_a_fair_share_uses_up_the_total_and_gives_nobody_more_than_he_wants(wanted: list[float], total: float) -> None:
    most = fair_share(wanted, total)
    assert sum(min(rate, most) for rate in wanted) == pytest.approx(min(total, sum(wanted)))
