"""The output of every format: its labels, and Arrow batches with a row per image: where it is, and its labels."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rayprob.data.manifest.columns import numbers, to_array
from rayprob.errors import SourceError, one_line
from rayprob.labels import LabelSpace

Rest = Literal["absent", "unknown"]
BATCH_ROWS = 1024
BATCH_CONTENT_BYTES = 2**23
ALONE = 0  # the group of images that may be in any split
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
    """One image as its source describes it. Labels are columns of the source's label space, ascending."""

    key: str  # the image's name or id in the source; keys that are all integers become sample ids
    file_name: str  # below the images folder, without suffix if the source has none; or within `container`
    labels: tuple[int, ...] = ()  # present
    absent_labels: tuple[int, ...] = ()  # that the source states to be absent
    unknown_labels: tuple[int, ...] = ()  # if the source's rest is absent: labels that it does not know
    label_areas_px2: tuple[float, ...] = ()  # parallel to `labels`: the area of each one's largest object; () without areas
    height_px: int = 0  # as declared; 0 if the source does not declare it
    width_px: int = 0
    other_names: tuple[str, ...] = ()  # that the file may have instead
    container: str = ""  # the file that contains the image among others, a path or URI
    offset_bytes: int = 0  # of the image in its container
    size_bytes: int = 0
    content: bytes = b""  # the image itself, if the source's own files contain images
    group: int = ALONE  # a hash of the name of the group whose images share a split


@dataclass(frozen=True)
class Stated:
    """The labels of a source's images. `rest` is the state of labels that a row does not list.

    The rows can be read once. `dropped` counts, by reason, the rows that the reader left out; it is complete once all are read.
    """

    label_space: LabelSpace
    rest: Rest
    batches: Iterable[pa.RecordBatch]  # of ROWS, or without some columns for which ImageRow has a default
    images: str  # the folder or URI that file names count from
    dropped: dict[str, int]
    # Whether the source lists its labels, as COCO's categories do. Other sources have the labels that occur in their rows.
    is_declared: bool = True
    keys_note: str = ""  # why the keys are not those that the source itself gives its images


def batches_of(rows: Iterable[ImageRow]) -> Iterator[pa.RecordBatch]:
    """Yield rows as batches of ROWS: fewer rows where these contain images."""
    some: list[ImageRow] = []
    content_bytes = 0
    for row in rows:
        some.append(row)
        content_bytes += len(row.content)
        if len(some) == BATCH_ROWS or content_bytes >= BATCH_CONTENT_BYTES:
            yield batch_of(some)
            some, content_bytes = [], 0
    if some:
        yield batch_of(some)


def batch_of(rows: Sequence[ImageRow]) -> pa.RecordBatch:
    """Return one or more rows as a batch of ROWS."""
    columns = dict(zip(ImageRow._fields, zip(*rows, strict=True), strict=True))
    return pa.RecordBatch.from_arrays([to_array(columns[field.name], field.type) for field in ROWS], schema=ROWS)


def in_full(batches: Iterable[pa.RecordBatch], described: str) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a format as batches of ROWS; columns that it leaves out have the defaults of ImageRow.

    Raises SourceError, with the source as `described`, if a row has no key or file name, or if a column cannot be converted.
    """
    for batch in batches:
        if batch.num_rows:
            yield batch if batch.schema.equals(ROWS) else _in_full(batch, described)


def _in_full(batch: pa.RecordBatch, described: str) -> pa.RecordBatch:
    columns = []
    for field in ROWS:
        if field.name in batch.schema.names:
            columns.append(_converted(batch.column(field.name), field, described))
        elif field.name in ImageRow._field_defaults:
            columns.append(nothing(field.type, batch.num_rows))
        else:
            found = ", ".join(batch.schema.names)
            raise SourceError(f"{described}: its format yields rows without the column {field.name}; they have {found}")
    return pa.RecordBatch.from_arrays(columns, schema=ROWS)


def _converted(column: pa.Array, field: pa.Field, described: str) -> pa.Array:
    try:
        found = column.cast(field.type)
    except pa.ArrowException as error:
        raise SourceError(
            f"{described}: its format yields the column {field.name} as {column.type}, not {field.type}: {one_line(error)}"
        ) from error
    if found.null_count or (pa.types.is_list(found.type) and found.flatten().null_count):
        raise SourceError(
            f"{described}: its format yields missing values in the column {field.name}; leave the column out, or give "
            f"{ImageRow._field_defaults.get(field.name, 'a name')!r} where there is nothing"
        )
    return found


def nothing(kind: pa.DataType, num_rows: int) -> pa.Array:
    """Return empty lists, strings or bytes, or zeros."""
    if pa.types.is_list(kind):
        return pa.ListArray.from_arrays(to_array(np.zeros(num_rows + 1), pa.int32()), to_array([], kind.value_type))
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return pa.Array.from_buffers(kind, num_rows, [None, pa.py_buffer(np.zeros(num_rows + 1, np.int32)), pa.py_buffer(b"")])
    return to_array(np.zeros(num_rows), kind)


def rows_of(batches: Iterable[pa.RecordBatch]) -> Iterator[ImageRow]:
    """Yield the rows in batches of ROWS, the inverse of `batches_of`."""
    for batch in batches:
        yield from map(ImageRow, *(values(batch.column(name)) for name in ImageRow._fields))


def values(column: pa.Array) -> Iterable[Any]:
    """Return the values of a column, lists as tuples; `to_pylist` is slow for lists."""
    if not pa.types.is_list(column.type):
        return column.to_pylist() if column.type in (pa.string(), pa.binary()) else numbers(column).tolist()  # type: ignore[no-any-return]
    flat = list(values(column.flatten()))
    starts = numbers(column.offsets).tolist()
    return [tuple(flat[start - starts[0] : end - starts[0]]) for start, end in pairwise(starts)] if flat else [()] * len(column)


def lengths(lists: pa.ListArray) -> NDArray[np.int32]:
    """Return the length of each list [N]."""
    return np.diff(numbers(lists.offsets))


def has_text(column: pa.Array) -> NDArray[np.bool_]:
    """Return which strings or bytes are not empty [N]."""
    offsets = np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + len(column) + 1]
    found: NDArray[np.bool_] = np.diff(offsets) > 0
    return found
