"""A dataset whose images state few of many labels: the manifest keeps what is known, and costs what that costs."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from rayprob.cli.show_data import show_summary
from rayprob.data.building import manifest_files
from rayprob.data.building.build import Summary, build, in_process
from rayprob.data.building.recipe import Recipe
from rayprob.data.inspect import inspect
from rayprob.data.manifest.dataset import Dataset
from rayprob.data.verify import verify
from tests.data.small_source import draw_jpeg

NUM_LABELS = 1200
IMAGES = 12


def stated(image: int) -> tuple[list[int], list[int]]:
    """Return the labels present and absent in an image; of the first, only an absent one."""
    return ([] if image == 0 else [7 * image, 7 * image + 1]), [1000 + image]


def write_source(folder: Path, *, federated: bool = True) -> dict[str, Any]:
    (folder / "images").mkdir(parents=True)
    images: list[dict[str, Any]] = [{"id": 5000, "file_name": "nothing.jpg"}]
    boxes = []
    for image in range(IMAGES):
        (folder / f"images/{image}.jpg").write_bytes(draw_jpeg(image, 40, 48))
        present, absent = stated(image)
        images.append({"id": image, "file_name": f"{image}.jpg", **({"neg_category_ids": absent} if federated else {})})
        boxes += [{"image_id": image, "category_id": category} for category in present]
    categories = [{"id": number, "name": f"label {number}"} for number in range(NUM_LABELS)]
    (folder / "labels.json").write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories}))
    return {"images": str(folder / "images"), "annotations": str(folder / "labels.json")}


def built(root: Path, **changes: Any) -> Dataset:
    splits = {"train": write_source(root / "source")}
    recipe = {"name": "federated", "splits": splits, "target": str(root / "built"), "max_shard_samples": 4, **changes}
    build(Recipe.parse({"holdout": {"fraction": 0.3}, **recipe}), run_tasks=in_process)
    return Dataset.open(str(root / "built"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return built(tmp_path_factory.mktemp("federated"))


def check_labels(dataset: Dataset) -> None:
    for split in dataset.splits:
        manifest = dataset.split(split)
        targets_NL, known_NL = manifest.targets(), manifest.known()
        for row, sample_id in enumerate(manifest.sample_ids().tolist()):
            present, absent = stated(sample_id)
            assert np.flatnonzero(targets_NL[row]).tolist() == present
            assert np.flatnonzero(known_NL[row]).tolist() == sorted(present + absent)
        present_L, known_L = manifest.label_counts()
        assert present_L.tolist() == (targets_NL & known_NL).sum(axis=0).tolist()
        assert known_L.tolist() == known_NL.sum(axis=0).tolist()


def test_labels_are_present_absent_or_unknown_as_the_source_states(dataset: Dataset) -> None:
    assert dataset.facts["format_version"] == 3
    assert dataset.facts["rest"] == {"train": "unknown", "holdout": "unknown"}
    check_labels(dataset)
    assert verify(dataset.root) == []


def test_an_absent_label_alone_makes_a_sample_and_nothing_known_does_not(dataset: Dataset) -> None:
    ids = {int(one) for split in dataset.splits for one in dataset.split(split).sample_ids()}
    assert ids == set(range(IMAGES))
    assert dataset.facts["dropped"] == {"train": {"no label is stated, present or absent": 1}}


def test_a_sample_costs_what_its_known_labels_cost(dataset: Dataset) -> None:
    table = pq.read_table(Path(dataset.root) / "manifest.parquet")
    assert table["unknown_labels"].combine_chunks().flatten().to_pylist() == []
    assert table["absent_labels"].combine_chunks().flatten().to_pylist().__len__() == IMAGES
    beside = next((Path(dataset.root)).glob("train-*.tar")).read_bytes()
    assert beside.count(b"label ") < 4 * 3 + 1
    assert sum(split.unknown_labels for split in inspect(dataset.root).splits) == IMAGES * (NUM_LABELS - 3) + 2


def test_a_manifest_in_parts_keeps_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest_files, "ONE_FILE_ROWS", 4)
    monkeypatch.setattr(manifest_files, "PART_ROWS", 4)
    dataset = built(tmp_path)
    assert "manifest" in dataset.facts
    assert dataset.facts["label_counts"]["train"]["known"]
    check_labels(dataset)
    assert verify(dataset.root) == []


def test_splits_may_differ_in_what_is_not_listed(tmp_path: Path) -> None:
    splits = {"train": write_source(tmp_path / "train"), "val": write_source(tmp_path / "val", federated=False)}
    recipe = {"name": "both", "splits": splits, "target": str(tmp_path / "built"), "holdout": None}
    build(Recipe.parse(recipe), run_tasks=in_process)
    dataset = Dataset.open(str(tmp_path / "built"))
    assert verify(dataset.root) == []
    assert dataset.facts["rest"] == {"train": "unknown", "val": "absent"}
    assert dataset.split("val").known().all()
    assert dataset.split("train").known().sum() == IMAGES * 3 - 2


def test_the_summary_tells_what_is_not_listed_and_what_was_left_out(dataset: Dataset) -> None:
    out = Console(file=io.StringIO(), width=200)
    show_summary(out, Summary(dataset.root, dataset.facts))
    said = out.file.getvalue()  # type: ignore[attr-defined]
    assert "labels not listed for an image: unknown in train, holdout\n" in said
    assert "train: left out 1 image without a label (keep_unlabelled: true keeps them)\n" in said


def test_rest_may_be_said_by_the_recipe(tmp_path: Path) -> None:
    source = {**write_source(tmp_path / "source"), "rest": "absent"}
    recipe = {"name": "closed", "splits": {"train": source}, "target": str(tmp_path / "built"), "holdout": None}
    build(Recipe.parse(recipe), run_tasks=in_process)
    dataset = Dataset.open(str(tmp_path / "built"))
    assert dataset.facts["format_version"] == 1
    assert dataset.split("train").known().all()


def test_a_changed_absent_label_is_a_fault(tmp_path: Path) -> None:
    dataset = built(tmp_path)
    shard = next(Path(dataset.root).glob("train-*.tar"))
    content = shard.read_bytes()
    place = content.index(b'"absent_labels":["label 10') + len(b'"absent_labels":["label 10')
    shard.write_bytes(content[:place] + b"9" + content[place + 1 :])
    assert any("has absent_labels ['label 10" in str(fault) for fault in verify(dataset.root))
