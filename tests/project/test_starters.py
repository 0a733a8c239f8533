"""The starters: which files belong together, that they read, and that every one is offered."""

from pathlib import Path

import pytest

from rayprob.config.spec import read_yaml
from rayprob.errors import SpecError
from rayprob.project import starters
from rayprob.project.starters import starter_files, starter_names

ROOT = Path(__file__).resolve().parents[2]


def test_every_run_file_of_the_repository_is_a_starter() -> None:
    assert starter_names() == sorted(path.stem for path in (ROOT / "tune_configs").glob("*.yaml"))


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("demo", ["shards/scenes.yaml", "tune_configs/demo.yaml"]),
        ("demo-sweep", ["shards/scenes.yaml", "tune_configs/demo.yaml", "tune_configs/demo-sweep.yaml"]),
        ("full", ["shards/coco2014.yaml", "tune_configs/strong.yaml", "tune_configs/full.yaml"]),
        (
            "coco-sample-sweep",
            ["shards/coco-sample.yaml", "tune_configs/coco-sample.yaml", "tune_configs/coco-sample-sweep.yaml"],
        ),
        ("thresholds", ["tune_configs/thresholds.yaml"]),
    ],
)
def test_a_starter_brings_its_recipe_and_what_it_extends(name: str, files: list[str]) -> None:
    found = starter_files(name)
    assert list(found) == files
    assert all(text == (ROOT / file).read_text() for file, text in found.items())


def test_the_starters_of_a_wheel_lie_in_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "starters" / "tune_configs"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("name: mine\n")
    monkeypatch.setattr(starters, "PACKAGE", tmp_path)
    assert starter_names() == ["mine"]
    assert read_yaml(folder / "mine.yaml") == {"name": "mine"}


def test_an_unknown_starter_is_answered_with_the_nearest() -> None:
    with pytest.raises(SpecError, match=r"unknown run file 'papr'; nearest: paper; allowed: coco-sample, .*thresholds"):
        starter_files("papr")
