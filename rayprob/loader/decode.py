"""A request for a micro batch becomes images. B samples."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

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
    """One micro batch: its rows, and the cursor of its global batch."""

    cursor: Cursor
    rows_B: NDArray[np.int64]


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
        reader: SampleReader,
        transform: Transform,
        *,
        reading: ImageReading,
        seed: int,
        on_bad_sample: Literal["fail", "skip"],
    ) -> None:
        self.size_px = transform.size_px
        self._reader = reader
        self._transform = transform
        self._reading = reading
        self._seed = seed
        self._on_bad_sample = on_bad_sample

    def decode_into(self, pixels_BHWC: NDArray[np.uint8], located: Located) -> dict[int, str]:
        """Write the images of a request; return the errors of bad samples, whose pixels are then 0.

        Raises SampleError for a bad sample with on_bad_sample: fail, DatasetError and StorageError for a bad shard.
        """
        faults: dict[int, str] = {}
        for place, sample in enumerate(located.samples):
            try:
                self._write_image(pixels_BHWC[place], sample, located.request.cursor.epoch)
            except SampleError as error:
                if self._on_bad_sample == "fail":
                    raise
                pixels_BHWC[place] = 0
                faults[place] = str(error)
        return faults

    def _write_image(self, pixels_HWC: NDArray[np.uint8], sample: Sample, epoch: int) -> None:
        content = self._reader.read(sample)
        seed = derive(self._seed, "augment", epoch, sample.sample_id)
        try:
            image_HWC = self._transform(EncodedImage(content, self._reading), seed, pixels_HWC)
        except SampleError as error:
            raise SampleError(f"{self._reader.describe(sample)} {error}, and build the dataset again") from error
        if image_HWC is not pixels_HWC:
            pixels_HWC[...] = image_HWC
