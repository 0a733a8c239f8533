"""A dataset that reads tars in place grows by new tars; images that it left out of old ones stay left out."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rayprob.data.building.build import Summary, build, in_process
from rayprob.data.building.recipe import Recipe
from rayprob.data.verify import verify
from rayprob.errors import DatasetError
from tests.data.small_source import draw_jpeg
from tests.data.sources.test_same_labels import Pictures
from tests.data.tars import by_shard_writer


def drawn(first: int, count: int = 12) -> Pictures:
    return {
        f"{number:06d}": (draw_jpeg(number, 24, 24), ["cat", "dog"][: 1 + number % 2]) for number in range(first, first + count)
    }


def index(tmp_path: Path, *, grow: bool = False, **changes: Any) -> Summary:
    splits = {"train": {"format": "webdataset", "images": str(tmp_path / "tars"), "copy": False}}
    recipe = {
        "name": "tars",
        "splits": splits,
        "target": str(tmp_path / "index"),
        "holdout": None,
        "allow_rejects": 9,
        **changes,
    }
    return build(Recipe.parse(recipe), run_tasks=in_process, grow=grow)


def add_tar(tmp_path: Path, name: str, pictures: Pictures) -> None:
    by_shard_writer(tmp_path / name, pictures)
    (tmp_path / "tars").mkdir(exist_ok=True)
    for tar in (tmp_path / name).iterdir():
        shutil.move(tar, tmp_path / "tars" / f"{name}-{tar.name}")


def listed(tmp_path: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "index" / name).read_text().splitlines()]


def with_faults() -> Pictures:
    """Two images that cannot be read, in two tars, and one with the bytes of another."""
    pictures = drawn(1)
    for name in ("000003", "000012"):
        pictures[name] = (pictures[name][0][:200], pictures[name][1])
    return {**pictures, "000005": pictures["000004"]}


@pytest.mark.parametrize("duplicates", ["report", "drop"])
def test_rejects_and_copies_in_old_tars_stay_listed(tmp_path: Path, duplicates: str) -> None:
    add_tar(tmp_path, "a", with_faults())
    facts = index(tmp_path, duplicates=duplicates).facts
    lists = {name: listed(tmp_path, name) for name in ("rejected.jsonl", "duplicates.jsonl")}
    assert [one["sample_id"] for one in lists["rejected.jsonl"]] == [3, 12]
    again = index(tmp_path, grow=True, duplicates=duplicates)
    assert (again.images_added, again.facts["rejected"]) == (0, 2)
    broken = drawn(301)
    broken["000307"] = (broken["000307"][0][:200], broken["000307"][1])
    add_tar(tmp_path, "b", broken)
    grown = index(tmp_path, grow=True, duplicates=duplicates)
    assert (grown.images_added, grown.facts["rejected"]) == (11, 3)
    assert [one["sample_id"] for one in listed(tmp_path, "rejected.jsonl")] == [3, 12, 307]
    assert listed(tmp_path, "duplicates.jsonl") == lists["duplicates.jsonl"]
    assert grown.facts["duplicates"] == facts["duplicates"]
    assert verify(grown.root) == []
    assert index(tmp_path, grow=True, duplicates=duplicates).images_added == 0


def test_a_tar_of_rejects_alone_is_tried_again(tmp_path: Path) -> None:
    add_tar(tmp_path, "a", drawn(1))
    whole = drawn(101, 2)
    add_tar(tmp_path, "b", {name: (jpeg[:200], labels) for name, (jpeg, labels) in whole.items()})
    assert index(tmp_path).facts["rejected"] == 2
    shutil.rmtree(tmp_path / "b")
    add_tar(tmp_path, "b", whole)
    grown = index(tmp_path, grow=True)
    assert (grown.images_added, grown.facts["rejected"]) == (2, 0)
    assert verify(grown.root) == []


def test_an_image_in_no_list_of_the_dataset_is_named(tmp_path: Path) -> None:
    add_tar(tmp_path, "a", with_faults())
    index(tmp_path)
    (tmp_path / "index" / "rejected.jsonl").unlink()
    with pytest.raises(
        DatasetError, match=r"a-000000\.tar: .* not in rejected.jsonl or duplicates.jsonl, such as .*000003\.jpg"
    ):
        index(tmp_path, grow=True)


@pytest.mark.parametrize("copy", [True, False])
def test_a_new_tar_with_a_key_of_an_old_one_is_refused_with_both_and_the_key(tmp_path: Path, copy: bool) -> None:
    add_tar(tmp_path, "a", drawn(1))
    split = {"format": "webdataset", "images": str(tmp_path / "tars"), "copy": copy}
    recipe = Recipe.parse({"name": "x", "splits": {"train": split}, "target": str(tmp_path / "index"), "holdout": None})
    build(recipe, run_tasks=in_process)
    add_tar(tmp_path, "b", {**drawn(101, 2), **drawn(12, 1)})
    with pytest.raises(
        DatasetError, match=r"none of the 12 images .*a-000001\.tar and .*b-000000\.tar both have a sample '000012'"
    ):
        build(recipe, run_tasks=in_process, grow=True)


def test_a_name_that_is_not_a_number_among_numbers_is_named(tmp_path: Path) -> None:
    add_tar(tmp_path, "a", drawn(1))
    index(tmp_path)
    add_tar(tmp_path, "b", {"13b": drawn(13, 1)["000013"]})
    with pytest.raises(
        DatasetError, match=r"none of the 12 images .*hashes of keys now: '13b' is not a number\); give the source"
    ):
        index(tmp_path, grow=True)
