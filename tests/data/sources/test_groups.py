"""Groups: images with the same value of a column, of a key, or of a part of their file name belong together."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayprob.data.sources.rows import ALONE, rows_of
from rayprob.errors import SourceError, SpecError
from tests.data.small_source import draw_jpeg
from tests.data.sources.stated_labels import read
from tests.data.sources.test_same_labels import write_tar

PATIENTS = {"1.jpg": "A", "2.jpg": "B", "3.jpg": "A", "4.jpg": ""}
EXPECTED = [["1", "3"], ["2"], ["4"]]


def grouped(**source: Any) -> list[list[str]]:
    """Return the keys of images by group, those of no group one by one."""
    keys: dict[Any, list[str]] = defaultdict(list)
    for row in rows_of(read(**source).batches):
        keys[row.key if row.group == ALONE else row.group].append(row.key.removesuffix(".jpg"))
    return sorted(keys.values())


def write(path: Path, content: str) -> str:
    path.write_text(content)
    return str(path)


def test_a_column_of_a_table_in_each_of_its_forms(tmp_path: Path) -> None:
    wide = "".join(f"{name},{who},1,0\n" for name, who in PATIENTS.items())
    uri = write(tmp_path / "wide.csv", f"image,patient,cat,dog\n{wide}")
    assert grouped(format="table", images=".", annotations=uri, one_hot="cat..dog", group="patient") == EXPECTED
    assert grouped(format="table", images=".", annotations=uri, one_hot="3..", group=2) == EXPECTED
    long = "".join(f"{name},{label},{who}\n" for name, who in PATIENTS.items() for label in ("cat", "dog"))
    uri = write(tmp_path / "long.csv", f"image,label,patient\n{long}")
    assert grouped(format="table", images=".", annotations=uri, label="label", group="patient") == EXPECTED


def test_a_key_of_coco_images_where_numbers_and_text_are_the_same_group(tmp_path: Path) -> None:
    images = [{"id": int(name[0]), "file_name": name, "patient": who or None} for name, who in PATIENTS.items()]
    images[1]["patient"] = 7
    images.append({"id": 5, "file_name": "5.jpg", "patient": "7"})
    content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    uri = write(tmp_path / "labels.json", json.dumps(content))
    assert grouped(images=".", annotations=uri, group="patient") == [["1", "3"], ["2", "5"], ["4"]]


def test_a_key_of_json_in_tars(tmp_path: Path) -> None:
    documents = {name[0]: {"labels": ["cat"], "meta": {"patient": who}} for name, who in PATIENTS.items()}
    members = [
        member
        for key, document in documents.items()
        for member in ((f"{key}.jpg", draw_jpeg(1, 8, 8)), (f"{key}.json", json.dumps(document).encode()))
    ]
    write_tar(tmp_path / "0.tar", members)
    assert grouped(format="webdataset", images=str(tmp_path / "0.tar"), group="meta.patient") == EXPECTED


def test_a_column_of_a_hugging_face_dataset(tmp_path: Path) -> None:
    images = [{"bytes": b"x", "path": name} for name in PATIENTS]
    table = pa.table({"image": images, "labels": [["cat"]] * 4, "patient": list(PATIENTS.values())})
    pq.write_table(table, tmp_path / "data.parquet")
    assert grouped(format="huggingface", images=str(tmp_path / "data.parquet"), group="patient") == EXPECTED
    with pytest.raises(SourceError, match="unknown column 'patients'; nearest: patient"):
        grouped(format="huggingface", images=str(tmp_path / "data.parquet"), group="patients")
    lines = [json.dumps({"file_name": name, "labels": "cat", "patient": who}) for name, who in PATIENTS.items()]
    write(tmp_path / "metadata.jsonl", "\n".join(lines))
    assert grouped(format="huggingface", images=str(tmp_path), group="patient") == EXPECTED


@pytest.mark.parametrize("group", ["image", "name", "labels", "label"])
def test_a_column_that_is_also_read_for_something_else(tmp_path: Path, group: str) -> None:
    images = [{"bytes": name.encode(), "path": name} for name in ("1.jpg", "2.jpg", "3.jpg")]
    columns = {"image": images, "name": ["1", "2", "3"], "label": ["cat", "dog", "cat"], "labels": [["cat"], ["dog"], ["cat"]]}
    pq.write_table(pa.table(columns), tmp_path / "data.parquet")
    found = grouped(format="huggingface", images=str(tmp_path / "data.parquet"), key="name", label="label", group=group)
    assert found == ([["1"], ["2"], ["3"]] if group in ("image", "name") else [["1", "3"], ["2"]])


def table_of(folder: Path, names: list[str], **keys: Any) -> dict[str, Any]:
    uri = write(folder / "names.csv", "image,cat\n" + "".join(f"{name},1\n" for name in names))
    return {"format": "table", "images": ".", "annotations": uri, "one_hot": 2, **keys}


def test_a_part_of_the_file_name_in_any_format(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ["a/1.jpg", "a/2.jpg", "b/1.jpg", "3.jpg"]
    found = grouped(**table_of(tmp_path, names, group_pattern="^([^/]+)/"))
    assert found == [["3"], ["a/1", "a/2"], ["b/1"]]
    assert "1 of 4 images, such as '3.jpg', have no group; each may be in any split" in caplog.text
    assert grouped(**table_of(tmp_path, names, group_pattern=r"\d")) == [["3"], ["a/1", "b/1"], ["a/2"]]


def test_groups_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"group_pattern gives none of the 1 images a group, such as '1.jpg'; correct group_"):
        grouped(**table_of(tmp_path, ["1.jpg"], group_pattern="patient"))
    with pytest.raises(SourceError, match="unknown column 'patient'; allowed: image, cat"):
        grouped(**table_of(tmp_path, ["1.jpg"], group="patient"))
    with pytest.raises(SpecError, match=r"group_pattern: is not a regular expression: .*"):
        read(**table_of(tmp_path, ["1.jpg"], group_pattern="("))
    with pytest.raises(SpecError, match="group and group_pattern are both set; keep one"):
        read(**table_of(tmp_path, ["1.jpg"], group_pattern="a", group="cat"))


def test_one_image_in_two_groups_is_refused(tmp_path: Path) -> None:
    uri = write(tmp_path / "long.csv", "image,label,patient\n1.jpg,cat,A\n1.jpg,dog,B\n")
    with pytest.raises(SourceError, match=r"long.csv: '1.jpg' has two groups in 'patient'; give each image one"):
        grouped(format="table", images=".", annotations=uri, label="label", group="patient")
