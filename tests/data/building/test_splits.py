"""Splits: by hash, stratified, by fractions, by files of names; with groups, and with samples that have a split already."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rayprob.arrays import Ints
from rayprob.data.building.plan import plan
from rayprob.data.building.recipe import Recipe
from rayprob.data.building.splits import split_rows
from rayprob.data.sources.image import SourceImage, SourceImages
from rayprob.errors import SourceError, SpecError
from tests.data.small_source import Source

SOURCE = {"images": "a", "annotations": "b"}


def image(sample_id: int, labels: tuple[int, ...] = (0,), group: int = 0) -> SourceImage:
    return SourceImage(sample_id, f"photos/{sample_id}.jpg", 1, 1, labels, (), (), 100, group=group)


def recipe(splits: tuple[str, ...] = ("train",), **changes: Any) -> Recipe:
    return Recipe.parse({"name": "x", "splits": dict.fromkeys(splits, SOURCE), "holdout": None, **changes})


def ids_of(images: list[SourceImage], of: Recipe, **assigned: Ints) -> dict[str, list[int]]:
    rows = split_rows("train", SourceImages.of(images), of, (), assigned)
    return {split: [images[row].sample_id for row in some] for split, some in rows.items()}


IMAGES = [image(sample_id, ((0,), (0, 1), (2,))[sample_id % 3]) for sample_id in range(300)]
HALVES = {"of": "train", "into": {"train": 0.5, "val": 0.3, "test": 0.2}}


def test_fractions_divide_every_image_into_one_split_in_the_order_of_the_recipe() -> None:
    found = ids_of(IMAGES, recipe(divide=HALVES))
    assert list(found) == ["train", "val", "test"]
    assert sorted(one for some in found.values() for one in some) == list(range(300))
    assert [len(some) for some in found.values()] == pytest.approx([150, 90, 60], abs=25)


@pytest.mark.parametrize("by", ["hash", "stratified"])
def test_neither_the_order_of_images_nor_other_splits_change_a_division(by: str) -> None:
    of = recipe(divide={**HALVES, "by": by}, holdout={"of": "train", "fraction": 0.2, "by": by})
    found = ids_of(IMAGES, of)
    assert list(found) == ["train", "holdout", "val", "test"]
    assert {split: sorted(some) for split, some in ids_of(IMAGES[::-1], of).items()} == found


def test_by_hash_images_keep_their_split_when_others_are_added_and_stratified_ones_when_they_are_given() -> None:
    for by in ("hash", "stratified"):
        of = recipe(divide={**HALVES, "by": by}, holdout={"of": "train", "fraction": 0.2, "by": by})
        before = ids_of(IMAGES[:200], of)
        given = {split: np.array(some) for split, some in before.items()} if by == "stratified" else {}
        after = ids_of(IMAGES, of, **given)
        assert all({*before[split]} <= {*after[split]} for split in before)
        assert all(len(after[split]) > len(before[split]) for split in before)


def test_a_stratified_holdout_has_its_fraction_of_each_label() -> None:
    held = ids_of(IMAGES, recipe(holdout={"fraction": 0.1, "by": "stratified"}))["holdout"]
    assert np.bincount([one % 3 for one in held]).tolist() == [10, 10, 10]


@pytest.mark.parametrize("by", ["hash", "stratified"])
def test_a_group_is_in_one_split(by: str) -> None:
    images = [image(sample_id, (sample_id % 5,), group=1 + sample_id % 60) for sample_id in range(300)]
    of = recipe(divide={**HALVES, "by": by}, holdout={"of": "train", "fraction": 0.2, "by": by})
    splits = ids_of(images, of)
    groups = {split: {1 + sample_id % 60 for sample_id in some} for split, some in splits.items()}
    assert sum(map(len, groups.values())) == len(set().union(*groups.values())) == 60
    plan({"train": SourceImages.of(images)}, of)


def test_groups_that_the_source_itself_tears_apart_are_refused_with_examples() -> None:
    images = {"train": SourceImages.of([image(1, group=7), image(2, group=8)]), "val": SourceImages.of([image(3, group=7)])}
    with pytest.raises(SourceError, match=r"1 groups have .* splits: photos/1.jpg \(train\) and photos/3.jpg \(val\); give"):
        plan(images, recipe(("train", "val")))
    plan({"train": SourceImages.of([image(1), image(2)]), "val": SourceImages.of([image(3)])}, recipe(("train", "val")))


def lists(folder: Path, **names: list[str]) -> dict[str, str]:
    for split, some in names.items():
        (folder / f"{split}.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(some).encode() + b"\r\n\r\n")
    return {split: str(folder / f"{split}.txt") for split in names}


def test_a_file_names_images_by_path_name_stem_or_id(tmp_path: Path) -> None:
    into = lists(tmp_path, train=["photos/0.jpg", "1.jpg", "photos/2"], val=["3", " 4.jpg ", "./photos//5.jpg"])
    assert ids_of(IMAGES[:7], recipe(divide={"of": "train", "into": into})) == {"train": [0, 1, 2], "val": [3, 4, 5]}


def test_fractions_are_of_the_images_that_no_file_names(tmp_path: Path) -> None:
    into = {**lists(tmp_path, test=["0", "1", "2"]), "train": 0.5, "val": 0.5}
    found = ids_of(IMAGES, recipe(divide={"of": "train", "into": into}))
    assert found["test"] == [0, 1, 2]
    assert sorted(found["train"] + found["val"]) == list(range(3, 300))


def test_names_without_an_image_and_names_given_again_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    into = lists(tmp_path, train=["0", "0.jpg", "nobody", "1"], val=["2"])
    assert ids_of(IMAGES[:5], recipe(divide={"of": "train", "into": into})) == {"train": [0, 1], "val": [2]}
    assert "train.txt: 1 lines name an image that a line before names" in caplog.text
    assert "train.txt: 1 of 4 names fit no image of train that is sharded, such as 'nobody'; images are" in caplog.text


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (["0", "2"], r"divide.into: 1 x image named in two files: photos/2.jpg; name each image in one of them"),
        (
            ["a", "b"],
            r"train.txt: none of its 2 names fits an image of train: 'a', 'b'; images are called photos/0.jpg, ",
        ),
        ([], r"train.txt is empty; write the name of an image on each line"),
        (["7.jpg"], r"train.txt: 1 x name that several images have: '7.jpg' \(photos/7.jpg, more/7.jpg\); give each its path"),
    ],
)
def test_a_file_of_names_that_does_not_fit_is_refused(tmp_path: Path, train: list[str], message: str) -> None:
    images = [*IMAGES[:8], SourceImage(900, "more/7.jpg", 1, 1, (), (), ())]
    with pytest.raises(SourceError, match=message):
        ids_of(images, recipe(divide={"of": "train", "into": lists(tmp_path, train=train, val=["2", "3"])}))


def test_images_that_no_file_names_are_counted_among_those_left_out(source: Source) -> None:
    into = lists(source.folder, val=["901", "902"], test=["903"])
    facts = source.build(divide={"of": "val", "into": into}).facts
    assert facts["splits"] == {"train": 31, "holdout": 8, "val": 2, "test": 1}
    assert facts["dropped"]["val"]["an image that no file in divide.into names"] == 8


def test_a_division_that_leaves_a_split_empty_is_refused() -> None:
    into = {"train": 0.9999, "val": 0.0001}
    with pytest.raises(SourceError, match=r"divide leaves no image of train in val: train 300, val 0; change divide.into"):
        ids_of(IMAGES, recipe(divide={"of": "train", "into": into}))


def test_labels_that_groups_keep_out_of_holdout_are_named(caplog: pytest.LogCaptureFixture) -> None:
    images = [image(n, (1,) if n < 4 else (0,), group=1 + n // 4) for n in range(40)]
    split_rows("train", SourceImages.of(images), recipe(holdout={"fraction": 0.2, "by": "stratified"}), ("cat", "dog"))
    assert "holdout has no image with 1 labels, such as dog, that at least 2 images have: they share a group" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"divide": {"of": "trian", "into": {"a": 0.5, "b": 0.5}}}, r"divide: unknown split 'trian'; nearest: train; allowed"),
        ({"divide": {"of": "train", "into": {"a": 0.5, "b": 0.4}}}, r"fractions in into sum to 0.9; they must sum to 1"),
        ({"divide": {"of": "train", "into": {"a": 1.5, "b": -0.5}}}, r"the fraction 1.5; fractions are above 0 and at most 1"),
        ({"divide": {"of": "train", "into": {"a": 1.0}}}, r"at least 2 items"),
        ({"divide": {"of": "train", "into": {"a": 0.5, "val": 0.5}}}, r"divide.into has the split 'val', which `splits` has"),
        ({"divide": {"of": "train", "into": {"A b": 0.5, "c": 0.5}}}, r"split name 'A b' cannot name a shard"),
        (
            {"divide": {"of": "train", "into": {"a": 0.5, "b": 0.5}}, "holdout": {}},
            r"holdout.of is 'train'; allowed: val, a, b",
        ),
        ({"holdout": {"by": "stratify"}}, r"holdout.by: input should be 'hash' or 'stratified'"),
        ({"duplicates": "keep"}, r"duplicates: input should be 'report', 'drop' or 'fail'"),
    ],
)
def test_a_fault_in_a_recipe_names_key_and_remedy(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        recipe(("train", "val"), **changes)
