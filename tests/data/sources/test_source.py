"""The splits of a source: counts, missing files, and what two splits may not share."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from rayprob.data.building.recipe import Recipe
from rayprob.data.sources.source import read_source
from rayprob.errors import SourceError
from tests.data.small_source import CATEGORIES, Source


def test_images_without_a_label_are_dropped_unless_kept(source: Source) -> None:
    dropped = {split: len(images) for split, images in read_source(source.recipe()).images.items()}
    kept = {split: len(images) for split, images in read_source(source.recipe(keep_unlabelled=True)).images.items()}
    assert dropped == {"train": 39, "val": 11}
    assert kept == {"train": 40, "val": 12}


def test_sizes_are_those_of_the_files(source: Source) -> None:
    for image in read_source(source.recipe()).images["train"]:
        assert image.size_bytes == source.image(image.sample_id).stat().st_size


def test_images_may_lie_in_folders_below(source: Source) -> None:
    below = source.image(903).parent / "a" / "b"
    below.mkdir(parents=True)
    source.image(903).rename(below / "x.jpg")
    source.change("val", lambda content: content["images"][3].update(file_name="a/b/x.jpg"))
    found = {image.sample_id: image.file_name for image in read_source(source.recipe()).images["val"]}
    assert found[903] == "a/b/x.jpg"


def test_a_missing_image_is_a_reject(source: Source) -> None:
    source.image(903).unlink()
    data = read_source(source.recipe())
    assert [(reject.sample_id, reject.split, reject.file_name) for reject in data.missing] == [
        (903, "val", "COCO_val2014_000000000903.jpg")
    ]
    assert data.missing[0].reason.startswith("missing: no file of that name in ")
    assert 903 not in {image.sample_id for image in data.images["val"]}


def name_in_val(source: Source, place: int, file_name: str) -> None:
    source.change("val", lambda content: content["images"][place].update(file_name=file_name))


def test_a_missing_image_is_told_from_one_that_is_named_otherwise(source: Source) -> None:
    folder = source.image(903).parent
    source.image(903).unlink()
    source.image(903).symlink_to("nowhere")
    name_in_val(source, 4, "coco_VAL2014_000000000904.jpg")
    (folder / "caf\u00e9.jpg").write_bytes(source.image(905).read_bytes())
    name_in_val(source, 5, "cafe\u0301.jpg")
    assert {reject.sample_id: reject.reason for reject in read_source(source.recipe()).missing} == {
        903: "missing: a link to a file that does not exist",
        904: f"missing: {folder} has COCO_val2014_000000000904.jpg, which differs in letter case; rename one of them",
        905: f"missing: {folder} has caf\u00e9.jpg, which differs in letter case or the form of its accents (NFC, NFD); "
        "rename one of them",
    }


def test_a_dot_before_a_name_means_the_name(source: Source) -> None:
    before = list(read_source(source.recipe()).images["val"])
    name_in_val(source, 3, "./COCO_val2014_000000000903.jpg")
    name_in_val(source, 4, "x/../COCO_val2014_000000000904.jpg".replace("x/../", ".//"))
    assert list(read_source(source.recipe()).images["val"]) == before


def test_links_to_folders_give_each_file_once_and_under_any_name(source: Source) -> None:
    folder = source.image(903).parent
    for link in ("up1", "up2"):
        (folder / link).symlink_to("..")
    name_in_val(source, 3, "up1/val2014/COCO_val2014_000000000903.jpg")
    images = {image.sample_id: image for image in read_source(source.recipe()).images["val"]}
    assert images[903].file_name == "up1/val2014/COCO_val2014_000000000903.jpg"
    assert images[903].size_bytes == source.image(903).stat().st_size


def test_what_is_skipped_in_a_folder_is_said_in_one_line(source: Source, caplog: pytest.LogCaptureFixture) -> None:
    folder = source.image(903).parent
    for name in (b"._x.JPG", b".hidden.jpg", b"caf\xe9.jpg"):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(b"x")
    name_in_val(source, 3, ".hidden.jpg")
    images = {image.sample_id: image.file_name for image in read_source(source.recipe()).images["val"]}
    assert images[903] == ".hidden.jpg"
    assert caplog.messages == [
        f"{folder}: skipped 1 hidden or system file (._x.JPG); skipped caf\\xe9.jpg: a name that is not UTF-8"
    ]


def test_the_wrong_folder_is_found_before_anything_is_read(source: Source) -> None:
    recipe = source.recipe()
    swapped = recipe.splits["val"].model_copy(update={"images": recipe.splits["train"].images})
    with pytest.raises(SourceError, match=r"none of the 11 images of split val is in .*train2014: COCO_val2014_000000000901"):
        read_source(recipe.model_copy(update={"splits": {**recipe.splits, "val": swapped}}))


def test_a_folder_that_is_not_there_is_named(source: Source) -> None:
    shutil.rmtree(source.folder / "val2014")
    with pytest.raises(
        SourceError, match=r"cannot list the images folder .*val2014.*; give the folder that contains the images"
    ):
        read_source(source.recipe())


def test_an_empty_split_is_named(source: Source) -> None:
    source.change("val", lambda content: content.update(annotations=[]))
    with pytest.raises(
        SourceError, match=r"split val is empty: .* lists 12 images but states no label of them; .*keep_unlabelled: true"
    ):
        read_source(source.recipe())


def test_splits_with_other_labels_are_refused(source: Source) -> None:
    def rename(content: dict[str, Any]) -> None:
        content["categories"][1]["name"] = "lynx"

    source.change("val", rename)
    with pytest.raises(
        SourceError, match=r"instances_train.json and .*instances_val.json differ: column 0 is 'cat' \(id 2\) against"
    ):
        read_source(source.recipe())


def reuse_id(source: Source) -> None:
    def reuse(content: dict[str, Any]) -> None:
        content["images"][4]["id"] = 105
        for box in content["annotations"]:
            box["image_id"] = 105 if box["image_id"] == 904 else box["image_id"]

    source.change("val", reuse)


def test_ids_that_restart_in_each_split_are_made_unique(source: Source, caplog: pytest.LogCaptureFixture) -> None:
    reuse_id(source)
    images = read_source(source.recipe()).images
    ids = [image.sample_id for members in images.values() for image in members]
    assert len(set(ids)) == len(ids) == 50
    assert ids == [image.sample_id for members in read_source(source.recipe()).images.values() for image in members]
    assert "1 image ids are in two splits, such as 105 (train and val), of different files" in caplog.messages[0]


def test_a_file_in_two_splits_is_refused(source: Source) -> None:
    recipe = source.recipe()
    annotations = source.annotations("val")
    annotations["images"][4]["file_name"] = os.path.relpath(source.image(105), source.folder)
    for place, image in enumerate(annotations["images"]):
        image["file_name"] = image["file_name"] if place == 4 else f"val2014/{image['file_name']}"
    source.annotations_file("val").write_text(json.dumps(annotations))
    val = recipe.splits["val"].model_copy(update={"images": str(source.folder)})
    with pytest.raises(
        SourceError, match=r"1 images are in two splits: .*105\.jpg \(train, val\); .*remove each from one split"
    ):
        read_source(recipe.model_copy(update={"splits": {**recipe.splits, "val": val}}))


def pretend_coco_2014(path: Path, labelled: int, unlabelled: int) -> None:
    """Write annotations with as many images as COCO-2014 has."""
    ids = range(1, labelled + unlabelled + 1)
    images = [{"id": sample_id, "file_name": f"{sample_id}.jpg"} for sample_id in ids]
    boxes = [{"id": sample_id, "image_id": sample_id, "category_id": 2, "area": 1} for sample_id in ids[:labelled]]
    path.write_text(json.dumps({"images": images, "annotations": boxes, "categories": CATEGORIES}))


@pytest.mark.parametrize(
    ("missing", "message"), [(1, r"lists 40,136 images with a label and 367 without"), (0, r"none of the 40,137")]
)
def test_the_standard_split_sizes_are_asserted(tmp_path: Path, missing: int, message: str) -> None:
    shipped = Recipe.read(Path(__file__).resolve().parents[3] / "shards" / "coco2014.yaml")
    pretend_coco_2014(tmp_path / "instances.json", 40_137 - missing, 367)
    val = shipped.splits["val"].model_copy(update={"images": str(tmp_path), "annotations": str(tmp_path / "instances.json")})
    # If the counts are right, the next fault is named: the folder contains no images.
    with pytest.raises(SourceError, match=message):
        read_source(shipped.model_copy(update={"splits": {"val": val}}))
