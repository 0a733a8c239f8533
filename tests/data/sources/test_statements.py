"""Tables read in columns state what they state row by row, however many rows an image has and wherever these lie."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rayprob.data.sources import batch_file, statements, table_file
from rayprob.data.sources.rows import ImageRow, rows_of
from rayprob.data.sources.table import CONTRADICTED, TableSource, read
from rayprob.errors import SourceError

NAMES = [f"{letter}.jpg" for letter in "abcdefgh"]
STATES = {"1": "present", "0": "absent", "": "unknown", "yes": "present"}
ROWS = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(["cat", "dog", " tram "]), st.sampled_from(list(STATES))))


def expected(rows: list[tuple[str, str, str]]) -> tuple[dict[str, dict[str, str]], int]:
    """Return the labels of each image in the order of its first row, and the number of contradictions."""
    found: dict[str, dict[str, str]] = {}
    contradictions = 0
    for name, label, value in rows:
        labels = found.setdefault(name, {})
        before = labels.setdefault(label.strip(), STATES[value])
        if before == "unknown":
            labels[label.strip()] = STATES[value]
        elif STATES[value] not in (before, "unknown"):
            labels[label.strip()] = "unknown"
            contradictions += 1
    return found, contradictions


def stated(rows: list[ImageRow], names: tuple[str, ...]) -> dict[str, dict[str, str]]:
    lists = {"present": "labels", "absent": "absent_labels", "unknown": "unknown_labels"}
    return {
        row.file_name: {names[column]: state for state, name in lists.items() for column in getattr(row, name)} for row in rows
    }


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS.filter(bool), st.integers(1, 200), st.integers(1, 4))
def test_a_row_per_image_and_label_gives_what_a_dictionary_of_them_all_gives(
    tmp_path: Path, rows: list[tuple[str, str, str]], group_bytes: int, batch_rows: int
) -> None:
    columns = dict(zip(("image", "label", "value"), map(list, zip(*rows, strict=True)), strict=True))
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    keys = {"format": "table", "images": ".", "annotations": str(tmp_path / "a.parquet"), "label": "label", "value": "value"}
    with pytest.MonkeyPatch.context() as patch:
        for module in (batch_file, statements):
            patch.setattr(module, "GROUP_BYTES", group_bytes)
        patch.setattr(table_file, "BATCH_ROWS", batch_rows)
        patch.setattr(statements, "IMAGES_ROWS", batch_rows)
        found = read(TableSource.parse({**keys, "values": {"yes": "present"}}, where="x"))
        images = list(rows_of(found.batches))
    truth, contradictions = expected(rows)
    assert found.label_space.names == tuple(sorted({label.strip() for _, label, _ in rows}))
    assert stated(images, found.label_space.names) == truth
    assert [row.file_name for row in images] == list(truth)
    assert found.dropped == ({CONTRADICTED: contradictions} if contradictions else {})


TEXTS = ["cat|dog", "dog", " cat | 1.0|", "", "dog|dog|cat", "[1, 2]", "no finding|cat", None]
LISTS = [["cat", "dog"], [], None, [" dog", None, "dog", "1.0"], ["", "no finding"]]


@pytest.mark.parametrize("separator", ["|", None, " "])
@pytest.mark.parametrize("cells", [TEXTS, LISTS, [1, 2, None, 3], [True, None], [1.0, 0.5, None], [None, None, "x"]])
def test_lists_in_parquet_are_those_of_json_lines_which_are_read_row_by_row(
    tmp_path: Path, separator: str | None, cells: list[Any]
) -> None:
    names = [f"{number}.jpg" for number in range(len(cells))]
    pq.write_table(pa.table({"image": names, "labels": cells}), tmp_path / "a.parquet")
    lines = [json.dumps({"image": name, "labels": cell}) for name, cell in zip(names, cells, strict=True)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    found = []
    for file in ("a.parquet", "a.jsonl"):
        keys = {"format": "table", "images": ".", "annotations": str(tmp_path / file), "lists": "labels"}
        one = read(TableSource.parse({**keys, "separator": separator, "no_label": ["no finding"]}, where="x"))
        found.append((one.label_space, list(rows_of(one.batches))))
    assert found[0] == found[1]
    assert len(found[0][1]) == len(cells)


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
@pytest.mark.parametrize(
    ("columns", "keys", "message"),
    [
        ({"a": [1, 0, 3, 7]}, {"one_hot": "a"}, "row 4, 'a' is 3, which `values` does not define"),
        ({"a": ["x", "y", "q", "r"]}, {"lists": "a", "names": {"x": "cat", "y": "dog"}}, "row 4: unknown label code 'q'"),
        ({"a": ["x"] * 4, "v": ["1", "?", "0", "!"]}, {"label": "a", "value": "v"}, "row 3 is '?', which `values` does not"),
    ],
)
def test_the_first_row_at_fault_is_named(
    tmp_path: Path, kind: str, columns: dict[str, list[Any]], keys: dict[str, Any], message: str
) -> None:
    columns = {"image": ["0.jpg", "1.jpg", "2.jpg", "3.jpg"], **columns}
    path = tmp_path / f"a.{kind}"
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(SourceError) as error:
        list(read(TableSource.parse({"format": "table", "images": ".", "annotations": str(path), **keys}, where="x")).batches)
    assert f"{path}, {message}" in str(error.value)
