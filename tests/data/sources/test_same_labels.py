"""The same images and labels in seven formats give the same dataset of labels, and the same batches bit for bit."""

import csv
import io
import itertools
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from rayprob.data.building.build import build, in_process
from rayprob.data.building.recipe import Recipe
from rayprob.data.building.shard import BuiltShard, ShardJob
from rayprob.data.manifest.dataset import Dataset
from rayprob.data.manifest.label_fingerprint import label_fingerprint
from rayprob.data.verify import verify
from rayprob.errors import StorageError
from rayprob.loader.augment import StrongSpec, TransformSpec, build_transform
from rayprob.loader.order import Cursor, Place
from rayprob.loader.streams import Batch, EvalStream, StreamSpec, TrainStream
from tests.data.small_source import draw_jpeg

NAMES = ["cat", "dog", "traffic light"]
Pictures = dict[str, tuple[bytes, list[str]]]
COUNTS = {"train": 24, "val": 8}


@pytest.fixture(scope="module")
def pictures() -> dict[str, Pictures]:
    """JPEG and labels of each image by its name, for each split."""

    def picture(number: int) -> tuple[bytes, list[str]]:
        return draw_jpeg(number, 40 + number, 50), [name for bit, name in enumerate(NAMES) if (number % 7 + 1) >> bit & 1]

    first = {"train": 1, "val": 101}
    return {
        split: {f"{number:06d}": picture(number) for number in range(first[split], first[split] + count)}
        for split, count in COUNTS.items()
    }


def write_images(folder: Path, pictures: Pictures) -> Path:
    folder.mkdir(parents=True)
    for name, (jpeg, _) in pictures.items():
        (folder / f"{name}.jpg").write_bytes(jpeg)
    return folder


def as_coco(folder: Path, pictures: Pictures) -> dict[str, Any]:
    images = [{"id": int(name), "file_name": f"{name}.jpg"} for name in pictures]
    boxes = [
        {"image_id": int(name), "category_id": NAMES.index(label)} for name, (_, some) in pictures.items() for label in some
    ]
    categories = [{"id": number, "name": name} for number, name in enumerate(NAMES)]
    write_images(folder / "images", pictures)
    (folder / "labels.json").write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories}))
    return {"images": str(folder / "images"), "annotations": str(folder / "labels.json")}


def as_voc(folder: Path, pictures: Pictures) -> dict[str, Any]:
    write_images(folder / "JPEGImages", pictures)
    (folder / "Annotations").mkdir()
    (folder / "ImageSets/Main").mkdir(parents=True)
    (folder / "ImageSets/Main/all.txt").write_text("".join(f"{name}\n" for name in pictures))
    for name, (_, labels) in pictures.items():
        objects = "".join(f"<object><name>{escape(label)}</name></object>" for label in labels)
        (folder / f"Annotations/{name}.xml").write_text(f"<annotation>{objects}</annotation>")
    return {"format": "voc", "images": str(folder), "set": "all"}


def as_csv(folder: Path, pictures: Pictures) -> dict[str, Any]:
    write_images(folder / "images", pictures)
    with open(folder / "labels.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", *NAMES])
        writer.writerows([name, *(int(label in labels) for label in NAMES)] for name, (_, labels) in pictures.items())
    return {"format": "table", "images": str(folder / "images"), "annotations": str(folder / "labels.csv"), "one_hot": "2.."}


def as_parquet(folder: Path, pictures: Pictures) -> dict[str, Any]:
    folder.mkdir(parents=True)
    table = {
        "image": [{"bytes": jpeg, "path": f"{name}.jpg"} for name, (jpeg, _) in pictures.items()],
        "labels": [labels for _, labels in pictures.values()],
    }
    pq.write_table(pa.table(table), folder / "data.parquet", row_group_size=5)
    return {"format": "huggingface", "images": str(folder / "data.parquet")}


def as_folders(folder: Path, pictures: Pictures) -> dict[str, Any]:
    for name, (jpeg, labels) in pictures.items():
        for label in labels:
            (folder / label).mkdir(parents=True, exist_ok=True)
            (folder / label / f"{name}.jpg").write_bytes(jpeg)
    return {"format": "folders", "images": str(folder)}


def as_yolo(folder: Path, pictures: Pictures) -> dict[str, Any]:
    write_images(folder / "images", pictures)
    (folder / "labels").mkdir()
    for name, (_, labels) in pictures.items():
        lines = [f"{NAMES.index(label)} 0.5 0.5 1 1\n" for label in labels]
        (folder / f"labels/{name}.txt").write_text("".join(lines))
    (folder / "classes.txt").write_text("\n".join(NAMES))
    return {"format": "yolo", "images": str(folder / "images"), "names": str(folder / "classes.txt")}


def as_webdataset(folder: Path, pictures: Pictures) -> dict[str, Any]:
    folder.mkdir(parents=True)
    for part, names in enumerate((list(pictures)[:5], list(pictures)[5:])):
        of_part = {name: pictures[name] for name in names}
        write_tar(
            folder / f"{part:03d}.tar",
            [
                member
                for name, (jpeg, labels) in of_part.items()
                for member in ((f"{name}.jpg", jpeg), (f"{name}.json", json.dumps({"labels": labels}).encode()))
            ],
        )
    return {"format": "webdataset", "images": str(folder / "{000..001}.tar")}


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


WRITERS: dict[str, Callable[[Path, Pictures], dict[str, Any]]] = {
    "voc": as_voc,
    "csv": as_csv,
    "parquet": as_parquet,
    "folders": as_folders,
    "yolo": as_yolo,
    "webdataset": as_webdataset,
}


def built(folder: Path, write: Callable[[Path, Pictures], dict[str, Any]], pictures: dict[str, Pictures]) -> Dataset:
    splits = {split: write(folder / split, some) for split, some in pictures.items()}
    recipe = {"name": "same", "splits": splits, "target": str(folder / "built"), "holdout": {"fraction": 0.3}}
    build(Recipe.parse({**recipe, "max_shard_samples": 7}), run_tasks=in_process)
    shutil.rmtree(folder / "train")  # a dataset needs its source no more
    assert verify(str(folder / "built")) == []
    assert not (folder / "built/.build").exists()
    return Dataset.open(str(folder / "built"))


def batches(dataset: Dataset) -> Iterator[Batch]:
    """Yield what two epochs of training see, and then all of val."""
    spec = StreamSpec(global_batch=4, lanes=2, window_shards=2, loader_workers=0)
    strong = build_transform(TransformSpec(name="strong", size_px=16, strong=StrongSpec(randaugment_ops=1)))
    train = TrainStream(dataset.split("train"), spec, strong, seed=7, place=Place(), micro_batch=4)
    yield from itertools.islice(train.iterate(Cursor(0, 0)), 6)
    resize = build_transform(TransformSpec(name="resize", size_px=16))
    yield from EvalStream(dataset.split("val"), spec, resize, place=Place(), micro_batch=4)


@pytest.fixture(scope="module")
def as_in_coco(tmp_path_factory: pytest.TempPathFactory, pictures: dict[str, Pictures]) -> Dataset:
    return built(tmp_path_factory.mktemp("coco"), as_coco, pictures)


@pytest.mark.parametrize("name", WRITERS)
def test_a_format_gives_the_labels_and_batches_of_coco(
    tmp_path: Path, as_in_coco: Dataset, pictures: dict[str, Pictures], name: str
) -> None:
    dataset = built(tmp_path, WRITERS[name], pictures)
    assert label_fingerprint(dataset) == label_fingerprint(as_in_coco)
    ours, theirs = (list(batches(one)) for one in (dataset, as_in_coco))
    assert len(ours) == len(theirs) > 6
    for batch, other in zip(ours, theirs, strict=True):
        for tensor in ("images_BCHW", "targets_BL", "known_BL", "sample_ids_B"):
            assert torch.equal(getattr(batch, tensor), getattr(other, tensor))


def test_a_stopped_build_of_parquet_is_finished_to_the_same_bytes(tmp_path: Path, pictures: dict[str, Pictures]) -> None:
    whole = built(tmp_path / "whole", as_parquet, pictures)

    def stop_after_two(write: Callable[[ShardJob], BuiltShard], jobs: Sequence[ShardJob]) -> Iterator[BuiltShard]:
        yield from map(write, jobs[:2])
        raise KeyboardInterrupt

    splits = {split: as_parquet(tmp_path / split, some) for split, some in pictures.items()}
    recipe = Recipe.parse({**whole.facts["recipe"], "splits": splits, "target": str(tmp_path / "stopped")})
    with pytest.raises(KeyboardInterrupt):
        build(recipe, run_tasks=stop_after_two)
    summary = build(recipe, run_tasks=in_process)
    assert summary.shards_continued == 2
    assert summary.facts["fingerprint"] == whole.fingerprint
    assert not (tmp_path / "stopped/.build").exists()


def test_a_container_that_is_gone_is_named(tmp_path: Path, pictures: dict[str, Pictures]) -> None:
    source = as_webdataset(tmp_path / "train", pictures["train"])
    recipe = Recipe.parse({"name": "x", "splits": {"train": source}, "holdout": None, "target": str(tmp_path / "built")})

    def too_late(write: Callable[[ShardJob], BuiltShard], jobs: Sequence[ShardJob]) -> Iterator[BuiltShard]:
        (tmp_path / "train/001.tar").unlink()
        return map(write, jobs)

    with pytest.raises(StorageError, match=r"train/001.tar was there when the build began and cannot be read now"):
        build(recipe, run_tasks=too_late)
