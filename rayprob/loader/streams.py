"""Streams of batches: the same for any number of loader workers and ranks, and from any cursor. B samples, L labels."""

import itertools
from collections.abc import Generator, Iterator, Mapping

import numpy as np

from rayprob.arrays import Rows
from rayprob.data.joined.dataset import AnySplit
from rayprob.errors import RunError
from rayprob.images.reading import ImageReading
from rayprob.loader import order
from rayprob.loader.augment import Transform
from rayprob.loader.batch import Batch
from rayprob.loader.batch_rules import Sizes
from rayprob.loader.decode import Request
from rayprob.loader.delivery import Stream
from rayprob.loader.order import Cursor, Place
from rayprob.loader.stream_spec import StreamSpec
from rayprob.loader.turns import Pieces, samples_per_epoch, split_pieces

__all__ = ["Batch", "Cursor", "EvalStream", "Place", "StreamSpec", "TrainStream"]


class TrainStream(Stream):
    """The endless training stream of one rank: every sample at most once per epoch, or as often as its weight says.

    rayprob's own loop asks for batches by their cursor (`iterate`). Any other trainer iterates over the stream, and keeps its
    place by `state_dict` and `load_state_dict`, as PyTorch's Stateful protocol has them.
    """

    def __init__(
        self,
        manifest: AnySplit,
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
        num_samples = samples_per_epoch(manifest)
        Sizes(num_samples, spec.global_batch, spec.lanes, shares, micro_batch).check(manifest.split)
        self.shares = order.rank_shares(place, shares)
        self._lanes = order.rank_lanes(place, spec.lanes, shares)
        self.micro_batches_per_share = spec.global_batch // shares // micro_batch
        self.micro_batches_per_step = self.micro_batches_per_share * len(self.shares)
        self.batches_per_epoch = num_samples // spec.global_batch
        self._cursor = Cursor(0, 0)
        lanes = -(-shares // place.world_size) * (spec.lanes // shares) * place.local_world_size
        self._check_cache(lanes * spec.window_shards, f"{lanes} lanes x window_shards {spec.window_shards}")

    def __iter__(self) -> Generator[Batch, None, None]:
        """Yield micro batches without end, from where the stream is. Closing the generator ends the loader workers."""
        first = self._cursor
        for number, batch in enumerate(self.iterate(first), start=1):
            if number % self.micro_batches_per_step == 0:  # before the yield: whoever has this batch may ask for the state
                self._cursor = self.next(batch.cursor)
            yield batch

    def state_dict(self) -> dict[str, int | str]:
        """Return plain values that say which global batch comes next, and of which stream.

        It is the same on every rank, and moves on with the last micro batch of a step: a step left half done comes again.
        """
        return {"epoch": self._cursor.epoch, "batch": self._cursor.batch, **self._order_facts()}

    def load_state_dict(self, state: Mapping[str, int | str]) -> None:
        """Continue at the state of a stream over the same dataset in the same order; the number of ranks may differ.

        The next iteration begins there. Raises RunError that names what differs, or is missing.
        """
        missing = [name for name in self.state_dict() if name not in state]
        if missing:
            raise RunError(f"a stream's state lacks {', '.join(missing)}; load what state_dict() returned")
        own = self._order_facts()
        differing = [f"{name} is {own[name]}, in the state {state[name]}" for name in own if own[name] != state[name]]
        if differing:
            raise RunError(f"the state is that of another stream: {'; '.join(differing)}; make this stream as that one was")
        cursor = Cursor(int(state["epoch"]), int(state["batch"]))
        self._require_inside(cursor)
        self._cursor = cursor

    def _order_facts(self) -> dict[str, int | str]:
        spec = self.spec
        order_of = {"lanes": spec.lanes, "window_shards": spec.window_shards, "global_batch": spec.global_batch}
        weights = ", ".join(f"{member.weight:g}" for member in self.manifest.members)
        weighted = {"weights": weights} if weights != "1" else {}  # a state of 0.1 has none
        dataset = self.manifest.fingerprint
        return {"dataset": dataset, "split": self.manifest.split, "seed": self._seed, **order_of, **weighted}

    def _require_inside(self, cursor: Cursor) -> None:
        if cursor.epoch < 0 or not 0 <= cursor.batch < self.batches_per_epoch:
            raise RunError(
                f"{cursor} lies outside an epoch of {self.batches_per_epoch} global batches; "
                f"it comes from a run with another dataset or global_batch"
            )

    def next(self, cursor: Cursor) -> Cursor:
        """Return the position after the global batch at `cursor`."""
        last = cursor.batch + 1 == self.batches_per_epoch
        return Cursor(cursor.epoch + 1, 0) if last else Cursor(cursor.epoch, cursor.batch + 1)

    def iterate(self, cursor: Cursor) -> Generator[Batch, None, None]:
        """Yield micro batches from `cursor` on, over epochs, endlessly; `micro_batches_per_step` of them share a cursor.

        Closing the generator ends the loader workers. Raises RunError for a cursor that is not in an epoch, DatasetError
        and StorageError if shards cannot be read, SampleError for a bad sample with on_bad_sample: fail.
        """
        self._require_inside(cursor)
        last = self.batches_per_epoch - 1
        return self._batches(lambda: self._requests(cursor), lambda reached: reached.batch == last)

    def _requests(self, cursor: Cursor) -> Iterator[Request]:
        for epoch in itertools.count(cursor.epoch):
            first = cursor.batch if epoch == cursor.epoch else 0
            pieces = split_pieces(self.manifest, seed=self._seed, epoch=epoch)
            for batch, numbers in enumerate(self._epoch_order(epoch, pieces).batches(self._lanes, first), start=first):
                for numbers_B in np.split(numbers, self.micro_batches_per_step):
                    turns_B, rows_B = pieces.turns_and_rows(numbers_B)
                    yield Request(Cursor(epoch, batch), rows_B, turns_B)

    def _epoch_order(self, epoch: int, pieces: Pieces) -> order.EpochOrder:
        spec = self.spec
        return order.EpochOrder(
            pieces.samples_P,
            first_rows_S=pieces.firsts_P,
            seed=self._seed,
            epoch=epoch,
            lanes=spec.lanes,
            window=spec.window_shards,
            global_batch=spec.global_batch,
        )


class EvalStream(Stream):
    """Every sample of the split exactly once over all ranks, in order, without padding; ranks may differ in length."""

    def __init__(
        self,
        manifest: AnySplit,
        spec: StreamSpec,
        transform: Transform,
        *,
        place: Place,
        micro_batch: int,
        reading: ImageReading | None = None,
        rows: Rows | None = None,
    ) -> None:
        """Read the images by `reading`, by default as each dataset records; a bundle's gives the pixels its model knows.

        With `rows`, only these rows of the split are read, all of them by this rank.
        """
        super().__init__(manifest, spec, transform, seed=0, place=place, micro_batch=micro_batch, reading=reading)
        self._rows = order.evaluation_rows(len(manifest), place) if rows is None else rows
        self._check_cache(place.local_world_size, "one for each of its ranks")

    def __len__(self) -> int:
        """Return the number of micro batches of this rank; the last may be smaller."""
        return -(-len(self._rows) // self._micro_batch)

    def __iter__(self) -> Generator[Batch, None, None]:
        """Yield this rank's micro batches. Closing the generator ends the loader workers. Raises as TrainStream does."""
        return self._batches(self._requests, lambda reached: reached.batch == len(self) - 1)

    def _requests(self) -> Iterator[Request]:
        for batch, first in enumerate(range(0, len(self._rows), self._micro_batch)):
            rows_B = self._rows[first : first + self._micro_batch]
            yield Request(Cursor(0, batch), rows_B, np.zeros_like(rows_B))
