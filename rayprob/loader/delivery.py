"""What training and evaluation streams share: from requests to batches."""

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from operator import itemgetter

import numpy as np
import torch

from rayprob.data.joined.dataset import AnySplit
from rayprob.errors import DatasetError
from rayprob.images.reading import ImageReading
from rayprob.loader import workers
from rayprob.loader.augment import Transform
from rayprob.loader.batch import Batch
from rayprob.loader.cache import check_budget
from rayprob.loader.decode import Decoded, Decoder, Located, Request
from rayprob.loader.member_shards import MemberShards
from rayprob.loader.order import Cursor, Place
from rayprob.loader.shards import ShardKeeper
from rayprob.loader.stream_spec import StreamSpec

log = logging.getLogger(__name__)

LOOK_AHEAD = 16  # micro batches: their rows of the manifest are read before they are needed


class Stream:
    """What both streams share: from requests to batches."""

    def __init__(
        self,
        manifest: AnySplit,
        spec: StreamSpec,
        transform: Transform,
        *,
        seed: int,
        place: Place,
        micro_batch: int,
        reading: ImageReading | None = None,
    ) -> None:
        """Read the images by `reading`, by default as each dataset records."""
        self.manifest = manifest
        self.spec = spec
        self.place = place
        self.bad_samples: dict[int, str] = {}  # sample_id -> error; samples skipped with on_bad_sample: skip
        self._seed = seed
        self._micro_batch = micro_batch
        self._shards = [MemberShards(member.manifest, spec, place) for member in manifest.members]
        self._decoder = Decoder(
            [shards.reader for shards in self._shards],
            transform,
            readings=[reading or member.manifest.reading for member in manifest.members],
            seed=seed,
            on_bad_sample=spec.on_bad_sample,
        )

    def _batches(
        self, requests: Callable[[], Iterator[Request]], ends_pass: Callable[[Cursor], bool]
    ) -> Generator[Batch, None, None]:
        """Yield the batches of `requests`; `ends_pass` tells which of them end an epoch or evaluation."""
        with ExitStack() as stack:
            keepers = [stack.enter_context(closing(keeper)) for keeper in self._keepers(requests)]
            results = workers.decode_ahead(
                self._decoder,
                self._located(requests()),
                loader_workers=self.spec.loader_workers,
                prefetch=self.spec.prefetch,
                max_samples=self._micro_batch,
            )
            stack.callback(results.close)
            for decoded in results:
                shards_M, is_last = self._shards_of(decoded.request), ends_pass(decoded.request.cursor)
                for keeper, shards in zip(keepers, shards_M, strict=True):
                    keeper.decoded(shards, ends_pass=is_last)
                yield self._batch(decoded)

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

    def _check_cache(self, at_once: int, why: str) -> None:
        """Make space for `at_once` shards, current and prefetched, over all ranks of this node."""
        for shards in self._shards:
            shards.manifest.keep(3 * at_once // self.place.local_world_size)
        caches = [(shards.cache, shards.manifest.shards.size_bytes_S) for shards in self._shards if shards.cache]
        if caches:
            check_budget(caches[0][0], np.concatenate([sizes for _, sizes in caches]), at_once=at_once, why=why)

    def _keepers(self, requests: Callable[[], Iterator[Request]]) -> Iterator[ShardKeeper]:
        share = self.place.local_world_size * max(1, sum(shards.cache is not None for shards in self._shards))
        for number, shards in enumerate(self._shards):
            ahead = map(itemgetter(number), map(self._shards_of, requests()))
            yield shards.keeper(ahead, self.spec.cache_bytes // share)

    def _shards_of(self, request: Request) -> list[list[str]]:
        """Return the shards that a request needs, of each dataset."""
        found: list[list[str]] = [[] for _ in self._shards]
        for _, number, rows in self.manifest.by_member(request.rows_B):
            found[number] = self._shards[number].names(rows)
        return found

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
            remedies = " and ".join(f"`rayprob verify {shards.manifest.root}`" for shards in self._shards)
            raise DatasetError(
                f"{len(self.bad_samples)} bad samples, but max_bad_samples is {self.spec.max_bad_samples}; "
                f"run {remedies}; the last: {list(self.bad_samples.values())[-1]}"
            )
