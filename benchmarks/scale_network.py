"""A simulated cluster and its object store: sizes, time, and fairly shared links."""

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from rayprob.loader.cache import pause_s


@dataclass(frozen=True)
class Scenario:
    """A dataset, a cluster and a job. Rates are bytes or images per second."""

    gpus: int
    images: int
    image_bytes: int = 155 * 1024  # the mean of COCO's JPEGs
    samples_per_shard: int = 512
    gpus_per_node: int = 8
    gpu_images_s: float = 1000.0
    decode_images_s: float = 2400.0  # of a GPU's loader workers
    loader_workers: int = 8
    prefetch: int = 2
    micro_batch: int = 128
    lanes_per_gpu: int = 1
    window_shards: int = 4
    node_bytes_s: float = 3.125e9  # 25 Gbit/s
    store_bytes_s: float = 100e9
    connection_bytes_s: float = 90e6
    latency_s: float = 0.05
    failure_share: float = 0.001
    retries: int = 5
    cache_bytes: float = 21e9  # of a node

    @property
    def nodes(self) -> int:
        """Nodes of the job; the last may have fewer GPUs."""
        return -(-self.gpus // self.gpus_per_node)

    @property
    def gpus_of_a_node(self) -> int:
        """GPUs of a full node."""
        return min(self.gpus, self.gpus_per_node)

    @property
    def shard_bytes(self) -> int:
        """Bytes of a shard."""
        return self.samples_per_shard * self.image_bytes

    @property
    def num_shards(self) -> int:
        """Shards of the dataset."""
        return self.images // self.samples_per_shard

    @property
    def global_batch(self) -> int:
        """Images per step."""
        return self.gpus * self.micro_batch

    @property
    def steps_per_window(self) -> int:
        """Steps in which a lane uses up a window of shards."""
        return self.window_shards * self.samples_per_shard * self.lanes_per_gpu // self.micro_batch

    @property
    def batches_per_epoch(self) -> int:
        """Steps of an epoch."""
        return self.num_shards * self.samples_per_shard // self.global_batch


class Clock:
    """A queue of future events."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._coming: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()

    def after(self, delay_s: float, do: Callable[[], None]) -> None:
        """Do something later."""
        heapq.heappush(self._coming, (self.now_s + delay_s, next(self._count), do))

    def run_until(self, is_over: Callable[[], bool]) -> None:
        """Let time pass."""
        while not is_over():
            self.now_s, _, do = heapq.heappop(self._coming)
            do()


@dataclass
class Link:
    """The transfers of a node, which share its rate equally. `served_bytes` is what each has received since the beginning."""

    transfers: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    served_bytes: float = 0.0
    rate: float = 0.0
    since_s: float = 0.0
    version: int = 0


class Store:
    """An object store: links of the nodes, a rate in total that is shared max-min fairly, latency, and failures by chance."""

    def __init__(self, scenario: Scenario, clock: Clock, chance: random.Random) -> None:
        self._scenario, self._clock, self._chance = scenario, clock, chance
        self._links = [Link() for _ in range(scenario.nodes)]
        self._is_crowded = False
        self._count = itertools.count()
        self.failures = 0

    def fetch(self, node: int, size_bytes: float, then: Callable[[], None], attempt: int = 0) -> None:
        """Transfer bytes to a node after the latency; if the request fails, retry as the loader does."""
        is_failure = self._chance.random() < self._scenario.failure_share
        if not is_failure:
            self._clock.after(self._scenario.latency_s, lambda: self._begin(node, size_bytes, then))
            return
        self.failures += 1
        if attempt == self._scenario.retries:
            raise RuntimeError(f"a shard failed {attempt + 1} times: the run would end here")
        wait_s = self._scenario.latency_s + pause_s(attempt, 0.5, self._chance)
        self._clock.after(wait_s, lambda: self.fetch(node, size_bytes, then, attempt + 1))

    def _begin(self, node: int, size_bytes: float, then: Callable[[], None]) -> None:
        link = self._links[node]
        self._serve(link)
        heapq.heappush(link.transfers, (link.served_bytes + size_bytes, next(self._count), then))
        self._share(link)

    def _serve(self, link: Link) -> None:
        if link.transfers:
            link.served_bytes += (self._clock.now_s - link.since_s) * link.rate / len(link.transfers)
        link.since_s = self._clock.now_s

    def _share(self, changed: Link) -> None:
        """Give each link its rate: its own limit, or less if all links together exceed the store's rate."""
        wanted = [self._wanted(link) for link in self._links]
        was_crowded, self._is_crowded = self._is_crowded, sum(wanted) > self._scenario.store_bytes_s
        if not self._is_crowded and not was_crowded:
            self._set_rate(changed, self._wanted(changed))
            return
        most = fair_share(wanted, self._scenario.store_bytes_s)
        for link, rate in zip(self._links, wanted, strict=True):
            self._set_rate(link, min(rate, most))

    def _wanted(self, link: Link) -> float:
        return min(self._scenario.node_bytes_s, len(link.transfers) * self._scenario.connection_bytes_s)

    def _set_rate(self, link: Link, rate: float) -> None:
        self._serve(link)
        link.rate = rate
        link.version += 1
        if link.transfers:
            left_bytes = link.transfers[0][0] - link.served_bytes
            version = link.version
            self._clock.after(max(0.0, left_bytes) * len(link.transfers) / rate, lambda: self._end(link, version))

    def _end(self, link: Link, version: int) -> None:
        if version != link.version:  # the rate has changed since
            return
        self._serve(link)
        _, _, then = heapq.heappop(link.transfers)
        self._share(link)
        then()


def fair_share(wanted: list[float], total: float) -> float:
    """Return the largest share such that smaller demands are met in full and `total` is used up."""
    left = total
    for count, rate in zip(range(len(wanted), 0, -1), sorted(wanted), strict=True):
        if rate * count >= left:
            return left / count
        left -= rate
    return float("inf")
