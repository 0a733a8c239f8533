"""Streams of batches: the same for any number of loader workers and ranks, and from any cursor. B samples, L labels."""

import itertools
from collections.abc import Generator, Iterator

import numpy as np

from rayprob.data.manifest.dataset import Manifest
from rayprob.errors import RunError
from rayprob.loader import order
from rayprob.loader.augment import Transform
from rayprob.loader.batch import Batch
from rayprob.loader.batch_rules import Sizes
from rayprob.loader.decode import Request
from rayprob.loader.delivery import Stream, StreamSpec
from rayprob.loader.order import Cursor, Place

__all__ = ["Batch", "Cursor", "EvalStream", "Place", "StreamSpec", "TrainStream"]


class TrainStream(Stream):
    """The endless training stream of one rank: every sample of the split at most once per epoch."""

    def __init__(
        self,
        manifest: Manifest,
        spec: StreamSpec,
        transform: Transform,
        *,
        seed: int,
        place: Place,
        micro_batch: int,
        shares: int | None = None,
    ) -> None:
        """Divide a global batch into `shares`, by default one per rank; micro batches are equal for any world size.

        Raises SpecError if batch sizes, lanes and shares do not fit each other or the split.
        """
        super().__init__(manifest, spec, transform, seed=seed, place=place, micro_batch=micro_batch)
        shares = shares or place.world_size
        Sizes(len(manifest), spec.global_batch, spec.lanes, shares, micro_batch).check(manifest.split)
        self.shares = order.rank_shares(place, shares)
        self._lanes = order.rank_lanes(place, spec.lanes, shares)
        self.micro_batches_per_share = spec.global_batch // shares // micro_batch
        self.micro_batches_per_step = self.micro_batches_per_share * len(self.shares)
        self.batches_per_epoch = len(manifest) // spec.global_batch
        lanes = -(-shares // place.world_size) * (spec.lanes // shares) * place.local_world_size
        self._check_cache(lanes * spec.window_shards, f"{lanes} lanes x window_shards {spec.window_shards}")

    def next(self, cursor: Cursor) -> Cursor:
        """Return the position after the global batch at `cursor`."""
        last = cursor.batch + 1 == self.batches_per_epoch
        return Cursor(cursor.epoch + 1, 0) if last else Cursor(cursor.epoch, cursor.batch + 1)

    def iterate(self, cursor: Cursor) -> Generator[Batch, None, None]:
        """Yield micro batches from `cursor` on, over epochs, endlessly; `micro_batches_per_step` of them share a cursor.

        Closing the generator ends the loader workers. Raises RunError for a cursor that is not in an epoch, DatasetError
        and StorageError if shards cannot be read, SampleError for a bad sample with on_bad_sample: fail.
        """
        if not 0 <= cursor.batch < self.batches_per_epoch:
            raise RunError(
                f"{cursor} is outside an epoch of {self.batches_per_epoch} global batches; "
                f"it comes from a run with another dataset or global_batch"
            )
        last = self.batches_per_epoch - 1
        return self._batches(lambda: self._requests(cursor), lambda reached: reached.batch == last)

    def _requests(self, cursor: Cursor) -> Iterator[Request]:
        for epoch in itertools.count(cursor.epoch):
            first = cursor.batch if epoch == cursor.epoch else 0
            for batch, rows in enumerate(self._epoch_order(epoch).batches(self._lanes, first), start=first):
                for rows_B in np.split(rows, self.micro_batches_per_step):
                    yield Request(Cursor(epoch, batch), rows_B)

    def _epoch_order(self, epoch: int) -> order.EpochOrder:
        spec = self.spec
        return order.EpochOrder(
            self.manifest.samples_per_shard(),
            seed=self._seed,
            epoch=epoch,
            lanes=spec.lanes,
            window=spec.window_shards,
            global_batch=spec.global_batch,
        )


class EvalStream(Stream):
    """Every sample of the split exactly once over all ranks, in order, without padding; ranks may differ in length."""

    def __init__(self, manifest: Manifest, spec: StreamSpec, transform: Transform, *, place: Place, micro_batch: int) -> None:
        super().__init__(manifest, spec, transform, seed=0, place=place, micro_batch=micro_batch)
        self._rows = order.evaluation_rows(len(manifest), place)
        self._check_cache(place.local_world_size, "one for each of its ranks")

    def __len__(self) -> int:
        """Return the number of micro batches of this rank; the last may be smaller."""
        return -(-len(self._rows) // self._micro_batch)

    def __iter__(self) -> Generator[Batch, None, None]:
        """Yield this rank's micro batches. Closing the generator ends the loader workers. Raises as TrainStream does."""
        return self._batches(self._requests, lambda reached: reached.batch == len(self) - 1)

    def _requests(self) -> Iterator[Request]:
        for batch, first in enumerate(range(0, len(self._rows), self._micro_batch)):
            yield Request(Cursor(0, batch), self._rows[first : first + self._micro_batch])
