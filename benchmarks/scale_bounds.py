"""Closed forms for a training job on many nodes, to compare with scale_simulation.py.

Each bound is a line of algebra over a Scenario; all are for shards and images of equal size.
"""

from functools import cache
from itertools import islice

import numpy as np
from scale_network import Scenario
from scale_simulation import needed_shards

from rayprob.loader.order import Cursor
from rayprob.loader.prefetch import THREADS


def supplies(scenario: Scenario, hit_share: float) -> dict[str, float]:
    """Return the images/s of one GPU that each resource allows, if a share of the shards is in the cache."""
    missed_bytes = scenario.image_bytes * max(1 - hit_share, 1e-9)
    fetch_s = scenario.latency_s + scenario.shard_bytes / scenario.connection_bytes_s
    return {
        "GPU": scenario.gpu_images_s,
        "decoding": scenario.decode_images_s,
        "connections": THREADS * scenario.shard_bytes / fetch_s / missed_bytes,
        "node network": scenario.node_bytes_s / scenario.gpus_of_a_node / missed_bytes,
        "store": scenario.store_bytes_s / scenario.gpus / missed_bytes,
        "cache budget": _of_the_budget(scenario, missed_bytes),
    }


def binding(scenario: Scenario, hit_share: float) -> tuple[str, float]:
    """Return the resource that allows the least, and the images/s of one GPU that it allows."""
    found = supplies(scenario, hit_share)
    name = min(found, key=found.__getitem__)
    return name, found[name]


def is_exact(scenario: Scenario) -> bool:
    """Return whether the bound of a first epoch is reached: exactly one resource is scarce, independent of chance and order."""
    least, second = sorted(supplies(scenario, 0.0).values())[:2]
    name, _ = binding(scenario, 0.0)
    return name != "cache budget" and second > 1.2 * least and scenario.failure_share < 0.01


def data_wait(scenario: Scenario, hit_share: float) -> float:
    """Return the share of time in which a GPU waits: max(0, 1 - supply / speed)."""
    return max(0.0, 1 - binding(scenario, hit_share)[1] / scenario.gpu_images_s)


def first_batch_s(scenario: Scenario, cursor: Cursor | None = None) -> float:
    """Return the least time to the first batch on empty caches: its shards through the links of the fullest node, and decoding.

    Exact if the first micro batch needs all shards that are fetched before it is ready.
    """
    firsts = [set(next(needed_shards(scenario, rank, cursor or Cursor(0, 0)))) for rank in range(scenario.gpus)]
    per_node = scenario.gpus_per_node
    on_node = [set[str]().union(*firsts[first : first + per_node]) for first in range(0, scenario.gpus, per_node)]
    rate = min(
        scenario.node_bytes_s,
        scenario.store_bytes_s / scenario.nodes,
        max(map(len, on_node)) * scenario.connection_bytes_s,
    )
    decode_s = scenario.micro_batch * scenario.loader_workers / scenario.decode_images_s
    return scenario.latency_s + max(map(len, on_node)) * scenario.shard_bytes / rate + decode_s


def epoch_bytes_per_node(scenario: Scenario) -> float:
    """Return what a node's GPUs need in an epoch: its part of the shards, and those that the cuts between lanes make two need.

    For epochs of many steps; in one of few, much is left out with the last global batch.
    """
    cuts = scenario.gpus * scenario.lanes_per_gpu - 1
    return (scenario.num_shards + cuts) * scenario.shard_bytes / scenario.nodes


@cache
def counted_bytes_per_node(scenario: Scenario) -> float:
    """Return the same, counted in the loader's own order of an epoch: it takes seconds for 10^7 images."""
    counted = 0
    for rank in range(scenario.gpus):
        micro_batches = islice(needed_shards(scenario, rank, Cursor(0, 0)), scenario.batches_per_epoch)
        counted += len(set().union(*micro_batches))
    return counted * scenario.shard_bytes / scenario.nodes


def hit_share(nodes: int, cached_share: float, epochs: int, progress: float, grid: int = 200) -> float:
    """Return the share of needed shards in the cache, over the first `progress` of an epoch that others came before.

    Every epoch deals the shards again: a node needed a given shard last k epochs ago with chance (1/M)(1 - 1/M)^(k-1) for M
    nodes. Since then it has used a share u of that epoch, all of k - 1, and b of this one; the distinct shards among them are
    1 - (1 - u/M)(1 - 1/M)^(k-1)(1 - b/M) of all, and least-recently-used keeps the shard where they fit into the cache. The
    mean is over u in [0, 1] and b in [0, progress]. Exact for many shards and a cache much larger than the windows in use.
    """
    u_U = (np.arange(grid) + 0.5) / grid
    b_B = u_U * progress
    unused_UB = np.outer(1 - u_U / nodes, 1 - b_B / nodes)
    found = 0.0
    for k in range(1, epochs + 1):
        others = (1 - 1 / nodes) ** (k - 1)
        found += others / nodes * float((1 - unused_UB * others <= cached_share).mean())
    return found


def with_cuts(scenario: Scenario, hit_share: float) -> float:
    """Return the hit share where a shard that a cut divides between two lanes of a node is needed twice, and found once."""
    lanes = scenario.gpus * scenario.lanes_per_gpu
    inside = lanes - scenario.nodes
    return (hit_share * (scenario.num_shards + lanes - 1 - inside) + inside) / (scenario.num_shards + lanes - 1)


def _of_the_budget(scenario: Scenario, missed_bytes: float) -> float:
    """Return the most that a budget under two windows a lane allows: one is fetched, then used, then the next is fetched.

    It may be less: with all of the budget in use, loader workers read one sample at a time past the cache.
    """
    windows_bytes = scenario.gpus_of_a_node * scenario.lanes_per_gpu * scenario.window_shards * scenario.shard_bytes
    if scenario.cache_bytes >= 2 * windows_bytes:
        return float("inf")
    link = min(scenario.node_bytes_s / scenario.gpus_of_a_node, scenario.store_bytes_s / scenario.gpus) / missed_bytes
    return 1 / (1 / link + 1 / min(scenario.gpu_images_s, scenario.decode_images_s))
