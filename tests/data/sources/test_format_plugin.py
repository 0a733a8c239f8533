"""A format of somebody else is one function in a module of theirs."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from rayprob.data.building.build import build, in_process
from rayprob.data.building.recipe import Recipe
from rayprob.data.sources import formats
from rayprob.data.sources.faults import label_space
from rayprob.data.sources.rows import ALONE, ImageRow, Stated, rows_of
from rayprob.data.sources.spec import Source
from rayprob.errors import SourceError, SpecError
from tests.data.small_source import draw_jpeg

MODULE = '''
from rayprob.data.sources.faults import label_space
from rayprob.data.sources.rows import ImageRow, Stated, batches_of
from rayprob.data.sources.spec import Source


class NamesSource(Source):
    """Labels in the names of files: cat+dog-1.jpg."""

    sign: str = "+"


def read(source: NamesSource) -> Stated:
    rows = [ImageRow("1", "cat+dog-1.jpg", (0, 1)), ImageRow("2", "dog-2.jpg", (1,))]
    return Stated(label_space("names", ["cat", "dog"]), "absent", batches_of(rows), source.images, {})


SOURCES = {"file_names": read}
'''


def test_a_format_of_a_plugin_is_read_and_its_keys_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "names_in_files.py").write_text(MODULE)
    for name in ("cat+dog-1.jpg", "dog-2.jpg"):
        (tmp_path / name).write_bytes(draw_jpeg(0, 24, 24))
    split = {"format": "file_names", "images": str(tmp_path)}
    recipe = {"plugins": ["names_in_files"], "name": "x", "holdout": None, "target": str(tmp_path / "built")}
    summary = build(Recipe.parse({**recipe, "splits": {"train": split}}), run_tasks=in_process)
    assert summary.facts["splits"] == {"train": 2}
    with pytest.raises(SpecError, match="unknown key of format file_names: 'sing'; nearest: sign"):
        Recipe.parse({**recipe, "splits": {"train": {**split, "sing": "-"}}})


class BatchesSource(Source):
    """Rows as the test gives them."""


def read_batch(monkeypatch: pytest.MonkeyPatch, columns: dict[str, Any], **keys: Any) -> list[ImageRow]:
    """Return the rows of a format that yields these columns in one batch."""

    def read(source: BatchesSource) -> Stated:
        batch = pa.RecordBatch.from_pydict(columns)
        return Stated(label_space("mine", ["cat", "dog"]), "absent", [batch], source.images, {})

    read.__annotations__["source"] = BatchesSource
    monkeypatch.setitem(formats.SOURCES, "mine", read)
    return list(rows_of(formats.read(BatchesSource(images="mine", format="mine", **keys)).batches))


COLUMNS: dict[str, Any] = {
    "key": pa.array(["1", "2"], pa.large_string()),
    "file_name": ["p1/a.jpg", "p2/b.jpg"],
    "labels": pa.array([[0, 1], []], pa.large_list(pa.int8())),
}


def test_columns_that_a_format_leaves_out_have_their_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [ImageRow("1", "p1/a.jpg", (0, 1)), ImageRow("2", "p2/b.jpg")]
    assert read_batch(monkeypatch, COLUMNS) == expected
    grouped = read_batch(monkeypatch, {**COLUMNS, "size_bytes": pa.array([3, 4], pa.uint8())}, group_pattern="^([^/]+)")
    assert [row.size_bytes for row in grouped] == [3, 4]
    assert len({row.group for row in grouped} - {ALONE}) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key": None}, "mine: its format yields rows without the column key; they have file_name, labels"),
        ({"labels": ["cat", "dog"]}, "yields the column labels as string, not list<item: int32>"),
        ({"group": [1, None]}, "yields missing values in the column group; leave the column out, or give 0 where"),
        ({"labels": [[0, None], []]}, r"missing values in the column labels; .* give \(\) where there is nothing"),
        ({"file_name": ["a", None]}, "missing values in the column file_name; .* give 'a name'"),
        ({"height_px": [2.5, 1.0]}, "yields the column height_px as double, not int64"),
    ],
)
def test_columns_that_do_not_fit_are_named(monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str) -> None:
    columns = {name: column for name, column in {**COLUMNS, **changes}.items() if column is not None}
    with pytest.raises(SourceError, match=message):
        read_batch(monkeypatch, columns)
