"""COCO annotations become rows; everything that is wrong with them is named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pycocotools.coco import COCO

from rayprob.data.sources import coco, coco_stream, json_stream
from rayprob.errors import SourceError
from tests.data.small_source import Source, read_coco


@pytest.fixture(params=[False, True], ids=["whole", "streamed"], autouse=True)
def is_streamed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether files are read as a stream, as large ones are: rows and faults are the same."""
    if request.param:
        monkeypatch.setattr(coco, "STREAMED_BYTES", 0)
        monkeypatch.setattr(json_stream, "WINDOW_BYTES", 100)
    return bool(request.param)


def test_rows_equal_those_that_pycocotools_gives(source: Source, capsys: pytest.CaptureFixture[str]) -> None:
    label_space, images = read_coco(source.annotations_file("train"))
    assert capsys.readouterr().out == "", "pycocotools must not print"
    oracle = COCO(str(source.annotations_file("train")))
    assert list(label_space.category_ids) == sorted(oracle.getCatIds())
    assert [int(image.key) for image in images] == list(oracle.imgs)
    for image in images:
        boxes = oracle.loadAnns(oracle.getAnnIds(imgIds=[int(image.key)], iscrowd=None))
        categories = sorted({box["category_id"] for box in boxes})
        assert [label_space.category_ids[column] for column in image.labels] == categories
        areas = [max(box["area"] for box in boxes if box["category_id"] == category) for category in categories]
        assert list(image.label_areas_px2) == areas
        entry = oracle.imgs[int(image.key)]
        assert (image.file_name, image.height_px, image.width_px) == (entry["file_name"], entry["height"], entry["width"])


def test_images_of_a_stream_meet_their_annotations_group_by_group(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    def shuffle(content: dict[str, Any]) -> None:
        content["annotations"] = content["annotations"][::3] + content["annotations"][1::3] + content["annotations"][2::3]
        content["images"] = content["images"][::2] + content["images"][1::2]

    source.change("train", shuffle)
    monkeypatch.setattr(coco, "STREAMED_BYTES", 2**40)
    whole = read_coco(source.annotations_file("train"))
    monkeypatch.setattr(coco, "STREAMED_BYTES", 0)
    monkeypatch.setattr(coco, "read_json", lambda *_: pytest.fail("read as a whole"))
    monkeypatch.setattr(coco_stream, "CHUNK_ROWS", 3)
    monkeypatch.setattr(coco_stream, "GROUP_CHUNKS", 2)
    assert read_coco(source.annotations_file("train")) == whole


def test_columns_follow_category_ids_not_the_order_of_the_file(source: Source) -> None:
    label_space, _ = read_coco(source.annotations_file("val"))
    assert label_space.names == ("cat", "dog", "tram", "tree")


def test_a_crowd_alone_makes_a_label_present(source: Source) -> None:
    def only_a_crowd(content: dict[str, Any]) -> None:
        content["annotations"] = [{"id": 1, "image_id": 905, "category_id": 90, "area": 9, "iscrowd": 1}]

    source.change("val", only_a_crowd)
    label_space, images = read_coco(source.annotations_file("val"))
    labels = {int(image.key): image.labels for image in images}
    assert labels[905] == (label_space.column("tree"),)
    assert not any(labels[sample_id] for sample_id in labels if sample_id != 905)


def test_area_falls_back_to_the_box(source: Source) -> None:
    boxes = [{"id": 1, "image_id": 905, "category_id": 2, "bbox": [1, 1, 4, 5]}, {"id": 2, "image_id": 905, "category_id": 3}]
    source.change("val", lambda content: content.update(annotations=boxes))
    _, images = read_coco(source.annotations_file("val"))
    assert next(image.label_areas_px2 for image in images if int(image.key) == 905) == (20.0, 0.0)


def test_unknown_labels_are_read_beside_the_present_ones(source: Source) -> None:
    def unsure(content: dict[str, Any]) -> None:
        content["images"][0]["unknown_category_ids"] = [90, 7]

    source.change("val", unsure)
    label_space, images = read_coco(source.annotations_file("val"))
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
    "backslash between folders": (
        put("images", "file_name", "dir\\0.jpg"),
        r"1 x backslash in a file_name: 'dir\\\\0.jpg'; write / between folders, as in dir/0.jpg",
    ),
    "URL": (
        put("images", "file_name", "http://example.com/0.jpg"),
        r"1 x file_name that is a URL: 'http://example.com/0.jpg'; download the images",
    ),
    "NUL": (put("images", "file_name", "a\0.jpg"), r"1 x unsafe file_name: 'a\\x00.jpg'"),
    "half a surrogate pair": (put("images", "file_name", "\ud800.jpg"), r"1 x unsafe file_name: '\\ud800.jpg'"),
    "duplicate file by another path": (
        put("images", "file_name", "./COCO_val2014_000000000903.jpg"),
        r"1 x duplicate file_name: COCO_val2014_000000000903.jpg",
    ),
    "id of 2^63": (put("images", "id", 2**63), r"1 x image id beyond 64 bits: 9223372036854775808; allowed: below 2\^63"),
    "id that is a float": (put("images", "id", 3.0), r"images\[0\].id is 3.0; it must be of type int"),
    "id that cannot be hashed": (put("annotations", "category_id", [2]), r"annotations\[0\].category_id is \[2\]; it must be"),
    "category of another type": (put("annotations", "category_id", 2.0), r"annotations\[0\].category_id is 2.0; it must be"),
    "large category id": (put("categories", "id", -(2**70)), r"1 x category id beyond 64 bits: -1180591620717411303424"),
    "empty label": (put("categories", "name", ""), r"1 x empty or padded label name: ''; name each category, without blanks"),
    "padded label": (put("categories", "name", "cat "), r"1 x empty or padded label name: 'cat '"),
    "unprintable label": (put("categories", "name", "a\x1b[1m"), r"1 x label name that cannot be printed: 'a\\x1b\[1m'"),
    "surrogate in a label": (put("categories", "name", "\ud800"), r"1 x label name that cannot be printed: '\\ud800'"),
    "label in two forms": (
        lambda content: content["categories"].extend([{"id": 8, "name": "\u00e9"}, {"id": 9, "name": "e\u0301"}]),
        r"1 x duplicate label name: '\u00e9'; each category must have its own name",
    ),
    "blank label": (put("categories", "name", " "), r"1 x empty or padded label name: ' '"),
    "mapping of images": (
        lambda content: content.update(images={"1": {}}),
        r"'images' is {'1': {}}; it must be a list of mappings with id, file_name",
    ),
    "null among annotations": (
        lambda content: content["annotations"].insert(0, None),
        r"annotations\[0\] is None; it must be a mapping with image_id, category_id",
    ),
    "a list as a label": (
        put("categories", "name", [["a"] * 900]),
        r"categories\[0\].name is \[\['a', .*; it must be of type str",
    ),
    "a truth as an unknown id": (put("images", "unknown_category_ids", [True]), r"image 900: \[True\] is not a list of ids"),
    "no name": (put("images", "file_name", ""), r"1 x unsafe file_name: ''"),
    "missing key": (drop("annotations", "category_id"), r"annotations\[0\].category_id is missing; it must be of type int"),
    "wrong type": (put("images", "id", [900]), r"images\[0\].id is \[900\]; it must be of type int or str"),
    "boolean id": (put("annotations", "image_id", True), r"annotations\[0\].image_id is True; it must be of type int"),
    "no list": (lambda content: content.pop("annotations"), r"has no list 'annotations'; it must contain categories, images"),
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
        r"1 x duplicate category id: 2; each category must have its own id",
    ),
    "unknown id that is no category": (
        put("images", "unknown_category_ids", [5]),
        r"wrong unknown_category_ids: image 900: 5; allowed: ids in 'categories'",
    ),
    "unknown ids that are no list": (
        put("images", "unknown_category_ids", "2"),
        r"wrong unknown_category_ids: image 900: '2' is not a list of ids; allowed",
    ),
}


@pytest.mark.parametrize(("edit", "message"), FAULTS.values(), ids=FAULTS.keys())
def test_annotation_fault_is_named_with_its_remedy(
    source: Source, edit: Callable[[dict[str, Any]], object], message: str
) -> None:
    source.change("val", edit)
    with pytest.raises(SourceError, match=message) as caught:
        read_coco(source.annotations_file("val"))
    assert str(source.annotations_file("val")) in str(caught.value)


def test_a_label_cannot_be_unknown_and_present(source: Source) -> None:
    box = source.annotations("val")["annotations"][0]

    def contradict(content: dict[str, Any]) -> None:
        entry = next(entry for entry in content["images"] if entry["id"] == box["image_id"])
        entry["unknown_category_ids"] = [box["category_id"]]

    source.change("val", contradict)
    with pytest.raises(SourceError, match=rf"image {box['image_id']}: {box['category_id']} is annotated too"):
        read_coco(source.annotations_file("val"))


def test_many_faults_are_counted_and_the_first_shown(source: Source) -> None:
    source.change("val", lambda content: [box.update(image_id=1) for box in content["annotations"]])
    with pytest.raises(SourceError, match=r"\d\d x annotation of an unknown image: annotation 1 of image 1, .*, \.\.\.; list"):
        read_coco(source.annotations_file("val"))


NOT_COCO: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty; download it again"),
    "blank": (b"\xef\xbb\xbf \n", "is empty; download it again"),
    "cut": (b'{"images": [{"id": 1', "is cut short: it ends in the middle of a value .*; download it again"),
    "cut in a string": (
        b'{"images": [{"file_name": "a',
        "is cut short: it ends in the middle of a value .*; download it again",
    ),
    "broken": (b'{"images": [}, "x": 1}', "is not JSON: .*; fix it there, or download it again"),
    "CSV": (
        b"image,labels\n0.jpg,cat\n",
        "looks like CSV, not COCO JSON: it begins 'image,labels'; set format: table in the recipe",
    ),
    "text": (b"cat\ndog\n", "looks like plain text, not COCO JSON: it begins 'cat'"),
    "HTML": (b"<!DOCTYPE html>\n<html>", "looks like HTML or XML, not COCO JSON: it begins '<!DOCTYPE html>'"),
    "JSON lines": (b'{"id": 1}\n{"id": 2}\n', r"contains more than one JSON value \(the second starts at line 2\)"),
    "gzip": (b"\x1f\x8b\x08\x00 ...", r"is a gzip archive that cannot be unpacked \(.*\); download it again"),
    "VOC": (b"<annotation><object/></annotation>", "looks like Pascal VOC's XML, not COCO JSON; set format: voc"),
    "ZIP": (b"PK\x03\x04 ...", "is a ZIP archive, not COCO JSON; unpack it"),
    "image": (b"\xff\xd8\xff\xe0 ...", "is a JPEG image, not COCO JSON; give the annotations file"),
    "Latin-1": (b'{"images": "caf\xe9"}', "is not text in UTF-8: .* at byte 15; save it as UTF-8"),
    "deep": (b"[" * 3000, "is not readable JSON: it is nested too deeply; export it again"),
    "long number": (b"1" * 5000, "is not readable JSON: Exceeds the limit .*; export it again"),
    "a list": (b"[1]", "contains list, not a mapping with categories, images, annotations"),
    "a key twice": (b'{"images": [], "images": []}', "the key 'images' is given twice in one mapping; keep one"),
}


@pytest.mark.parametrize(("content", "message"), NOT_COCO.values(), ids=NOT_COCO.keys())
def test_a_file_that_is_something_else_is_said_to_be_that(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "train.json"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=rf"train\.json:? {message}"):
        read_coco(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_any_encoding_of_unicode_is_read(source: Source, encoding: str) -> None:
    path = source.annotations_file("val")
    before = read_coco(path)
    path.write_bytes(path.read_text().encode(encoding))
    assert read_coco(path) == before


NO_NUMBERS = [None, "", "20px", "nan", float("nan"), float("inf"), -5, [1], {}, True, 10**400, 1e300]


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
def test_geometry_that_is_no_number_is_absent(source: Source, value: Any) -> None:
    boxes = [{"id": 1, "image_id": 905, "category_id": 2, "area": value}]
    boxes += [{"id": 2, "image_id": 905, "category_id": 3, "area": value, "bbox": [1, 1, 4, 5]}]
    boxes += [{"id": 3, "image_id": 905, "category_id": 7, "bbox": [0, 0, value, 5]}]
    boxes += [{"id": 4, "image_id": 905, "category_id": 90, "bbox": value}]

    def without_geometry(content: dict[str, Any]) -> None:
        content["annotations"] = boxes
        content["images"][5].update(height=value, width=value)

    source.change("val", without_geometry)
    _, images = read_coco(source.annotations_file("val"))
    image = next(image for image in images if int(image.key) == 905)
    assert (image.labels, image.label_areas_px2) == ((0, 1, 2, 3), (0.0, 20.0, 0.0, 0.0))
    assert (image.height_px, image.width_px) == (0, 0)


def test_numbers_written_as_text_are_numbers(source: Source) -> None:
    boxes = [{"id": 1, "image_id": 905, "category_id": 2, "area": "12.5"}]
    boxes += [{"id": 2, "image_id": 905, "category_id": 3, "bbox": ["1", "1", "4", "5"]}]
    source.change("val", lambda content: content.update(annotations=boxes))
    _, images = read_coco(source.annotations_file("val"))
    assert next(image.label_areas_px2 for image in images if int(image.key) == 905) == (12.5, 20.0)
