"""What training and evaluation streams share: from requests to batches."""

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Literal

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveInt

from rayprob.config.spec import Spec
from rayprob.data.manifest.dataset import Manifest
from rayprob.errors import DatasetError
from rayprob.files import storage
from rayprob.images.reading import ImageReading
from rayprob.loader import workers
from rayprob.loader.augment import Transform
from rayprob.loader.batch import Batch
from rayprob.loader.cache import ShardCache, check_budget
from rayprob.loader.check import LocalCheck, check_sizes
from rayprob.loader.decode import Decoded, Decoder, Located, Request
from rayprob.loader.order import Cursor, Place
from rayprob.loader.prefetch import Prefetcher
from rayprob.loader.reader import SampleReader
from rayprob.loader.shards import FactsByName, LocalShards, ShardKeeper, are_local

log = logging.getLogger(__name__)

LOOK_AHEAD = 16  # micro batches: their rows of the manifest are read before they are needed


class StreamSpec(Spec):
    """How samples reach the training processes."""

    global_batch: PositiveInt = 64
    """Samples per optimizer step, over all workers."""
    lanes: PositiveInt = 8
    """Independent passes over parts of the data; a multiple of the number of workers (of the maximum, for an elastic run)."""
    window_shards: PositiveInt = 8
    """Number of shards of a lane that are shuffled together."""
    loader_workers: NonNegativeInt = 2
    """Processes per rank that read and decode; 0 decodes in the training process."""
    prefetch: PositiveInt = 2
    """Micro batches that each loader worker prepares ahead."""
    on_bad_sample: Literal["fail", "skip"] = "fail"
    """What to do with a sample that cannot be read: fail, or skip and report it."""
    max_bad_samples: NonNegativeInt = 100
    """With on_bad_sample: skip, fail after more than this many."""
    check_shards: bool = True
    """Check the sha256 of whole local shards during the first epoch."""
    cache_dir: str = "~/.cache/rayprob/shards"
    """Where shards of remote datasets are cached; the ranks of a node share it."""
    cache_bytes: PositiveInt = 64 * 2**30
    """Upper limit of that cache, in bytes."""
    retries: NonNegativeInt = 5
    """Number of retries of a failed download."""


class Stream:
    """What both streams share: from requests to batches."""

    def __init__(
        self,
        manifest: Manifest,
        spec: StreamSpec,
        transform: Transform,
        *,
        seed: int,
        place: Place,
        micro_batch: int,
        reading: ImageReading | None = None,
    ) -> None:
        """Read the images by `reading`, by default as the dataset records."""
        self.manifest = manifest
        self.spec = spec
        self.place = place
        self.bad_samples: dict[int, str] = {}  # sample_id -> error; samples skipped with on_bad_sample: skip
        self._seed = seed
        self._micro_batch = micro_batch
        self._facts = FactsByName(manifest.root, manifest.shards)
        self._source = self._open_source()
        reader = SampleReader(manifest.root, self._source)
        self._decoder = Decoder(
            reader, transform, reading=reading or manifest.reading, seed=seed, on_bad_sample=spec.on_bad_sample
        )

    def _batches(
        self, requests: Callable[[], Iterator[Request]], ends_pass: Callable[[Cursor], bool]
    ) -> Generator[Batch, None, None]:
        """Yield the batches of `requests`; `ends_pass` tells which of them end an epoch or evaluation."""
        keeper = self._keeper(requests)
        results = workers.decode_ahead(
            self._decoder,
            self._located(requests()),
            loader_workers=self.spec.loader_workers,
            prefetch=self.spec.prefetch,
            max_samples=self._micro_batch,
        )
        try:
            for decoded in results:
                keeper.decoded(self._shards_of(decoded.request), ends_pass=ends_pass(decoded.request.cursor))
                yield self._batch(decoded)
        finally:
            results.close()
            keeper.close()

    def _located(self, requests: Iterable[Request]) -> Iterator[Located]:
        """Look up the samples of each request, after requesting the manifest rows of later requests."""
        ahead: deque[Request] = deque()
        for request in requests:
            self.manifest.want(request.rows_B)
            ahead.append(request)
            if len(ahead) > LOOK_AHEAD:
                yield self._locate(ahead.popleft())
        yield from map(self._locate, ahead)

    def _locate(self, request: Request) -> Located:
        return Located(request, self.manifest.samples(request.rows_B))

    def _open_source(self) -> LocalShards | ShardCache:
        root, spec = self.manifest.root, self.spec
        if are_local(root, self.manifest.shards):
            # The ranks of a node divide the shards, so that they do not all query a shared folder for a million shards.
            ranks = self.place.local_world_size
            mine = range(self.place.rank % ranks, len(self.manifest.shards), ranks)
            check_sizes(root, (self.manifest.shards[shard] for shard in mine), self._facts)
            return LocalShards(root)
        return ShardCache(
            root=root,
            fingerprint=self.manifest.fingerprint,
            facts=self._facts,
            folder=storage.local_path(spec.cache_dir),
            budget_bytes=spec.cache_bytes,
            retries=spec.retries,
        )

    def _check_cache(self, at_once: int, why: str) -> None:
        """Make space for `at_once` shards, current and prefetched, over all ranks of this node."""
        self.manifest.keep(3 * at_once // self.place.local_world_size)
        if isinstance(self._source, ShardCache):
            check_budget(self._source, self.manifest.shards.size_bytes_S, at_once=at_once, why=why)

    def _keeper(self, requests: Callable[[], Iterator[Request]]) -> ShardKeeper:
        if isinstance(self._source, ShardCache):
            share_bytes = self.spec.cache_bytes // self.place.local_world_size
            return Prefetcher(self._source, map(self._shards_of, requests()), share_bytes)
        return LocalCheck(self.manifest.root, self._facts, contents=self.spec.check_shards)

    def _shards_of(self, request: Request) -> list[str]:
        return [self.manifest.shards[shard] for shard in np.unique(self.manifest.shard_of(request.rows_B))]

    def _batch(self, decoded: Decoded) -> Batch:
        rows_B = decoded.request.rows_B
        known_BL = self.manifest.known(rows_B)
        if decoded.faults:
            # A skipped sample keeps its place, so that all ranks take equal steps; without known labels its loss is 0.
            known_BL[list(decoded.faults)] = False
            self._count(decoded)
        return Batch(
            images_BCHW=decoded.images_BCHW,
            targets_BL=torch.from_numpy(self.manifest.targets(rows_B)),
            known_BL=torch.from_numpy(known_BL),
            sample_ids_B=torch.from_numpy(self.manifest.sample_ids(rows_B)),
            cursor=decoded.request.cursor,
        )

    def _count(self, decoded: Decoded) -> None:
        sample_ids_B = self.manifest.sample_ids(decoded.request.rows_B)
        for place, fault in decoded.faults.items():
            sample_id = int(sample_ids_B[place])
            if sample_id not in self.bad_samples:
                log.warning("skipped %s", fault)
            self.bad_samples[sample_id] = fault
        if len(self.bad_samples) > self.spec.max_bad_samples:
            raise DatasetError(
                f"{len(self.bad_samples)} bad samples, but max_bad_samples is {self.spec.max_bad_samples}; "
                f"run `rayprob verify {self.manifest.root}`; the last: {list(self.bad_samples.values())[-1]}"
            )
