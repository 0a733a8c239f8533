"""What is recognised in a folder or file is what its labels are; what is not has a plain error."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from rayprob.data.sources.recognise import recognise
from rayprob.errors import SourceError
from tests.data.small_source import draw_jpeg
from tests.data.sources.layouts import metadata
from tests.data.sources.stated_labels import present_in
from tests.data.sources.test_same_labels import NAMES, WRITERS, Pictures, as_coco, write_images

PICTURES: Pictures = {
    f"{number:03d}": (draw_jpeg(number, 24, 24), [name for bit, name in enumerate(NAMES) if (number % 7 + 1) >> bit & 1])
    for number in range(12)
}
FORMATS = {
    "csv": "table",
    "parquet": "huggingface",
    **{name: name for name in ("voc", "folders", "yolo", "webdataset", "coco")},
}


def labels(recipe: dict[str, Any]) -> dict[str, dict[str, set[str]]]:
    return {split: present_in(**source) for split, source in recipe["splits"].items()}


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_recognised_and_read(tmp_path: Path, name: str) -> None:
    source = {**WRITERS, "coco": as_coco}[name](tmp_path / "data", PICTURES)
    found = recognise(str(tmp_path / "data"))
    assert found.format == FORMATS[name]
    assert labels(found.recipe) == {"train": present_in(**source)}
    assert set(found.labels) == set(NAMES)
    split = found.splits["train"]
    assert (split.num_images, split.num_missing, split.num_labelled, split.num_unknown) == (12, 0, 12, 0)
    assert split.rest == "absent"
    cats = sum("cat" in some for _, some in PICTURES.values())
    assert split.prevalence["cat"] == pytest.approx(cats / 12)


@pytest.mark.parametrize("name", ["coco", "yolo", "folders", "webdataset", "parquet", "csv"])
def test_splits_are_those_of_the_names(tmp_path: Path, name: str) -> None:
    writer = {**WRITERS, "coco": as_coco}[name]
    for split, some in (("train", list(PICTURES)[:8]), ("valid", list(PICTURES)[8:])):
        writer(tmp_path / split, {picture: PICTURES[picture] for picture in some})
    found = recognise(str(tmp_path))
    assert {split: one.num_images for split, one in found.splits.items()} == {"train": 8, "val": 4}


def write(folder: Path, name: str, text: str) -> Path:
    write_images(folder / "images", PICTURES)
    (folder / name).write_text(text)
    return folder


def test_a_table_with_lists_and_a_column_of_splits(tmp_path: Path) -> None:
    rows = ["Image Index,Finding Labels,split", "000.jpg,No Finding,train", "001.jpg,Mass|Edema,train", "002.jpg,Mass,test"]
    found = recognise(str(write(tmp_path, "labels.csv", "\n".join(rows))))
    assert found.recipe["splits"]["train"] == {
        "format": "table",
        "images": str(tmp_path / "images"),
        "annotations": str(tmp_path / "labels.csv"),
        "image": "Image Index",
        "lists": "Finding Labels",
        "separator": "|",
        "no_label": ["No Finding"],
        "where": {"split": "train"},
    }
    assert labels(found.recipe) == {"train": {"000": set(), "001": {"Mass", "Edema"}}, "test": {"002": {"Mass"}}}


def test_a_table_with_a_row_per_label_leaves_the_rest_unknown(tmp_path: Path) -> None:
    rows = ["ImageID,Source,LabelName,Confidence", "000,verification,cat,1", "000,verification,dog,0", "001,verification,dog,1"]
    found = recognise(str(write(tmp_path, "labels.csv", "\n".join(rows))))
    split = found.splits["train"]
    assert (split.rest, split.num_images, split.num_unknown) == ("unknown", 2, 1)
    assert split.prevalence == {"cat": 1.0, "dog": 0.5}


def test_names_that_begin_with_the_folder_itself_count_from_its_parent(tmp_path: Path) -> None:
    write_images(tmp_path / "Xpert-small/train/patient1", PICTURES)
    rows = ["Path,Sex,Age,View,Edema,Fracture", *(f"Xpert-small/train/patient1/{n:03d}.jpg,F,0,AP,1.0,-1.0" for n in range(3))]
    (tmp_path / "Xpert-small/train.csv").write_text("\n".join(rows))
    source = recognise(str(tmp_path / "Xpert-small")).recipe["splits"]["train"]
    assert source["images"] == str(tmp_path)
    assert (source["one_hot"], source["values"]) == ("Edema..Fracture", {"-1": "unknown"})


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_a_metadata_file_is_one_of_hugging_face(tmp_path: Path, name: str) -> None:
    metadata(name)(tmp_path / "data", PICTURES)
    found = recognise(str(tmp_path / "data"))
    assert found.format == "huggingface"
    assert labels(found.recipe) == {"train": {key: set(some) for key, (_, some) in PICTURES.items()}}


def test_images_that_are_not_there_are_counted(tmp_path: Path) -> None:
    as_coco(tmp_path, PICTURES)
    (tmp_path / "images/003.jpg").unlink()
    split = recognise(str(tmp_path)).splits["train"]
    assert (split.num_images, split.num_missing) == (12, 1)


def test_a_file_may_be_pointed_at(tmp_path: Path) -> None:
    folder = write(tmp_path, "a.csv", "image,cat,dog\n000.jpg,1,0\n001.jpg,0,1\n")
    shutil.copy(folder / "a.csv", folder / "b.csv")
    with pytest.raises(
        SourceError, match=r"tables: a.csv does not name a split; put train, val or test into its name, or give"
    ):
        recognise(str(folder))
    assert recognise(str(folder / "a.csv")).recipe["splits"]["train"]["one_hot"] == "cat..dog"


def test_several_formats_are_named(tmp_path: Path) -> None:
    as_coco(tmp_path, PICTURES)
    (tmp_path / "labels.csv").write_text("image,cat,dog\n000.jpg,1,0\n001.jpg,0,1\n")
    with pytest.raises(SourceError, match=r"could be coco or table; give the file with the labels"):
        recognise(str(tmp_path))
    assert recognise(str(tmp_path / "labels.json")).format == "coco"


def test_what_is_not_recognised_has_a_plain_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nothing: no such file or folder; give the folder that contains images and labels"):
        recognise(str(tmp_path / "nothing"))
    write_images(tmp_path / "only", PICTURES)
    with pytest.raises(SourceError, match=r"has no layout .*; found 12 .jpg; known are coco, voc, yolo"):
        recognise(str(tmp_path / "only"))
    (tmp_path / "only/broken.json").write_text('{"images": [')
    with pytest.raises(SourceError, match=r"tried coco: .*broken.json is cut short"):
        recognise(str(tmp_path / "only"))
