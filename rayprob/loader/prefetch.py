"""Fetches the shards of upcoming micro batches into the cache, and keeps them there until they are no longer needed."""

import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from rayprob.errors import RayprobError
from rayprob.loader.cache import ShardCache

log = logging.getLogger(__name__)

THREADS = 4
MAX_AHEAD = 4096  # micro batches
ADMITTED_AT_ONCE = 16  # micro batches per call: bounds the time that a step spends on planning


class PrefetchPlan:
    """Which shards to hold for the upcoming micro batches within a budget: the decisions of a Prefetcher, without its I/O."""

    def __init__(self, shards_ahead: Iterator[list[str]], size_bytes: Callable[[str], int], budget_bytes: int) -> None:
        """`shards_ahead` yields the shards of each upcoming micro batch, in order."""
        self._shards_ahead = shards_ahead
        self._size_bytes = size_bytes
        self._budget_bytes = budget_bytes
        self._admitted: deque[list[str]] = deque()
        self._next = next(shards_ahead, None)
        self._uses: Counter[str] = Counter()  # admitted micro batches that need a shard; its keys are the shards held
        self._held_bytes = 0

    def admit(self) -> list[str]:
        """Admit some of the upcoming micro batches; return the shards to hold for them, in the order they are needed."""
        wanted: list[str] = []
        for _ in range(ADMITTED_AT_ONCE):
            # The current micro batch is always admitted; check_budget ensures that its window fits.
            if self._next is None or len(self._admitted) >= MAX_AHEAD or (self._admitted and not self._fits(self._next)):
                break
            new = self._new(self._next)
            wanted += new
            self._held_bytes += sum(map(self._size_bytes, new))
            self._uses.update(self._next)
            self._admitted.append(self._next)
            self._next = next(self._shards_ahead, None)
        return wanted

    def past(self, shards: list[str]) -> list[str]:
        """Record that the first admitted micro batch, from these shards, is done; return the shards that no other one needs."""
        assert shards == self._admitted[0], "the prefetcher's order differs from the stream's"
        self._uses.subtract(self._admitted.popleft())
        done = [shard for shard in shards if not self._uses[shard]]
        for shard in done:
            del self._uses[shard]
            self._held_bytes -= self._size_bytes(shard)
        return done

    def _fits(self, shards: list[str]) -> bool:
        return self._held_bytes + sum(map(self._size_bytes, self._new(shards))) <= self._budget_bytes

    def _new(self, shards: list[str]) -> list[str]:
        return [shard for shard in shards if shard not in self._uses]


class Prefetcher:
    """Runs ahead of the stream within a share of the cache's budget, so loader workers find their shards. A ShardKeeper."""

    def __init__(self, cache: ShardCache, shards_ahead: Iterator[list[str]], budget_bytes: int) -> None:
        """`shards_ahead` yields the shards of each upcoming micro batch, in order."""
        self._cache = cache
        self._plan = PrefetchPlan(shards_ahead, lambda shard: cache.facts[shard].size_bytes, budget_bytes)
        self._held: dict[str, Future[int | None]] = {}
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="rayprob-fetch")
        self._admit()

    def decoded(self, shards: list[str], *, ends_pass: bool) -> None:
        """Release the shards that no upcoming micro batch needs, and admit more."""
        for shard in self._plan.past(shards):
            self._let_go(shard)
        self._admit()

    def close(self) -> None:
        """Stop fetching and release all shards; they stay in the cache for later runs."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for shard in list(self._held):
            self._let_go(shard)

    def _admit(self) -> None:
        for shard in self._plan.admit():
            self._held[shard] = self._threads.submit(self._hold, shard)

    def _hold(self, shard: str) -> int | None:
        try:
            return self._cache.open(shard)
        except RayprobError as error:
            log.info("prefetch: %s", error)  # the loader worker that needs the shard reports the error
            return None

    def _let_go(self, shard: str) -> None:
        future = self._held.pop(shard)
        if not future.cancel():
            future.add_done_callback(_close)


def _close(future: "Future[int | None]") -> None:
    descriptor = None if future.cancelled() else future.result()
    if descriptor is not None:
        os.close(descriptor)
