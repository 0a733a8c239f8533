"""A request for a micro batch becomes images. B samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rayprob.arrays import Rows
from rayprob.data.manifest.dataset import Sample
from rayprob.errors import SampleError
from rayprob.images.decode import EncodedImage
from rayprob.images.reading import ImageReading
from rayprob.loader.augment import Transform
from rayprob.loader.order import Cursor
from rayprob.loader.reader import SampleReader
from rayprob.seeds import derive


@dataclass(frozen=True)
class Request:
    """One micro batch: its rows, the cursor of its global batch, and how often each row's dataset was gone through before."""

    cursor: Cursor
    rows_B: Rows
    turns_B: Rows


@dataclass(frozen=True)
class Located:
    """A request with the locations of its samples: everything that a loader worker needs from the manifest."""

    request: Request
    samples: list[Sample]


@dataclass(frozen=True)
class Decoded:
    """The images of a request, uint8 [B, 3, size_px, size_px], and the errors of bad samples."""

    request: Request
    images_BCHW: Tensor
    faults: dict[int, str]


class Decoder:
    """Reads, decodes and transforms the samples of requests; it can be pickled to a loader worker."""

    def __init__(
        self,
        readers: Sequence[SampleReader],
        transform: Transform,
        *,
        readings: Sequence[ImageReading],
        seed: int,
        on_bad_sample: Literal["fail", "skip"],
    ) -> None:
        """Read the samples of each member by its reader, and their images by its reading."""
        self.size_px = transform.size_px
        self._readers = readers
        self._transform = transform
        self._readings = readings
        self._seed = seed
        self._on_bad_sample = on_bad_sample

    def decode_into(self, pixels_BHWC: NDArray[np.uint8], located: Located) -> dict[int, str]:
        """Write the images of a request; return the errors of bad samples, whose pixels are then 0.

        Raises SampleError for a bad sample with on_bad_sample: fail, DatasetError and StorageError for a bad shard.
        """
        faults: dict[int, str] = {}
        for place, sample in enumerate(located.samples):
            try:
                self._write_image(pixels_BHWC[place], sample, int(located.request.turns_B[place]))
            except SampleError as error:
                if self._on_bad_sample == "fail":
                    raise
                pixels_BHWC[place] = 0
                faults[place] = str(error)
        return faults

    def _write_image(self, pixels_HWC: NDArray[np.uint8], sample: Sample, turn: int) -> None:
        reader = self._readers[sample.member]
        content = reader.read(sample)
        seed = derive(self._seed, "augment", turn, sample.sample_id)
        try:
            image_HWC = self._transform(EncodedImage(content, self._readings[sample.member]), seed, pixels_HWC)
        except SampleError as error:
            raise SampleError(f"{reader.describe(sample)} {error}, and build the dataset again") from error
        if image_HWC is not pixels_HWC:
            pixels_HWC[...] = image_HWC
