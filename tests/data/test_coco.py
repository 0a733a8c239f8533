"""COCO annotations become rows; everything that is wrong with them is named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pycocotools.coco import COCO

from rayprob.data import coco
from rayprob.errors import SourceError
from tests.data.small_source import Source


def test_rows_equal_those_that_pycocotools_gives(source: Source, capsys: pytest.CaptureFixture[str]) -> None:
    label_space, images = coco.read(str(source.annotations_file("train")))
    assert capsys.readouterr().out == "", "pycocotools must not print"
    oracle = COCO(str(source.annotations_file("train")))
    assert list(label_space.category_ids) == sorted(oracle.getCatIds())
    assert [image.sample_id for image in images] == list(oracle.imgs)
    for image in images:
        boxes = oracle.loadAnns(oracle.getAnnIds(imgIds=[image.sample_id], iscrowd=None))
        categories = sorted({box["category_id"] for box in boxes})
        assert [label_space.category_ids[column] for column in image.labels] == categories
        areas = [max(box["area"] for box in boxes if box["category_id"] == category) for category in categories]
        assert list(image.label_areas_px2) == areas
        entry = oracle.imgs[image.sample_id]
        assert (image.file_name, image.height_px, image.width_px) == (entry["file_name"], entry["height"], entry["width"])


def test_columns_follow_category_ids_not_the_order_of_the_file(source: Source) -> None:
    label_space, _ = coco.read(str(source.annotations_file("val")))
    assert label_space.names == ("cat", "dog", "tram", "tree")


def test_a_crowd_alone_makes_a_label_present(source: Source) -> None:
    def only_a_crowd(content: dict[str, Any]) -> None:
        content["annotations"] = [{"id": 1, "image_id": 905, "category_id": 90, "area": 9, "iscrowd": 1}]

    source.change("val", only_a_crowd)
    label_space, images = coco.read(str(source.annotations_file("val")))
    labels = {image.sample_id: image.labels for image in images}
    assert labels[905] == (label_space.column("tree"),)
    assert not any(labels[sample_id] for sample_id in labels if sample_id != 905)


def test_area_falls_back_to_the_box(source: Source) -> None:
    boxes = [{"id": 1, "image_id": 905, "category_id": 2, "bbox": [1, 1, 4, 5]}, {"id": 2, "image_id": 905, "category_id": 3}]
    source.change("val", lambda content: content.update(annotations=boxes))
    _, images = coco.read(str(source.annotations_file("val")))
    assert next(image.label_areas_px2 for image in images if image.sample_id == 905) == (20.0, 0.0)


def test_unknown_labels_are_read_beside_the_present_ones(source: Source) -> None:
    def unsure(content: dict[str, Any]) -> None:
        content["images"][0]["unknown_category_ids"] = [90, 7]

    source.change("val", unsure)
    label_space, images = coco.read(str(source.annotations_file("val")))
    assert label_space.names_of([column in images[0].unknown_labels for column in range(4)]) == ["tram", "tree"]
    assert images[0].labels == ()


def drop(part: str, key: str) -> Callable[[dict[str, Any]], object]:
    return lambda content: content[part][0].pop(key)


def put(part: str, key: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda content: content[part][0].update({key: value})


FAULTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "unknown image": (
        put("annotations", "image_id", 5),
        r"1 x annotation of an unknown image: annotation 1 of image 5; list the image under 'images' or drop the annotation",
    ),
    "unknown category": (
        put("annotations", "category_id", 12),
        r"1 x annotation of an unknown category: annotation 1 of category 12; list the category under 'categories'",
    ),
    "duplicate image id": (put("images", "id", 903), r"1 x duplicate image id: 903; each image must have its own id"),
    "duplicate file": (
        put("images", "file_name", "COCO_val2014_000000000903.jpg"),
        r"1 x duplicate file_name: COCO_val2014_000000000903.jpg; each file may be listed once",
    ),
    "negative id": (put("images", "id", -4), r"1 x negative image id: -4; sample ids count from 0"),
    "parent": (
        put("images", "file_name", "../secret.jpg"),
        r"unsafe file_name: '../secret.jpg'; allowed: a relative path below",
    ),
    "absolute": (put("images", "file_name", "/etc/passwd"), r"1 x unsafe file_name: '/etc/passwd'"),
    "backslash": (put("images", "file_name", "..\\x.jpg"), r"1 x unsafe file_name"),
    "no name": (put("images", "file_name", ""), r"1 x unsafe file_name: ''"),
    "missing key": (drop("annotations", "category_id"), r"annotations\[0\].category_id is missing; it must be of type int"),
    "wrong type": (put("images", "id", "900"), r"images\[0\].id is '900'; it must be of type int"),
    "boolean id": (put("annotations", "image_id", True), r"annotations\[0\].image_id is True; it must be of type int"),
    "no list": (lambda content: content.pop("annotations"), r"has no list 'annotations'; it must hold categories, images"),
    "no mapping": (
        lambda content: content["images"].insert(0, 3),
        r"images\[0\] is 3; it must be a mapping with id, file_name",
    ),
    "no categories": (
        lambda content: content.update(categories=[], annotations=[]),
        r"'categories' is empty; list at least one category",
    ),
    "double category": (
        lambda content: content["categories"].append({"id": 2, "name": "lion"}),
        r"category id 2 stands more than once",
    ),
    "unknown id that is no category": (
        put("images", "unknown_category_ids", [5]),
        r"unknown_category_ids that fit nothing: image 900: 5; allowed: ids of 'categories'",
    ),
    "unknown ids that are no list": (
        put("images", "unknown_category_ids", "2"),
        r"unknown_category_ids that fit nothing: image 900: '2' is no list of ids; allowed",
    ),
}


@pytest.mark.parametrize(("edit", "message"), FAULTS.values(), ids=FAULTS.keys())
def test_annotation_fault_is_named_with_its_remedy(
    source: Source, edit: Callable[[dict[str, Any]], object], message: str
) -> None:
    source.change("val", edit)
    with pytest.raises(SourceError, match=message) as caught:
        coco.read(str(source.annotations_file("val")))
    assert str(source.annotations_file("val")) in str(caught.value)


def test_a_label_cannot_be_unknown_and_present(source: Source) -> None:
    box = source.annotations("val")["annotations"][0]

    def contradict(content: dict[str, Any]) -> None:
        entry = next(entry for entry in content["images"] if entry["id"] == box["image_id"])
        entry["unknown_category_ids"] = [box["category_id"]]

    source.change("val", contradict)
    with pytest.raises(SourceError, match=rf"image {box['image_id']}: {box['category_id']} is annotated too"):
        coco.read(str(source.annotations_file("val")))


def test_many_faults_are_counted_and_the_first_shown(source: Source) -> None:
    source.change("val", lambda content: [box.update(image_id=1) for box in content["annotations"]])
    with pytest.raises(SourceError, match=r"\d\d x annotation of an unknown image: annotation 1 of image 1, .*, \.\.\.; list"):
        coco.read(str(source.annotations_file("val")))


@pytest.mark.parametrize("text", ["{", "", "\xff\xfe", "[" * 100_000])
def test_broken_json_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(SourceError, match=r"broken\.json is not JSON: .*; download it again"):
        coco.read(str(path))


def test_json_that_is_no_mapping_is_named(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text(json.dumps([1]))
    with pytest.raises(SourceError, match="holds list, not a mapping with categories, images, annotations"):
        coco.read(str(path))
