"""The columns of a manifest, as tables of Parquet and as arrays. N rows."""

from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

SCHEMA = pa.schema(
    [
        ("sample_id", pa.int64()),
        ("key", pa.string()),
        ("split", pa.string()),
        ("shard", pa.string()),
        ("offset_bytes", pa.int64()),
        ("size_bytes", pa.int64()),
        ("height_px", pa.int32()),
        ("width_px", pa.int32()),
        ("labels", pa.list_(pa.int32())),
        ("unknown_labels", pa.list_(pa.int32())),
        ("label_areas_px2", pa.list_(pa.float32())),
        ("crc32", pa.uint32()),
    ]
)

# For datasets with a split in which unlisted labels are unknown: its rows list absent labels, rows of other splits list unknown
# ones.
SCHEMA_WITH_ABSENT = SCHEMA.append(pa.field("absent_labels", pa.list_(pa.int32())))


def to_table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema = SCHEMA) -> pa.Table:
    """Return the rows of a manifest as a table of the schema."""
    return pa.Table.from_arrays([to_array([row[field.name] for row in rows], field.type) for field in schema], schema=schema)


def with_absent(table: pa.Table) -> pa.Table:
    """Return a table of SCHEMA_WITH_ABSENT, with empty lists if the table has no column of absent labels."""
    if "absent_labels" in table.column_names:
        return table
    return table.append_column(SCHEMA_WITH_ABSENT.field("absent_labels"), to_array([()] * len(table), pa.list_(pa.int32())))


def to_array(values: Sequence[Any] | NDArray[Any], kind: pa.DataType) -> pa.Array:
    """Return lists, strings, bytes or numbers as an array of that type."""
    # pa.array would import pandas, half a second in each process that writes shards.
    if pa.types.is_list(kind):
        return pa.ListArray.from_arrays(_starts(values), to_array(list(chain.from_iterable(values)), kind.value_type))
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        encoded = [value.encode() if isinstance(value, str) else value for value in values]
        return pa.Array.from_buffers(kind, len(values), [None, _starts(encoded).buffers()[1], pa.py_buffer(b"".join(encoded))])
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(np.array(values, dtype=kind.to_pandas_dtype()))])


def _starts(lists: Iterable[Sized]) -> pa.Array:
    """Return the start of each list if all are concatenated, and the end of the last one."""
    return to_array(list(accumulate(map(len, lists), initial=0)), pa.int32())


def whole(column: pa.ChunkedArray) -> pa.Array:
    """Return a column of a table in one piece."""
    joined = column.combine_chunks()
    if isinstance(joined, pa.ChunkedArray):
        joined = pa.concat_arrays(joined.chunks) if joined.num_chunks else to_array([], joined.type)
    return joined


def numbers(column: pa.ChunkedArray | pa.Array) -> NDArray[Any]:
    """Return a column of numbers without nulls as an array."""
    # np.asarray would import pandas, half a second and 40 MiB in each process that reads a manifest.
    array = whole(column) if isinstance(column, pa.ChunkedArray) else column
    found: NDArray[Any] = np.frombuffer(array.buffers()[1] or b"", dtype=_numpy_type(array.type))
    return found[array.offset : array.offset + len(array)]


def _numpy_type(kind: pa.DataType) -> np.dtype[Any]:
    return np.dtype(("V", kind.byte_width)) if pa.types.is_fixed_size_binary(kind) else np.dtype(kind.to_pandas_dtype())


@dataclass(frozen=True)
class Ragged:
    """N lists of numbers in two arrays: list n is `values[starts[n]:starts[n + 1]]`."""

    values: NDArray[Any]
    starts: NDArray[np.int64]

    @classmethod
    def from_column(cls, column: pa.ChunkedArray) -> "Ragged":
        """Create from a list column of a table."""
        lists = whole(column)
        starts = numbers(lists.offsets).astype(np.int64)
        return cls(numbers(lists.flatten()), starts - starts[0])

    @classmethod
    def from_strings(cls, column: pa.ChunkedArray) -> "Ragged":
        """Create from a column of strings: the numbers of a string are its bytes in UTF-8."""
        strings = whole(column)
        _, offsets, text = strings.buffers()
        starts = np.frombuffer(offsets, dtype=np.int32)[strings.offset : strings.offset + len(strings) + 1].astype(np.int64)
        text = np.frombuffer(text if text is not None else b"", dtype=np.uint8)
        return cls(text[starts[0] : starts[-1]], starts - starts[0])

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> NDArray[Any]:
        return self.values[self.starts[row] : self.starts[row + 1]]

    def text(self, row: int) -> str:
        """Decode the string whose bytes are in a list."""
        return self[row].tobytes().decode()

    def copy_of(self, first: int, end: int) -> "Ragged":
        """Return the lists from `first` on and before `end`, in memory of their own."""
        starts = self.starts[first : end + 1]
        return Ragged(self.values[starts[0] : starts[-1]].copy(), starts - starts[0])

    def take(self, rows: NDArray[np.int64]) -> "Ragged":
        """Return the lists of some rows."""
        lengths = self.starts[rows + 1] - self.starts[rows]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        # The index of every value: the start of its list plus its offset in the list.
        into = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
        return Ragged(self.values[np.repeat(self.starts[rows], lengths) + into], starts)

    def to_bool(self, rows: NDArray[np.int64], num_columns: int) -> NDArray[np.bool_]:
        """Return bool [len(rows), num_columns], true if the row's list contains the column."""
        dense = np.zeros((len(rows), num_columns), dtype=bool)
        taken = self.take(rows)
        dense[np.repeat(np.arange(len(rows)), np.diff(taken.starts)), taken.values] = True
        return dense


def count_labels(
    labels: Ragged, others: Ragged, num_labels: int, rest: str = "absent"
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count the rows in which each label is present and known, and those in which it is known [L], [L].

    `rest` is the state of labels that a row does not list; `others` are the unknown labels if it is absent, else the absent.
    """
    if rest == "unknown":  # without a mask of rows and labels, which may be large
        present_L, absent_L = (np.bincount(some.values, minlength=num_labels) for some in (labels, others))
        return present_L, present_L + absent_L
    rows = np.arange(len(labels))
    known_NL = ~others.to_bool(rows, num_labels)
    return (labels.to_bool(rows, num_labels) & known_NL).sum(axis=0), known_NL.sum(axis=0)
