"""What is found in a folder: splits by names, images wherever they lie, and an error for everything else."""

import json
import re
from pathlib import Path

import pytest

from rayprob.data.building.recipe import Recipe
from rayprob.data.sources.location import split_in
from rayprob.data.sources.spec import Expected
from rayprob.data.sources.table import TableSource
from rayprob.errors import SourceError
from rayprob.project.find import find
from rayprob.project.new import new_from

JPEG = b"\xff\xd8\xff\xe0"
LABELS = ("cat", "dog")


def annotate(path: Path, images: list[str], *, labels: tuple[str, ...] = LABELS, first_id: int = 1, size_px: int = 300) -> None:
    """Write COCO annotations, in which every image but the last shows the first label."""
    entries = [
        {"id": first_id + n, "file_name": name, "height": size_px, "width": 2 * size_px} for n, name in enumerate(images)
    ]
    boxes = [{"id": n, "image_id": entry["id"], "category_id": 1, "bbox": [0, 0, 9, 9]} for n, entry in enumerate(entries[:-1])]
    categories = [{"id": number, "name": name} for number, name in enumerate(labels, 1)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": entries, "annotations": boxes, "categories": categories}))


def images(folder: Path, *names: str, content: bytes = JPEG) -> list[str]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return list(names)


def test_the_layout_of_coco_2014(tmp_path: Path) -> None:
    for split, first_id in (("train", 1), ("val", 10)):
        names = images(tmp_path / f"{split}2014", f"{split}_1.jpg", f"{split}_2.jpg", f"{split}_3.jpg")
        annotate(tmp_path / f"annotations/instances_{split}2014.json", names, first_id=first_id)
        (tmp_path / f"annotations/captions_{split}2014.json").write_text("{}")
    found = find(str(tmp_path))
    assert found.labels == LABELS
    assert {name: (split.images, split.num_labelled, split.num_unlabelled) for name, split in found.splits.items()} == {
        "train": (str(tmp_path / "train2014"), 2, 1),
        "val": (str(tmp_path / "val2014"), 2, 1),
    }
    assert found.short_side_px == 300


def test_images_of_every_kind_that_is_read_are_found(tmp_path: Path) -> None:
    for suffix, content in ((".png", b"\x89PNG\r\n\x1a\n"), (".webp", b"RIFF\0\0\0\0WEBP")):
        names = images(tmp_path / suffix, f"1{suffix}", f"2{suffix}", content=content)
        annotate(tmp_path / suffix / "train.json", names)
        assert find(str(tmp_path / suffix)).splits["train"].num_labelled == 1


def test_images_beside_their_annotations_with_the_same_names_in_each_split(tmp_path: Path) -> None:
    for split, first_id in (("train", 1), ("valid", 10), ("test", 20)):
        names = images(tmp_path / split, "1.jpg", "2.jpg")
        annotate(tmp_path / split / "_annotations.coco.json", names, first_id=first_id)
    found = find(str(tmp_path))
    assert {name: split.images for name, split in found.splits.items()} == {
        "train": str(tmp_path / "train"),
        "val": str(tmp_path / "valid"),
        "test": str(tmp_path / "test"),
    }


def test_a_single_file_trains_whatever_its_name_and_names_may_hold_folders(tmp_path: Path) -> None:
    images(tmp_path / "pictures", "a/1.jpg", "b/1.jpg")
    annotate(tmp_path / "labels.json", ["a/1.jpg", "b/1.jpg"])
    found = find(str(tmp_path))
    assert list(found.splits) == ["train"]
    assert found.splits["train"].images == str(tmp_path / "pictures")


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("instances_train2014.json", "train"),
        ("valid/_annotations.coco.json", "val"),
        ("validation.json", "val"),
        ("train/labels_test.json", "test"),
        ("retrained.json", None),
        ("evaluation.json", None),
    ],
)
def test_the_split_in_a_path(path: str, split: str | None) -> None:
    assert split_in(path) == split


def test_each_mistake_has_a_plain_error(tmp_path: Path) -> None:
    def said(name: str) -> str:
        with pytest.raises(SourceError) as error:
            find(str(tmp_path / name))
        return str(error.value)

    assert "no such file or folder; give the folder that contains images and labels" in said("nothing")
    images(tmp_path / "only-images", "1.jpg", "2.jpg")
    assert "found 2 .jpg; known are coco, voc, yolo" in said("only-images")
    assert "has no layout of images and labels" in said("only-images/1.jpg")
    annotate(tmp_path / "only-labels" / "train.json", ["1.jpg", "2.jpg"])
    assert "none of the images" in said("only-labels")
    annotate(tmp_path / "png" / "train.json", images(tmp_path / "png", "1.gif", "2.gif", content=b"GIF89a"))
    assert "1.gif is a GIF, not a JPEG, PNG or WebP; save one of its frames as PNG" in said("png")
    for name in ("one_train.json", "other_train.json"):
        annotate(tmp_path / "twice" / name, images(tmp_path / "twice", "1.jpg", "2.jpg"))
    assert "are both for train; give one of them" in said("twice")
    for name in ("val.json", "test.json"):
        annotate(tmp_path / "untrained" / name, images(tmp_path / "untrained", "1.jpg", "2.jpg"))
    assert re.search("there are (val, test|test, val) but no train", said("untrained"))
    for name in ("train.json", "other.json"):
        annotate(tmp_path / "unnamed" / name, images(tmp_path / "unnamed", "1.jpg", "2.jpg"))
    assert "other.json does not name a split; put train, val or test into its name, or give one file" in said("unnamed")
    annotate(tmp_path / "spaces" / "train.json", images(tmp_path / "spaces", "1.jpg", "2.jpg"))
    annotate(tmp_path / "spaces" / "val.json", ["1.jpg", "2.jpg"], labels=("cat", "cow"), first_id=9)
    assert "cow" in said("spaces")
    annotate(tmp_path / "unlabelled" / "train.json", images(tmp_path / "unlabelled", "1.jpg"))
    assert "none has a label" in said("unlabelled")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "train.json").write_text('{"images": [')
    assert "cut short" in said("broken")


def test_labels_in_other_formats_become_a_recipe_that_reads_them(tmp_path: Path) -> None:
    images(tmp_path / "data/pictures", "1.jpg", "2.jpg", "3.jpg")
    (tmp_path / "data/labels.csv").write_text("file,cat,dog\n1.jpg,1,0\n2.jpg,1,1\n3.jpg,0,0\n")
    for given in ("data", "data/labels.csv"):
        found = find(str(tmp_path / given))
        assert found.labels == LABELS
        assert (found.splits["train"].num_labelled, found.splits["train"].num_unlabelled) == (2, 1)
    written, _, _ = new_from(str(tmp_path / "project"), str(tmp_path / "data"))
    recipe = Recipe.read(written.folder / "shards/project.yaml")
    assert recipe.splits["train"].model_dump() == {
        **TableSource(images="", annotations="", one_hot="").model_dump(),
        "format": "table",
        "images": str(tmp_path / "data/pictures"),
        "annotations": str(tmp_path / "data/labels.csv"),
        "image": "file",
        "one_hot": "cat..dog",
        "expect": Expected(labelled=2, unlabelled=1).model_dump(),
    }
