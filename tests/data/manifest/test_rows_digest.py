"""A digest of rows depends on their values, and not on how tables divide them."""

from typing import Any

import pyarrow as pa
import pytest

from rayprob.data.manifest.columns import SCHEMA, to_table
from rayprob.data.manifest.rows_digest import RowsDigest

ROW: dict[str, Any] = dict.fromkeys(SCHEMA.names, 1) | dict.fromkeys(("key", "split", "shard"), "a")
LISTS = ("labels", "unknown_labels", "label_areas_px2")


def rows(**changes: list[Any]) -> list[dict[str, Any]]:
    some = [{**ROW, "sample_id": number, **{key: [number] for key in LISTS}} for number in range(4)]
    return [{**row, **{name: values[place] for name, values in changes.items()}} for place, row in enumerate(some)]


def digest(*tables: pa.Table) -> str:
    found = RowsDigest()
    for table in tables:
        found.update(table)
    return found.hexdigest()


def test_the_same_rows_in_other_tables_give_the_same_digest() -> None:
    whole = to_table(rows())
    assert digest(whole) == digest(whole.slice(0, 1), whole.slice(1, 0), whole.slice(1)) == digest(to_table(rows()))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("sample_id", [0, 1, 3, 2]),
        ("offset_bytes", [1, 1, 1, 2]),
        ("size_bytes", [2, 1, 1, 1]),
        ("crc32", [1, 1, 0, 1]),
        ("split", ["a", "a", "a", "b"]),
        ("labels", [[0, 1], [], [2], [3]]),  # the same values in other rows
        ("unknown_labels", [[0], [1], [2], []]),
    ],
)
def test_any_changed_value_changes_it(name: str, values: list[Any]) -> None:
    assert digest(to_table(rows(**{name: values}))) != digest(to_table(rows()))


def test_a_moved_tar_does_not() -> None:
    assert digest(to_table(rows(shard=["b"] * 4, key=["c"] * 4))) == digest(to_table(rows()))
