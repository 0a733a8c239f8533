"""Every format is read from an object store as from a disk."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rayprob.data.building.build import build, in_process
from rayprob.data.building.recipe import Recipe
from rayprob.data.manifest.dataset import Dataset
from rayprob.data.manifest.label_fingerprint import label_fingerprint
from rayprob.data.sources.recognise import recognise
from tests.data.sources.layouts import PICTURES
from tests.data.sources.test_same_labels import WRITERS, as_coco
from tests.loader.s3 import BUCKET, serve

ALL = {**WRITERS, "coco": as_coco}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, dict[str, Any]]]]:
    """All formats on disk, and a server of S3 with the same files."""
    folder = tmp_path_factory.mktemp("formats")
    sources = {name: write(folder / name, PICTURES) for name, write in ALL.items()}
    with pytest.MonkeyPatch.context() as patch, serve(folder, patch):
        yield folder, sources


def fingerprint(target: Path, source: dict[str, Any]) -> str:
    recipe = {"name": "x", "splits": {"train": source}, "holdout": None, "target": str(target)}
    build(Recipe.parse(recipe), run_tasks=in_process)
    return label_fingerprint(Dataset.open(str(target)))


@pytest.mark.parametrize("name", ALL)
def test_a_format_is_read_from_an_object_store(
    tmp_path: Path, stored: tuple[Path, dict[str, dict[str, Any]]], name: str
) -> None:
    folder, sources = stored
    remote = {key: value.replace(str(folder), f"s3://{BUCKET}/data") for key, value in sources[name].items()}
    assert "s3://" in remote["images"]
    assert fingerprint(tmp_path / "remote", remote) == fingerprint(tmp_path / "local", sources[name])


def test_a_layout_in_an_object_store_is_recognised(stored: tuple[Path, dict[str, dict[str, Any]]]) -> None:
    found = recognise(f"s3://{BUCKET}/data/coco")
    assert found.format == "coco"
    assert found.splits["train"].num_missing == 0
