"""The images of a source as the build plans them: sample ids, where the bytes are, and their labels. N images."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rayprob.data.manifest.columns import Ragged, numbers, to_array
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
    """One image of the source: where it is stored, and its labels, which are columns of the dataset in ascending order."""

    sample_id: int
    file_name: str
    height_px: int  # as declared; 0 if the source does not declare it
    width_px: int
    labels: tuple[int, ...]
    label_areas_px2: tuple[float, ...]  # parallel to `labels`: the area of the largest object with that label
    unknown_labels: tuple[int, ...]
    size_bytes: int = 0
    absent_labels: tuple[int, ...] = ()  # only in a split whose other labels are unknown
    container: str = ""  # the file that contains the image if it is not a file of its own: an absolute path or URI
    offset_bytes: int = 0  # of the image in its container
    group: int = ALONE  # images of one group are in one split

    @property
    def values(self) -> list[Any]:
        """All values; fields that rayprob 0.1 did not have only if they are set, so that builds it started can be continued."""
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
    """The images of a split in the order of the source: ids and sizes in memory, the rest in batches of IMAGES on disk.

    `groups_N` is None if no image has a group.
    """

    def __init__(
        self,
        batches: BatchFile,
        ids_N: NDArray[np.int64],
        size_bytes_N: NDArray[np.int64],
        groups_N: NDArray[np.int64] | None = None,
    ) -> None:
        self.batches = batches
        self.ids_N = ids_N
        self.size_bytes_N = size_bytes_N
        self.groups_N = groups_N

    @classmethod
    def of(cls, images: Sequence[SourceImage]) -> "SourceImages":
        """Return the images of a split from images in memory."""
        batches = BatchFile(IMAGES)
        columns = [[getattr(image, field.name) for image in images] for field in IMAGES]
        arrays = [to_array(column, field.type) for column, field in zip(columns, IMAGES, strict=True)]
        batches.append(pa.RecordBatch.from_arrays(arrays, schema=IMAGES))
        every = [[image.sample_id, image.size_bytes, image.group] for image in images]
        ids_N, sizes_N, groups_N = np.array(every, np.int64).reshape(-1, 3).T
        return cls(batches, ids_N, sizes_N, groups_N if (groups_N != ALONE).any() else None)

    @property
    def labels(self) -> Ragged:
        """The labels present in each image, read from disk."""
        columns = [batch.column("labels") for batch in self.batches]
        return Ragged.from_column(pa.chunked_array(columns, LABELS))

    def containers(self) -> tuple[list[str], NDArray[np.int32], NDArray[np.int64]]:
        """Return the distinct containers, and for each image the number of its container and its offset there [N], [N].

        They are read from disk; 12 bytes per image stay in memory.
        """
        number_of: dict[str, int] = {}
        container_N = np.empty(len(self), np.int32)
        offset_bytes_N = np.empty(len(self), np.int64)
        for first, batch in self.batches.with_starts():
            rows = slice(first, first + batch.num_rows)
            encoded = batch.column("container").dictionary_encode()
            numbers_here = [number_of.setdefault(one, len(number_of)) for one in encoded.dictionary.to_pylist()]
            container_N[rows] = np.array(numbers_here, np.int32)[numbers(encoded.indices)]
            offset_bytes_N[rows] = numbers(batch.column("offset_bytes"))
        return list(number_of), container_N, offset_bytes_N

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
