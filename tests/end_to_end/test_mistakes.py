"""Every verb with a mistake: one error that names it, and nothing changed."""

import re
from pathlib import Path

import pytest
from PIL import Image

from tests.end_to_end.verbs import here, write_files

MISSING = [
    "verify missing",
    "inspect missing",
    "shard missing.yaml",
    "train missing.yaml",
    "lr-find missing.yaml",
    "tune missing.yaml",
    "refit missing",
    "evaluate missing",
    "calibrate missing",
    "predict missing photo.jpg",
    "export missing --onnx x.onnx",
    "report missing",
    "submit missing.yaml",
]
WRONG = [
    "scenes text.txt",
    "verify text.txt",
    "inspect text.txt",
    "shard text.txt",
    "shard run.yaml",
    "train text.txt",
    "train recipe.yaml",
    "lr-find text.txt",
    "lr-find recipe.yaml",
    "tune text.txt",
    "tune run.yaml",
    "refit text.txt",
    "evaluate text.txt",
    "calibrate text.txt",
    "predict text.txt photo.jpg",
    "export text.txt --onnx x.onnx",
    "report text.txt",
    "submit text.txt",
]
MISTYPED = [
    "shard recipe.yaml --set taget=x",
    "train run.yaml --set optimizer.rl=1",
    "lr-find run.yaml --set optimizer.rl=1",
    "tune sweep.yaml --set search.trails=1",
    "tune thresholds.yaml --set thresholds.fold=2",
    "refit run --set head.componets=2",
    "submit run.yaml --set optimizer.rl=1",
    *(f"{verb} --mistyped" for verb in ("scenes", "verify", "inspect", "evaluate", "calibrate", "predict", "export", "report")),
    *(f"{verb} --mistyped" for verb in ("shard", "train", "lr-find", "tune", "refit", "submit", "doctor")),
    "trian",
]
# Each with what its message must name.
MISTAKES = [
    *((command, "missing") for command in MISSING),
    *((command, command.split()[1]) for command in WRONG),
    *((command, re.split(r"[. ]", command.partition("=")[0])[-1]) for command in MISTYPED),
]


@pytest.fixture
def mistaken(tmp_path: Path) -> Path:
    """A folder with a user's files, one of which is not what its place asks for, and no data."""
    write_files(tmp_path)
    (tmp_path / "text.txt").write_text("hello\n: [")
    Image.new("RGB", (40, 30)).save(tmp_path / "photo.jpg")
    return tmp_path


@pytest.mark.parametrize(("command", "named"), MISTAKES)
def test_a_mistake_is_one_error_and_changes_nothing(
    mistaken: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, named: str
) -> None:
    before = {path: path.read_bytes() for path in mistaken.iterdir()}
    said = here(mistaken, monkeypatch, capsys, *command.split())
    assert said.code in (1, 2), said
    assert said.output.strip() == ""
    first, *more = [line for line in said.errors.splitlines() if line.strip()]
    if said.code == 1:
        assert first.startswith("error: ")
        assert not [line for line in more if not line.startswith("  ")]  # each fault of a file is a line of its own
    else:
        assert first.startswith("Usage: ")
        assert len([line for line in more if line.startswith("Error: ")]) == 1
    assert named in said.errors
    assert {path: path.read_bytes() for path in mistaken.iterdir()} == before
