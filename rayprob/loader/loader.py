"""Streams of batches: the same for any number of loader workers and ranks, and from any cursor. B samples, L labels."""

import itertools
import logging
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

from rayprob.data.manifest import Manifest
from rayprob.errors import DatasetError, RunError
from rayprob.loader import order, workers
from rayprob.loader.augment import Transform
from rayprob.loader.decode import Decoded, MicroBatches, Request
from rayprob.loader.order import Cursor, Place
from rayprob.loader.reader import LocalShards, SampleReader, ShardSource
from rayprob.spec import Spec

log = logging.getLogger(__name__)


class StreamSpec(Spec):
    """How samples reach the training processes."""

    global_batch: PositiveInt = 64
    lanes: PositiveInt = 8  # world_size must divide it
    window_shards: PositiveInt = 8  # shards of a lane that are shuffled together
    loader_workers: NonNegativeInt = 2  # processes per rank; 0 decodes in the training process
    prefetch: PositiveInt = 2  # micro batches that each loader worker prepares ahead
    on_bad_sample: Literal["fail", "skip"] = "fail"
    max_bad_samples: NonNegativeInt = 100  # with skip: more than this many fail
    cache_dir: str = "~/.cache/rayprob/shards"  # for remote datasets; ranks of a node share it
    cache_bytes: PositiveInt = 64 * 2**30
    retries: NonNegativeInt = 5  # of a failed download


@dataclass(frozen=True)
class Batch:
    """A micro batch: images uint8 [B, 3, H, W], targets and known bool [B, L], and the cursor of its global batch."""

    images_BCHW: Tensor
    targets_BL: Tensor
    known_BL: Tensor
    sample_ids_B: Tensor
    cursor: Cursor

    def __len__(self) -> int:
        return len(self.sample_ids_B)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Batch":
        """Return the batch on a device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """Return the batch in page-locked memory."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        images, targets, known, ids = map(function, (self.images_BCHW, self.targets_BL, self.known_BL, self.sample_ids_B))
        return Batch(images, targets, known, ids, self.cursor)


class _Stream:
    """What both streams share: from requests to batches."""

    def __init__(self, manifest: Manifest, spec: StreamSpec, transform: Transform, *, seed: int) -> None:
        self.manifest = manifest
        self.spec = spec
        self.bad_samples: dict[int, str] = {}  # sample_id -> what was wrong; samples met with on_bad_sample: skip
        self._transform = transform
        self._seed = seed

    def _batches(self, requests: Iterator[Request]) -> Generator[Batch, None, None]:
        reader = SampleReader(self.manifest, self._shards)
        dataset = MicroBatches(reader, self._transform, seed=self._seed, on_bad_sample=self.spec.on_bad_sample)
        decoded = workers.decode_ahead(dataset, requests, loader_workers=self.spec.loader_workers, prefetch=self.spec.prefetch)
        try:
            for images in decoded:
                yield self._batch(images)
        finally:
            decoded.close()

    @cached_property
    def _shards(self) -> ShardSource:
        return LocalShards(self.manifest.root)

    def _batch(self, decoded: Decoded) -> Batch:
        rows_B = decoded.request.rows_B
        known_BL = self.manifest.known(rows_B)
        if decoded.faults:
            # A skipped sample keeps its place, so that every rank still takes equal steps; with no known label it has no loss.
            known_BL[list(decoded.faults)] = False
            self._count(decoded)
        return Batch(
            images_BCHW=decoded.images_BCHW,
            targets_BL=torch.from_numpy(self.manifest.targets(rows_B)),
            known_BL=torch.from_numpy(known_BL),
            sample_ids_B=torch.from_numpy(self.manifest.sample_ids_N[rows_B]),
            cursor=decoded.request.cursor,
        )

    def _count(self, decoded: Decoded) -> None:
        for place, fault in decoded.faults.items():
            sample_id = int(self.manifest.sample_ids_N[decoded.request.rows_B[place]])
            if sample_id not in self.bad_samples:
                log.warning("skipped %s", fault)
            self.bad_samples[sample_id] = fault
        if len(self.bad_samples) > self.spec.max_bad_samples:
            raise DatasetError(
                f"{len(self.bad_samples)} bad samples, max_bad_samples allows {self.spec.max_bad_samples}; "
                f"run `rayprob verify {self.manifest.root}`; the last: {list(self.bad_samples.values())[-1]}"
            )


class TrainStream(_Stream):
    """The endless training stream of one rank: every sample of the split at most once an epoch."""

    def __init__(
        self, manifest: Manifest, spec: StreamSpec, transform: Transform, *, seed: int, place: Place, micro_batch: int
    ) -> None:
        """Raise SpecError where batch sizes, lanes and world size do not fit each other or the split."""
        super().__init__(manifest, spec, transform, seed=seed)
        order.check_global_batch(len(manifest), lanes=spec.lanes, global_batch=spec.global_batch)
        self._columns = order.rank_columns(place, spec.lanes, spec.global_batch)
        self.micro_batches_per_step = order.micro_batches_per_step(spec.global_batch, micro_batch, place.world_size)
        self.batches_per_epoch = len(manifest) // spec.global_batch

    def next(self, cursor: Cursor) -> Cursor:
        """Return the position after the global batch at `cursor`."""
        last = cursor.batch + 1 == self.batches_per_epoch
        return Cursor(cursor.epoch + 1, 0) if last else Cursor(cursor.epoch, cursor.batch + 1)

    def iterate(self, cursor: Cursor) -> Generator[Batch, None, None]:
        """Yield micro batches from `cursor` on, over epochs, without end; `micro_batches_per_step` of them share a cursor.

        Closing the generator ends the loader workers. Raises RunError for a cursor that is not in an epoch, DatasetError
        and StorageError where shards cannot be read, SampleError for a bad sample with on_bad_sample: fail.
        """
        if not 0 <= cursor.batch < self.batches_per_epoch:
            raise RunError(
                f"{cursor} lies outside an epoch of {self.batches_per_epoch} global batches; "
                f"it comes from a run with another dataset or global_batch"
            )
        return self._batches(self._requests(cursor))

    def _requests(self, cursor: Cursor) -> Iterator[Request]:
        for epoch in itertools.count(cursor.epoch):
            rows_KG = self._epoch_rows(epoch)[:, self._columns]
            for batch in range(cursor.batch if epoch == cursor.epoch else 0, self.batches_per_epoch):
                for rows_B in np.split(rows_KG[batch], self.micro_batches_per_step):
                    yield Request(Cursor(epoch, batch), rows_B)

    def _epoch_rows(self, epoch: int) -> order.Rows:
        spec, samples_per_shard_S = self.spec, self.manifest.samples_per_shard()
        return order.epoch_order(
            samples_per_shard_S,
            seed=self._seed,
            epoch=epoch,
            lanes=spec.lanes,
            window=spec.window_shards,
            global_batch=spec.global_batch,
        )


class EvalStream(_Stream):
    """Every sample of the split exactly once over all ranks, in order, without padding; ranks may differ in length."""

    def __init__(self, manifest: Manifest, spec: StreamSpec, transform: Transform, *, place: Place, micro_batch: int) -> None:
        super().__init__(manifest, spec, transform, seed=0)
        self._rows = order.evaluation_rows(len(manifest), place)
        self._micro_batch = micro_batch

    def __len__(self) -> int:
        """Return the number of micro batches of this rank; the last may be smaller."""
        return -(-len(self._rows) // self._micro_batch)

    def __iter__(self) -> Generator[Batch, None, None]:
        """Yield this rank's micro batches. Closing the generator ends the loader workers. Raises as TrainStream does."""
        return self._batches(self._requests())

    def _requests(self) -> Iterator[Request]:
        for batch, first in enumerate(range(0, len(self._rows), self._micro_batch)):
            yield Request(Cursor(0, batch), self._rows[first : first + self._micro_batch])
