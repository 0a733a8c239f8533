"""A training job on many simulated nodes: the loader's own order, plans and evictions; simulated networks, disks and GPUs.

Real code: `EpochOrder` (which shard a rank needs when), `PrefetchPlan` (what it fetches ahead and releases), `make_room`
(what a node's cache evicts) and `pause_s` (waits between attempts). Simulated: fairly shared links, requests
with latency and random failures, loader workers that decode at a fixed speed, and GPUs that all wait for the slowest one.
Every image has the same size, so that the arithmetic of scale_bounds.py can be compared with the result.
"""

import itertools
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scale_network import Clock, Scenario, Store

from rayprob.loader.cache import Kept, make_room
from rayprob.loader.order import Cursor, EpochOrder, Place, rank_lanes
from rayprob.loader.prefetch import THREADS, PrefetchPlan

Then = Callable[[bool | None], None]


@lru_cache(maxsize=4)
def order_of(scenario: Scenario, epoch: int) -> EpochOrder:
    """Return the order of an epoch, which all ranks share here as it is the same for all."""
    return EpochOrder(
        np.full(scenario.num_shards, scenario.samples_per_shard, dtype=np.int64),
        seed=0,
        epoch=epoch,
        lanes=scenario.gpus * scenario.lanes_per_gpu,
        window=scenario.window_shards,
        global_batch=scenario.global_batch,
    )


def needed_shards(scenario: Scenario, rank: int, cursor: Cursor) -> Iterator[list[str]]:
    """Yield the shards of each micro batch of a rank from a cursor on, over epochs, in the order in which they are read."""
    lanes = rank_lanes(Place(rank, scenario.gpus), scenario.gpus * scenario.lanes_per_gpu)
    for epoch in itertools.count(cursor.epoch):
        for rows_B in order_of(scenario, epoch).batches(lanes, cursor.batch if epoch == cursor.epoch else 0):
            yield list(map(str, dict.fromkeys((rows_B // scenario.samples_per_shard).tolist())))


@dataclass
class Cached:
    """A shard on a node's disk, and how many hold it."""

    last_used_s: float
    holders: int = 0


class Node:
    """The shard cache of a node, as ShardCache keeps it."""

    def __init__(self, index: int, scenario: Scenario, clock: Clock, store: Store, cache: dict[str, Cached]) -> None:
        self._index, self._scenario, self._clock, self._store = index, scenario, clock, store
        self.cache = cache
        self._waiting: dict[str, list[Then]] = {}
        self.fetched_bytes = 0.0

    def open(self, shard: str, then: Then) -> None:
        """Hold a shard, fetching it if it is missing; `then` gets whether it was cached, or None if there is no space."""
        if shard in self.cache:
            self.cache[shard].holders += 1
            then(True)
        elif shard in self._waiting:
            self._waiting[shard].append(then)
        elif self._reserve():
            self._waiting[shard] = [then]
            self._store.fetch(self._index, self._scenario.shard_bytes, lambda: self._arrived(shard))
        else:
            then(None)

    def release(self, shard: str) -> None:
        """Hold a shard no longer."""
        self.cache[shard].holders -= 1

    def read_past(self, samples: float, then: Callable[[], None]) -> None:
        """Read samples from the store one after the other, if the cache has no space."""
        size_bytes = samples * self._scenario.image_bytes
        self.fetched_bytes += size_bytes
        self._clock.after(samples * self._scenario.latency_s, lambda: self._store.fetch(self._index, size_bytes, then))

    def _reserve(self) -> bool:
        size_bytes, budget_bytes = self._scenario.shard_bytes, self._scenario.cache_bytes
        used_bytes = (len(self.cache) + len(self._waiting)) * size_bytes
        if used_bytes + size_bytes <= budget_bytes:  # as make_room would find, for each of many thousand shards
            return True
        kept = [Kept(shard, size_bytes, cached.last_used_s) for shard, cached in self.cache.items()]
        kept += [Kept(shard, size_bytes, self._clock.now_s) for shard in self._waiting]
        return make_room(kept, int(budget_bytes) - size_bytes, self._evict)

    def _evict(self, shard: str) -> bool:
        if shard in self._waiting or self.cache[shard].holders:
            return False
        del self.cache[shard]
        return True

    def _arrived(self, shard: str) -> None:
        self.fetched_bytes += self._scenario.shard_bytes
        waiting = self._waiting.pop(shard)
        self.cache[shard] = Cached(self._clock.now_s, len(waiting))
        for place, then in enumerate(waiting):
            then(place > 0)


class Rank:
    """A training process with its prefetcher and loader workers."""

    def __init__(self, scenario: Scenario, clock: Clock, node: Node, needed: Iterator[list[str]]) -> None:
        self._scenario, self._clock, self._node = scenario, clock, node
        ahead, self._needed = itertools.tee(needed)
        budget_bytes = int(scenario.cache_bytes) // scenario.gpus_of_a_node
        self._plan = PrefetchPlan(map(sorted, ahead), lambda _: scenario.shard_bytes, budget_bytes)
        self._queue: deque[str] = deque()
        self._free_threads = THREADS
        self._held: dict[str, bool] = {}  # whether it is in hand yet
        self._unwanted: set[str] = set()  # released while it was fetched
        self._requests: dict[int, list[str]] = {}
        self._asked = self.taken = 0
        self._backlogs: list[deque[int]] = [deque() for _ in range(scenario.loader_workers)]
        self._is_reading = [False] * scenario.loader_workers
        self.decoded: set[int] = set()
        self.in_hand = 0  # shards so far

    def start(self) -> None:
        """Plan, and hand out the first micro batches."""
        self._admit()
        self._hand_out()

    def take(self) -> None:
        """Take the next micro batch, which is decoded."""
        self.decoded.remove(self.taken)
        for shard in self._plan.past(sorted(self._requests.pop(self.taken))):
            self._let_go(shard)
        self.taken += 1
        self._admit()
        self._hand_out()

    def _admit(self) -> None:
        for shard in self._plan.admit():
            self._queue.append(shard)
        self._fetch_ahead()

    def _fetch_ahead(self) -> None:
        while self._free_threads and self._queue:
            shard = self._queue.popleft()
            self._free_threads -= 1
            self._held[shard] = False
            self._node.open(shard, lambda found, shard=shard: self._in_hand(shard, found))  # type: ignore[misc]

    def _in_hand(self, shard: str, found: bool | None) -> None:
        self._free_threads += 1
        self.in_hand += 1
        if found is None:
            self._held.pop(shard, None)
        elif shard in self._unwanted:
            self._unwanted.remove(shard)
            self._node.release(shard)
        else:
            self._held[shard] = True
        self._fetch_ahead()

    def _let_go(self, shard: str) -> None:
        if shard in self._queue:
            self._queue.remove(shard)
        elif shard in self._held:
            if self._held.pop(shard):
                self._node.release(shard)
            else:
                self._unwanted.add(shard)

    def _hand_out(self) -> None:
        while self._asked < self.taken + self._scenario.loader_workers * self._scenario.prefetch:
            self._requests[self._asked] = next(self._needed)
            worker = self._asked % self._scenario.loader_workers
            self._backlogs[worker].append(self._asked)
            self._asked += 1
            self._work(worker)

    def _work(self, worker: int) -> None:
        if self._backlogs[worker] and not self._is_reading[worker]:
            self._is_reading[worker] = True
            batch = self._backlogs[worker].popleft()
            self._read(worker, batch, deque(self._requests[batch]))

    def _read(self, worker: int, batch: int, left: deque[str]) -> None:
        """Read the shards of a micro batch one after the other, as a loader worker meets them, then decode."""
        if not left:
            seconds = self._scenario.micro_batch * self._scenario.loader_workers / self._scenario.decode_images_s
            self._clock.after(seconds, lambda: self._finish(worker, batch))
            return
        shard = left.popleft()
        self._node.open(shard, lambda found: self._opened(worker, batch, left, shard, found))

    def _opened(self, worker: int, batch: int, left: deque[str], shard: str, found: bool | None) -> None:
        if found is None:
            samples = self._scenario.micro_batch / len(self._requests[batch])
            self._node.read_past(samples, lambda: self._read(worker, batch, left))
            return
        self._node.cache[shard].last_used_s = self._clock.now_s
        self._node.release(shard)
        self._read(worker, batch, left)

    def _finish(self, worker: int, batch: int) -> None:
        self._is_reading[worker] = False
        self.decoded.add(batch)
        self._work(worker)


@dataclass(frozen=True)
class Result:
    """What a simulated job did."""

    first_batch_s: float
    reached_images_s: float  # of all GPUs together, over whole windows after the first
    hit_share: float  # of the shards in hand so far, those that were not fetched for it
    in_hand: int  # shards
    fetched_bytes: float  # by all nodes
    failures: int
    caches: list[dict[str, Cached]]


class Training:
    """All ranks in step."""

    def __init__(
        self, scenario: Scenario, *, cursor: Cursor | None = None, caches: list[dict[str, Cached]] | None = None, seed: int = 0
    ) -> None:
        self._scenario, self._clock = scenario, Clock()
        self._store = Store(scenario, self._clock, random.Random(seed))
        caches = caches or [{} for _ in range(scenario.nodes)]
        self._nodes = [Node(n, scenario, self._clock, self._store, cache) for n, cache in enumerate(caches)]
        self._ranks = [
            Rank(
                scenario,
                self._clock,
                self._nodes[rank // scenario.gpus_per_node],
                needed_shards(scenario, rank, cursor or Cursor(0, 0)),
            )
            for rank in range(scenario.gpus)
        ]

    def run(self, warm_up_steps: int, steps: int) -> Result:
        """Train for some steps, and measure the speed of those after the warm-up."""
        for rank in self._ranks:
            rank.start()
        begun_at_s = [self._step() for _ in range(warm_up_steps + steps + 1)]
        elapsed_s = begun_at_s[-1] - begun_at_s[warm_up_steps]
        fetched_bytes = sum(node.fetched_bytes for node in self._nodes)
        in_hand = sum(rank.in_hand for rank in self._ranks)
        for node in self._nodes:
            for cached in node.cache.values():
                cached.holders = 0
        return Result(
            first_batch_s=begun_at_s[0],
            reached_images_s=steps * self._scenario.global_batch / elapsed_s if steps else 0.0,
            hit_share=max(0.0, 1 - fetched_bytes / (in_hand * self._scenario.shard_bytes)),
            in_hand=in_hand,
            fetched_bytes=fetched_bytes,
            failures=self._store.failures,
            caches=[node.cache for node in self._nodes],
        )

    def _step(self) -> float:
        """Wait until every rank has its micro batch, take it, and compute; return when the step began."""
        for rank in self._ranks:
            self._clock.run_until(lambda rank=rank: rank.taken in rank.decoded)  # type: ignore[misc]
        begun_at_s, is_over = self._clock.now_s, []
        self._clock.after(self._scenario.micro_batch / self._scenario.gpu_images_s, lambda: is_over.append(True))
        for rank in self._ranks:
            rank.take()
        self._clock.run_until(lambda: bool(is_over))
        return begun_at_s


def caches_after(scenario: Scenario, epochs: int) -> list[dict[str, Cached]]:
    """Return the contents of the nodes' caches after some epochs: the most recently used shards within the budget."""
    room = int(scenario.cache_bytes) // scenario.shard_bytes
    last_used: list[dict[str, float]] = [{} for _ in range(scenario.nodes)]
    for epoch in range(epochs):
        for rank in range(scenario.gpus):
            for place, shards in enumerate(needed_shards(scenario, rank, Cursor(epoch, 0))):
                if place == scenario.batches_per_epoch:
                    break
                last_used[rank // scenario.gpus_per_node].update(dict.fromkeys(shards, float(epoch * scenario.images + place)))
    newest = [sorted(used, key=used.__getitem__)[-room:] for used in last_used]
    # Before the beginning of the time of the job that finds them.
    return [{shard: Cached(used[shard] - 1e18) for shard in kept} for used, kept in zip(last_used, newest, strict=True)]
