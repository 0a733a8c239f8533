"""The images of a source as the build plans them: sample ids, where the bytes lie, and what is known of each. N images."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rayprob.data.manifest.columns import to_array
from rayprob.data.sources.batch_file import BatchFile
from rayprob.data.sources.rows import ALONE, LABELS, values

# The fields of SourceImage, in their order.
IMAGES = pa.schema(
    [
        ("sample_id", pa.int64()),
        ("file_name", pa.string()),
        ("height_px", pa.int64()),
        ("width_px", pa.int64()),
        ("labels", LABELS),
        ("label_areas_px2", pa.list_(pa.float64())),
        ("unknown_labels", LABELS),
        ("size_bytes", pa.int64()),
        ("absent_labels", LABELS),
        ("container", pa.string()),
        ("offset_bytes", pa.int64()),
        ("group", pa.int64()),
    ]
)


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One image of the source: where it lies and what its annotations state. Labels are columns of the dataset, ascending."""

    sample_id: int
    file_name: str
    height_px: int  # as declared; 0 where the source does not say
    width_px: int
    labels: tuple[int, ...]
    label_areas_px2: tuple[float, ...]  # beside `labels`: the area of the largest object with that label
    unknown_labels: tuple[int, ...]
    size_bytes: int = 0
    absent_labels: tuple[int, ...] = ()  # of a split whose other labels are unknown
    container: str = ""  # the file that holds the image, where that is not the image itself: an absolute path or URI
    offset_bytes: int = 0  # of the image in its container
    group: int = ALONE  # images of one group are in one split

    @property
    def values(self) -> list[Any]:
        """All values, those that 0.1 did not know only where they say something: shards of its builds are continued."""
        later = [self.absent_labels, self.container, self.offset_bytes]
        return [
            self.sample_id,
            self.file_name,
            self.height_px,
            self.width_px,
            self.labels,
            self.label_areas_px2,
            self.unknown_labels,
            self.size_bytes,
            *(later if any(later) else ()),
        ]


class SourceImages(Sequence[SourceImage]):
    """The images of a split in the order of the source: ids and sizes in memory, all else in batches of IMAGES on disk."""

    def __init__(self, batches: BatchFile, ids_N: NDArray[np.int64], size_bytes_N: NDArray[np.int64]) -> None:
        self.batches = batches
        self.ids_N = ids_N
        self.size_bytes_N = size_bytes_N

    @classmethod
    def of(cls, images: Sequence[SourceImage]) -> "SourceImages":
        """Return images that are in memory as those of a split."""
        batches = BatchFile(IMAGES)
        columns = [[getattr(image, field.name) for image in images] for field in IMAGES]
        arrays = [to_array(column, field.type) for column, field in zip(columns, IMAGES, strict=True)]
        batches.append(pa.RecordBatch.from_arrays(arrays, schema=IMAGES))
        ids, sizes = ([image.sample_id for image in images], [image.size_bytes for image in images])
        return cls(batches, np.array(ids, np.int64), np.array(sizes, np.int64))

    def __len__(self) -> int:
        return len(self.ids_N)

    def __iter__(self) -> Iterator[SourceImage]:
        for batch in self.batches:
            yield from images_in(batch)

    @overload
    def __getitem__(self, place: int) -> SourceImage: ...
    @overload
    def __getitem__(self, place: slice) -> list[SourceImage]: ...
    def __getitem__(self, place: int | slice) -> SourceImage | list[SourceImage]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        batch, row = self.batches.row(range(len(self))[place])
        return images_in(batch.slice(row, 1))[0]


def images_in(batch: pa.RecordBatch) -> tuple[SourceImage, ...]:
    """Return the images in a batch of IMAGES."""
    make: Callable[..., SourceImage] = SourceImage
    return tuple(map(make, *map(values, batch.columns)))
