"""Parquet tables and safetensors by their structure, so that what is wrong lies behind a file that opens."""

import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.numpy
from hypothesis import strategies as st

from tests.fuzz.mutate_json import changed, encoded
from tests.fuzz.odd import values

Draw = Callable[[st.SearchStrategy[Any]], Any]
OTHER_TYPES = (pa.string(), pa.float64(), pa.int8(), pa.int32(), pa.uint64(), pa.bool_(), pa.binary(), pa.null(), pa.date32())
KINDS = ("drop", "rename", "retype", "nulls", "constant", "lists", "rows", "empty", "repeat", "reorder", "metadata", "split")


@st.composite
def other_table(draw: Draw, table: pa.Table) -> pa.Table:
    """Return a table with one or two things in it that the writer would never write."""
    for _ in range(draw(st.integers(1, 2))):
        if table.num_columns:
            table = _changed(draw, table, draw(st.sampled_from(KINDS)))
    return table


def _changed(draw: Draw, table: pa.Table, kind: str) -> pa.Table:
    place = draw(st.integers(0, table.num_columns - 1))
    name, column, metadata = table.column_names[place], table.column(place), table.schema.metadata
    if kind == "drop":
        return table.remove_column(place)
    if kind == "rename":
        return table.rename_columns([*table.column_names[:place], "other", *table.column_names[place + 1 :]])
    if kind == "rows":
        return table.slice(draw(st.integers(0, 3)), draw(st.integers(0, table.num_rows)))
    if kind == "empty":
        return table.slice(0, 0)
    if kind == "repeat":
        return pa.concat_tables([table, table])
    if kind == "reorder":
        return table.select([*table.column_names[place:], *table.column_names[:place]])
    if kind == "metadata":
        return table.replace_schema_metadata(draw(_other_metadata(metadata)))
    if kind == "split":
        return pa.concat_tables([table.slice(0, 1), table.slice(1)])
    other = _other_column(draw, kind, column)
    return table if other is None else table.set_column(place, name, other)


def _other_column(draw: Draw, kind: str, column: pa.ChunkedArray) -> Any:
    rows, old = column.to_pylist(), column.type
    try:
        if kind == "nulls":
            for row in draw(st.lists(st.integers(0, max(0, len(rows) - 1)), min_size=1, max_size=3)):
                rows[row : row + 1] = [None]
            return pa.array(rows, old)
        if kind == "constant":
            return pa.array([draw(values)] * len(rows))
        if kind == "lists":
            odd = draw(st.sampled_from([[], [-1], [0, 0], [10**6], [None], [2**31 - 1], [3, 1]]))
            return pa.array([odd if draw(st.booleans()) else row for row in rows], old)
        return column.cast(draw(st.sampled_from(OTHER_TYPES)))
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        return None  # there is no such column


def _other_metadata(metadata: dict[bytes, bytes] | None) -> st.SearchStrategy[dict[bytes, bytes] | None]:
    if not metadata:
        return st.just({b"rayprob": b"{}"})
    key, text = next(iter(metadata.items()))
    documents = st.one_of(changed(json.loads(text)).map(encoded), st.binary(max_size=8))
    return st.one_of(st.none(), documents.map(lambda text: {key: text}))


def table_mutants(content: bytes) -> st.SearchStrategy[bytes]:
    """Return a Parquet file that opens and holds another table."""
    table = pq.read_table(pa.BufferReader(content))
    return other_table(table).map(_written)


def _written(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    try:
        pq.write_table(table, buffer)
    except (pa.ArrowException, OSError):
        return b"PAR1"  # a type that Parquet has not
    return buffer.getvalue()


def safetensors_mutants(content: bytes) -> st.SearchStrategy[bytes]:
    """Return a safetensors file with another header, another length of it, or other data."""
    size = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]

    def joined(header: Any, data: bytes = data) -> bytes:
        text = encoded(header)
        return len(text).to_bytes(8, "little") + text + data

    lengths = st.sampled_from([0, 1, size - 1, size + 1, 2**31, 2**63, 2**64 - 1, len(content)])
    return st.one_of(
        changed(header).map(joined),
        lengths.map(lambda length: length.to_bytes(8, "little") + content[8:]),
        st.integers(0, len(data)).map(lambda end: joined(header, data[:end])),
        st.sampled_from([b"\xff", b"\x7f", b"\0"]).map(lambda byte: joined(header, byte * len(data))),
    )


def prior_mutants(content: bytes) -> st.SearchStrategy[bytes]:
    """Return a file of a label prior with other numbers, or other facts of it."""
    arrays = safetensors.numpy.load(content)
    size = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + size])["__metadata__"]
    odd = st.sampled_from([np.nan, np.inf, -1.0, 0.0, 1.0, 2.0, 1e-45, 1e38])

    def filled(name: str, place: int, value: float) -> bytes:
        array = arrays[name].copy()
        array.flat[place % array.size] = value
        return safetensors.numpy.save({**arrays, name: array}, metadata)

    def reshaped(name: str, shape: tuple[int, ...], kind: str) -> bytes:
        return safetensors.numpy.save({**arrays, name: np.full(shape, 0.5, kind)}, metadata)

    def told(document: Any) -> bytes:
        return safetensors.numpy.save(arrays, {"rayprob_prior": encoded(document).decode("utf-8", "replace")})

    names, shapes = (
        st.sampled_from(sorted(arrays)),
        st.sampled_from([(), (0,), (1,), (2,), (2, 1), (0, 3), (2, 3, 1), (2, 300)]),
    )
    return st.one_of(
        st.builds(filled, names, st.integers(0, 7), odd),
        st.builds(reshaped, names, shapes, st.sampled_from(["f4", "f8", "i8", "?"])),
        changed(json.loads(metadata["rayprob_prior"])).map(told),
        names.map(lambda name: safetensors.numpy.save({key: arrays[key] for key in arrays if key != name}, metadata)),
    )
