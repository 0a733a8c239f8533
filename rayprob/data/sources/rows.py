"""What every format gives: its labels, and Arrow batches of rows that say where each image lies and what is known of it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rayprob.data.manifest.columns import numbers, to_array
from rayprob.labels import LabelSpace

Rest = Literal["absent", "unknown"]
BATCH_ROWS = 1024
ALONE = 0  # the group of an image that no other one has to share a split with
LABELS = pa.list_(pa.int32())
ROWS = pa.schema(
    [
        ("key", pa.string()),
        ("file_name", pa.string()),
        ("other_names", pa.list_(pa.string())),
        ("container", pa.string()),
        ("labels", LABELS),
        ("absent_labels", LABELS),
        ("unknown_labels", LABELS),
        ("label_areas_px2", pa.list_(pa.float64())),
        ("height_px", pa.int64()),
        ("width_px", pa.int64()),
        ("offset_bytes", pa.int64()),
        ("size_bytes", pa.int64()),
        ("content", pa.binary()),
        ("group", pa.int64()),
    ]
)


class ImageRow(NamedTuple):
    """One image as a source states it. Labels are columns of the source's label space, ascending."""

    key: str  # what the source calls the image; keys that are all integers become sample ids
    file_name: str  # below the images folder, without its suffix where the source gives none; or a name within `container`
    labels: tuple[int, ...] = ()  # present
    absent_labels: tuple[int, ...] = ()  # that the source states to be absent
    unknown_labels: tuple[int, ...] = ()  # of a source whose rest is absent: those it does not know
    label_areas_px2: tuple[float, ...] = ()  # beside `labels`: the area of the largest object with that label; () without areas
    height_px: int = 0  # as declared; 0 where the source does not say
    width_px: int = 0
    other_names: tuple[str, ...] = ()  # under which the file may lie instead
    container: str = ""  # the file that holds the image among others, a path or URI
    offset_bytes: int = 0  # of the image in its container
    size_bytes: int = 0
    content: bytes = b""  # the image itself, of a source that holds images in its own files
    group: int = ALONE  # a hash of the name of the group whose images share a split


@dataclass(frozen=True)
class Stated:
    """What a source states. `rest` is what holds for the labels that a row lists nowhere.

    The rows are read once. `dropped` counts, by reason, the rows that the reader left out, and is whole when they were read.
    """

    label_space: LabelSpace
    rest: Rest
    batches: Iterable[pa.RecordBatch]  # of ROWS
    images: str  # the folder or URI that file names count from
    dropped: dict[str, int]
    # Whether the source lists its labels, as COCO's categories do. Labels of others are those that occur in their rows.
    is_declared: bool = True


def batches_of(rows: Iterable[ImageRow]) -> Iterator[pa.RecordBatch]:
    """Yield rows as batches of ROWS."""
    waiting = iter(rows)
    while some := list(islice(waiting, BATCH_ROWS)):
        yield batch_of(some)


def batch_of(rows: Sequence[ImageRow]) -> pa.RecordBatch:
    """Return rows, at least one, as a batch of ROWS."""
    columns = dict(zip(ImageRow._fields, zip(*rows, strict=True), strict=True))
    return pa.RecordBatch.from_arrays([to_array(columns[field.name], field.type) for field in ROWS], schema=ROWS)


def rows_of(batches: Iterable[pa.RecordBatch]) -> Iterator[ImageRow]:
    """Yield the rows in batches of ROWS, the inverse of `batches_of`."""
    for batch in batches:
        yield from map(ImageRow, *(values(batch.column(name)) for name in ImageRow._fields))


def values(column: pa.Array) -> Iterable[Any]:
    """Return the values of a column, lists as tuples, for which `to_pylist` is slow."""
    if not pa.types.is_list(column.type):
        return column.to_pylist() if column.type in (pa.string(), pa.binary()) else numbers(column).tolist()  # type: ignore[no-any-return]
    flat = list(values(column.flatten()))
    starts = numbers(column.offsets).tolist()
    return [tuple(flat[start - starts[0] : end - starts[0]]) for start, end in pairwise(starts)] if flat else [()] * len(column)


def with_column(batch: pa.RecordBatch, name: str, column: pa.Array) -> pa.RecordBatch:
    """Return rows with another column of that name."""
    arrays = [column if field == name else batch.column(field) for field in batch.schema.names]
    return pa.RecordBatch.from_arrays(arrays, schema=batch.schema)


def lengths(lists: pa.ListArray) -> NDArray[np.int32]:
    """Return how many values each list holds [N]."""
    return np.diff(numbers(lists.offsets))


def has_text(column: pa.Array) -> NDArray[np.bool_]:
    """Return which strings or bytes are not empty [N]."""
    offsets = np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + len(column) + 1]
    found: NDArray[np.bool_] = np.diff(offsets) > 0
    return found
