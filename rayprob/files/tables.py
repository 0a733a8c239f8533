"""Parquet files, read as validated tables; all damage that pyarrow finds raises the same kind of error."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from rayprob.errors import RayprobError, one_line

# A damaged page raises an OSError in pyarrow; a damaged schema may contain text that is not UTF-8.
DAMAGE = (pa.ArrowException, OSError, UnicodeDecodeError, OverflowError)


def parse_table(
    content: bytes,
    what: str,
    *,
    columns: Sequence[str] | None = None,
    dictionaries: Sequence[str] = (),
    use_threads: bool = True,
    error: type[RayprobError],
    remedy: str,
) -> pa.Table:
    """Return the table in a Parquet file, or some `columns` of it. Raises `error` if it is damaged.

    `what` names the file. Missing columns are left out, text is valid UTF-8, and list offsets are consistent.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(content), read_dictionary=list(dictionaries))
        table = file.read(columns=list(columns) if columns is not None else None, use_threads=use_threads)
        table.validate(full=True)
    except DAMAGE as reason:
        raise error(f"{what} cannot be read as Parquet ({one_line(reason)}); {remedy}") from reason
    return table


def require_schema(table: pa.Table, schema: pa.Schema, what: str, *, error: type[RayprobError], remedy: str) -> None:
    """Raise `error` unless a table has the columns of a schema, with its types, and no missing values."""
    for name in schema.names:
        if table.column_names.count(name) != 1:
            raise error(f"{what} has no column {name}; its columns are {', '.join(table.column_names)}; {remedy}")
        column, stated = table[name], schema.field(name).type
        found = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if found != stated:
            raise error(f"{what}: column {name} has type {found}, not {stated}; {remedy}")
        if column.null_count or (pa.types.is_list(stated) and any(chunk.flatten().null_count for chunk in column.chunks)):
            raise error(f"{what}: column {name} has missing values; {remedy}")
