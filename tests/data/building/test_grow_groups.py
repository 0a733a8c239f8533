"""New images of a growing dataset join their group, also if the source has lost the group's other images."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from rayprob.data.building.build import Summary, build, in_process
from rayprob.data.building.recipe import Recipe
from rayprob.data.manifest.dataset import Dataset
from rayprob.data.verify import verify
from rayprob.errors import DatasetError, SourceError
from tests.data.building.test_grow import ids_by_split
from tests.data.small_source import draw_jpeg

STRATIFIED = {"holdout": {"fraction": 0.3, "by": "stratified"}}
PATIENTS = 15


@dataclass
class Patients:
    """A source of 15 patients with four images each."""

    folder: Path

    def lists(self, numbers: Iterable[int], split: str = "train") -> None:
        """Let the source list these images; sample ids are their numbers."""
        cells = ({"image": f"{n}.jpg", "labels": "a" if n % 2 else "b", "patient": f"p{n // 4}"} for n in numbers)
        (self.folder / f"{split}.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in cells))

    def build(self, splits: tuple[str, ...] = ("train",), *, grow: bool = False, **changes: Any) -> Summary:
        table = {"format": "table", "images": str(self.folder / "images"), "group": "patient", "label": "labels"}
        tables = {split: {**table, "annotations": str(self.folder / f"{split}.jsonl")} for split in splits}
        recipe = {"name": "patients", "splits": tables, "target": str(self.folder / "built"), **changes}
        return build(Recipe.parse(recipe), run_tasks=in_process, grow=grow)

    @property
    def root(self) -> str:
        return str(self.folder / "built")

    def patients_by_split(self) -> dict[str, set[int]]:
        return {split: {number // 4 for number in numbers} for split, numbers in ids_by_split(self.root).items()}


@pytest.fixture
def patients(tmp_path: Path) -> Patients:
    (tmp_path / "images").mkdir()
    for number in range(4 * PATIENTS):
        (tmp_path / "images" / f"{number}.jpg").write_bytes(draw_jpeg(number, 24, 24))
    return Patients(tmp_path)


def all_but_the_last() -> list[int]:
    return [number for number in range(4 * PATIENTS) if number % 4 != 3]


def test_new_images_follow_their_group(patients: Patients) -> None:
    patients.lists(all_but_the_last())
    patients.build(**STRATIFIED)
    before = ids_by_split(patients.root)
    patients.lists(range(4 * PATIENTS))
    assert patients.build(grow=True, **STRATIFIED).images_added == PATIENTS
    after = ids_by_split(patients.root)
    assert all(before[name] <= after[name] for name in before)
    assert len(after["holdout"]) % 4 == len(after["train"]) % 4 == 0  # every patient is whole


@pytest.mark.parametrize(
    "recipe",
    [STRATIFIED, {"divide": {"of": "train", "into": {"a": 0.5, "b": 0.5}, "by": "stratified"}, "holdout": None}],
    ids=["holdout", "divide"],
)
def test_new_images_follow_a_group_that_the_source_has_lost(patients: Patients, recipe: dict[str, Any]) -> None:
    patients.lists(all_but_the_last())
    patients.build(**recipe)
    before = patients.patients_by_split()
    kept = [number for number in all_but_the_last() if number // 4 < 5]
    for lost in (range(23, 4 * PATIENTS, 8), range(27, 4 * PATIENTS, 8)):  # one patient in two, then the others
        patients.lists([*kept, *lost])
        grown = patients.build(grow=True, **recipe)
        assert grown.images_added == len(lost)
        assert patients.patients_by_split() == before
    assert verify(patients.root) == []


def test_a_new_image_of_a_lost_group_of_another_split_is_refused(patients: Patients) -> None:
    patients.lists(range(4, 32))
    patients.lists([40, *range(52, 55)], "val")
    patients.build(("train", "val"), holdout=None)
    patients.lists([*range(4, 32), 0, 55])  # 55 is of the patient of 52 to 54
    patients.lists([40], "val")
    with pytest.raises(
        SourceError, match=r"1 new image of train, such as 55\.jpg, are of groups with samples in val; put them"
    ):
        patients.build(("train", "val"), holdout=None, grow=True)
    patients.lists([*range(4, 32), 0])
    patients.lists([40, 55], "val")
    assert patients.build(("train", "val"), holdout=None, grow=True).images_added == 2


def test_a_dataset_without_recorded_groups_warns_of_lost_ones(patients: Patients, caplog: pytest.LogCaptureFixture) -> None:
    patients.lists(range(40))
    patients.build(**STRATIFIED)
    (patients.folder / "built" / "groups.parquet").unlink()
    patients.lists(range(44))
    patients.build(grow=True, **STRATIFIED)
    assert "before groups were recorded" not in caplog.text  # no image is lost
    (patients.folder / "built" / "groups.parquet").unlink()
    patients.lists([*range(38), 45, 49])
    patients.build(grow=True, **STRATIFIED)
    assert "new images of 2 groups may belong to those of the 6 images that are no longer in the source" in caplog.text
    caplog.clear()
    patients.lists([*range(36), 53])
    patients.build(grow=True, **STRATIFIED)  # of the lost ones, two are recorded now
    assert "new images of 1 group may belong to those of the 6 images" in caplog.text


@pytest.mark.parametrize("by", ["hash", "stratified"])
def test_a_source_that_has_lost_all_images_of_a_split_can_grow(patients: Patients, by: str) -> None:
    recipe = {"holdout": {"fraction": 0.3, "by": by}}
    patients.lists(range(40))
    patients.build(**recipe)
    train = sorted(ids_by_split(patients.root)["train"])
    patients.lists([*train, 40])
    assert patients.build(grow=True, **recipe).images_added == 1


def test_only_grouped_datasets_record_groups(patients: Patients, tmp_path: Path) -> None:
    patients.lists(range(8))
    patients.build(holdout=None)
    table = pq.read_table(tmp_path / "built" / "groups.parquet")
    assert table["sample_id"].to_pylist() == [*range(8)]
    assert [len(set(table["group"].to_pylist()[start : start + 4])) for start in (0, 4)] == [1, 1]
    split = {"format": "table", "images": str(tmp_path / "images"), "annotations": str(tmp_path / "train.jsonl"), "label": 2}
    recipe = {"name": "alone", "splits": {"train": split}, "target": str(tmp_path / "alone"), "holdout": None}
    build(Recipe.parse(recipe), run_tasks=in_process)
    assert not (tmp_path / "alone" / "groups.parquet").exists()


def test_a_damaged_record_of_groups_is_named(patients: Patients) -> None:
    patients.lists(range(8))
    patients.build(holdout=None)
    (patients.folder / "built" / "groups.parquet").write_bytes(b"PAR1")
    assert Dataset.open(patients.root).splits
    with pytest.raises(DatasetError, match=r"groups\.parquet cannot be read as Parquet .*restore it from a copy, or remove it"):
        patients.build(grow=True, holdout=None)
