"""A format of somebody else is one function in a module of theirs."""

from pathlib import Path

import pytest

from rayprob.data.building.build import build, in_process
from rayprob.data.building.recipe import Recipe
from rayprob.errors import SpecError
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
