"""Images to batches: threads read, decode and resize ahead, in order, with bounded memory. S inputs."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rayprob.arrays import Pixels
from rayprob.errors import RayprobError, SampleError, StorageError
from rayprob.images.reading import ImageReading
from rayprob.loader.augment import resize
from rayprob.predict.images import Image, ImageFile

BATCHES_AHEAD = 2


class Input(NamedTuple):
    """What a classifier takes: images read in one way, squashed to one size."""

    size_px: int
    reading: ImageReading


@dataclass(frozen=True, eq=False)
class Loaded:
    """An image as each input takes it, uint8 [size_px, size_px, 3]; without any, the error that prevented it."""

    image: Image
    squashed_S: tuple[Pixels, ...]
    notes: tuple[str, ...] = ()
    error: RayprobError | None = None


def batches(images: Iterable[Image], inputs: Sequence[Input], *, batch: int, threads: int) -> Iterator[list[Loaded]]:
    """Yield the images in order, `batch` at a time; at most BATCHES_AHEAD + 1 batches are in memory.

    A fault of one image becomes its `error`. Raises DatasetError or StorageError if a dataset cannot be read.
    """
    remaining = iter(images)
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        ahead: deque[Future[Loaded]] = deque()

        def read_on(count: int) -> None:
            ahead.extend(pool.submit(load, image, inputs) for image in islice(remaining, count))

        read_on(batch * BATCHES_AHEAD)
        try:
            while ahead:
                loaded = [ahead.popleft().result() for _ in range(min(batch, len(ahead)))]
                read_on(batch)
                yield loaded
        finally:
            for future in ahead:
                future.cancel()


def load(image: Image, inputs: Sequence[Input]) -> Loaded:
    """Return an image as each of the inputs takes it, resized as the evaluation transform does."""
    try:
        decoded = {reading: image.decode(reading) for reading in dict.fromkeys(one.reading for one in inputs)}
    except SampleError as error:
        return Loaded(image, (), error=error)
    except StorageError as error:
        if not isinstance(image, ImageFile):
            raise
        return Loaded(image, (), error=error)
    squashed_S = tuple(resize(decoded[one.reading].pixels_HWC, one.size_px) for one in inputs)
    return Loaded(image, squashed_S, tuple(dict.fromkeys(note for found in decoded.values() for note in found.notes)))


def stacked(loaded: Sequence[Loaded], place: int) -> NDArray[Any]:
    """Return the images of one input as [B, 3, size_px, size_px]: a view of interleaved bytes, which is channels_last."""
    return np.stack([one.squashed_S[place] for one in loaded]).transpose(0, 3, 1, 2)
