"""Parquet files: what opens has the types that were asked for and no value missing; what is damaged says so."""

import io
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayprob.errors import MetricError
from rayprob.files.tables import parse_table, require_schema

SCHEMA = pa.schema([("id", pa.int64()), ("labels", pa.list_(pa.int32()))])
TABLE = pa.table({"id": [1, 2], "labels": [[0], [1, 2]]}, schema=SCHEMA)


def written(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def test_every_cut_and_every_wrong_byte_is_an_error_or_a_table() -> None:
    content = written(TABLE)
    for place in range(0, len(content), 3):
        for damaged in (content[:place], content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]):
            with suppress(MetricError):
                assert isinstance(parse_table(damaged, "t.parquet", error=MetricError, remedy="fix it"), pa.Table)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (TABLE.drop_columns(["id"]), "t.parquet has no column id; its columns are labels; fix it"),
        (TABLE.set_column(0, "id", pa.array(["1", "2"])), "t.parquet: column id has type string, not int64; fix it"),
        (TABLE.set_column(0, "id", pa.array([1, None], pa.int64())), "t.parquet: column id has missing values; fix it"),
        (TABLE.set_column(1, "labels", pa.array([[0], None], SCHEMA.field(1).type)), "column labels has missing values"),
        (TABLE.set_column(1, "labels", pa.array([[0], [None]], SCHEMA.field(1).type)), "column labels has missing values"),
    ],
)
def test_another_type_and_a_missing_value_are_named(table: pa.Table, message: str) -> None:
    require_schema(
        parse_table(written(TABLE), "t.parquet", error=MetricError, remedy="fix it"), SCHEMA, "t", error=MetricError, remedy=""
    )
    with pytest.raises(MetricError, match=message):
        require_schema(table, SCHEMA, "t.parquet", error=MetricError, remedy="fix it")


def test_text_that_is_not_utf8_is_damage() -> None:
    text = pa.StringArray.from_buffers(1, pa.array([0, 1], pa.int32()).buffers()[1], pa.py_buffer(b"\xff"))
    with pytest.raises(MetricError, match=r"^t\.parquet cannot be read as Parquet \(.*\); fix it$"):
        parse_table(written(pa.table({"key": text})), "t.parquet", error=MetricError, remedy="fix it")
