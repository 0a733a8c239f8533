"""Images to batches: threads read, decode and resize ahead, in order, with bounded memory. S square sizes."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayprob.arrays import Pixels
from rayprob.errors import RayprobError, SampleError, StorageError
from rayprob.loader.augment import resize
from rayprob.predict.images import Image, ImageFile

BATCHES_AHEAD = 2


@dataclass(frozen=True, eq=False)
class Loaded:
    """An image resized to each requested size, uint8 [size_px, size_px, 3]; without any, the error that prevented it."""

    image: Image
    squashed_S: tuple[Pixels, ...]
    notes: tuple[str, ...] = ()
    error: RayprobError | None = None


def batches(images: Iterable[Image], sizes_px: Sequence[int], *, batch: int, threads: int) -> Iterator[list[Loaded]]:
    """Yield the images in order, `batch` at a time; at most BATCHES_AHEAD + 1 batches are in memory.

    A fault of one image becomes its `error`. Raises DatasetError or StorageError if a dataset cannot be read.
    """
    remaining = iter(images)
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        ahead: deque[Future[Loaded]] = deque()

        def read_on(count: int) -> None:
            ahead.extend(pool.submit(load, image, sizes_px) for image in islice(remaining, count))

        read_on(batch * BATCHES_AHEAD)
        try:
            while ahead:
                loaded = [ahead.popleft().result() for _ in range(min(batch, len(ahead)))]
                read_on(batch)
                yield loaded
        finally:
            for future in ahead:
                future.cancel()


def load(image: Image, sizes_px: Sequence[int]) -> Loaded:
    """Return an image resized to each of the sizes, as the evaluation transform does."""
    try:
        decoded = image.decode()
    except SampleError as error:
        return Loaded(image, (), error=error)
    except StorageError as error:
        if not isinstance(image, ImageFile):
            raise
        return Loaded(image, (), error=error)
    return Loaded(image, tuple(resize(decoded.pixels_HWC, size_px) for size_px in sizes_px), decoded.notes)


def stacked(loaded: Sequence[Loaded], size: int) -> NDArray[Any]:
    """Return the images of one size as [B, 3, size_px, size_px]: a view of interleaved bytes, which is channels_last."""
    return np.stack([one.squashed_S[size] for one in loaded]).transpose(0, 3, 1, 2)
