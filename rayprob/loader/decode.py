"""A request for a micro batch becomes images, inside a loader worker. B samples."""

import logging
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from rayprob.errors import RayprobError, SampleError
from rayprob.loader.augment import Transform
from rayprob.loader.order import Cursor
from rayprob.loader.reader import SampleReader, describe
from rayprob.seeds import derive

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """One micro batch: its rows, and the cursor of its global batch."""

    cursor: Cursor
    rows_B: NDArray[np.int64]


@dataclass(frozen=True)
class Decoded:
    """The images of a request, uint8 [B, 3, size_px, size_px], and what was wrong with which of them."""

    request: Request
    images_BCHW: Tensor
    faults: dict[int, str]

    def pin_memory(self) -> "Decoded":
        """Return a copy in page-locked memory; DataLoader calls this."""
        return replace(self, images_BCHW=self.images_BCHW.pin_memory())


class MicroBatches(Dataset[Decoded | RayprobError]):
    """Maps a request to its images. An error is returned, not raised: DataLoader would wrap it in a wall of traceback."""

    def __init__(
        self, reader: SampleReader, transform: Transform, *, seed: int, on_bad_sample: Literal["fail", "skip"]
    ) -> None:
        self._reader = reader
        self._transform = transform
        self._seed = seed
        self._on_bad_sample = on_bad_sample

    def __getitem__(self, request: Request) -> Decoded | RayprobError:
        """Return the images of a request, or the RayprobError that prevents it."""
        try:
            return self._decode(request)
        except RayprobError as error:
            return error

    def _decode(self, request: Request) -> Decoded:
        images_BHWC, faults = _empty_images(len(request.rows_B), self._transform.size_px), {}
        pixels_BHWC = images_BHWC.numpy()
        for place, row in enumerate(request.rows_B.tolist()):
            try:
                pixels_BHWC[place] = self._image(row, request.cursor.epoch)
            except SampleError as error:
                if self._on_bad_sample == "fail":
                    raise
                faults[place] = str(error)
        # The bytes stay interleaved: [B, C, H, W] in channels_last order is a view, and what GPUs compute on.
        return Decoded(request, images_BHWC.permute(0, 3, 1, 2), faults)

    def _image(self, row: int, epoch: int) -> NDArray[np.uint8]:
        manifest = self._reader.manifest
        jpeg = self._reader.read(row)
        seed = derive(self._seed, "augment", epoch, int(manifest.sample_ids_N[row]))
        try:
            return self._transform(jpeg, seed)
        except SampleError as error:
            raise SampleError(f"{describe(manifest, row)} {error}, and build the dataset again") from error


def _empty_images(num_samples: int, size_px: int) -> Tensor:
    """Return zeros [B, H, W, 3]; a loader worker takes them from shared memory, so that sending them copies nothing."""
    shape = (num_samples, size_px, size_px, 3)
    if torch.utils.data.get_worker_info() is None:
        return torch.zeros(shape, dtype=torch.uint8)
    storage = torch.UntypedStorage._new_shared(num_samples * size_px * size_px * 3)  # type: ignore[no-untyped-call]
    return torch.empty(0, dtype=torch.uint8).set_(storage, 0, shape)  # type: ignore[call-overload, no-any-return]
