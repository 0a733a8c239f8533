"""A small generated source in COCO layout that tests may break."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg

from rayprob.data.building.build import Summary, build, in_process
from rayprob.data.building.recipe import Recipe
from rayprob.data.sources import coco
from rayprob.data.sources.coco import CocoSource
from rayprob.data.sources.rows import ImageRow, rows_of
from rayprob.labels import LabelSpace

CATEGORIES = [{"id": 7, "name": "tram"}, {"id": 2, "name": "cat"}, {"id": 3, "name": "dog"}, {"id": 90, "name": "tree"}]
FIRST_ID = {"train": 100, "val": 900}


def draw_jpeg(seed: int, height_px: int, width_px: int, colorspace: str = "RGB") -> bytes:
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 255, (5, 7, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (width_px, height_px), interpolation=cv2.INTER_CUBIC)
    if colorspace == "GRAY":
        return bytes(simplejpeg.encode_jpeg(image[:, :, :1].copy(), colorspace="GRAY", colorsubsampling="Gray"))
    return bytes(simplejpeg.encode_jpeg(image, quality=92))


@dataclass
class Source:
    """A source on disk: `train` (40 images, ids from 100) and `val` (12, from 900), the first of each without a label."""

    folder: Path

    def image(self, sample_id: int) -> Path:
        split = "train" if sample_id < FIRST_ID["val"] else "val"
        return self.folder / f"{split}2014" / f"COCO_{split}2014_{sample_id:012d}.jpg"

    def annotations_file(self, split: str) -> Path:
        return self.folder / f"instances_{split}.json"

    def annotations(self, split: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.annotations_file(split).read_text())
        return content

    def change(self, split: str, edit: Callable[[dict[str, Any]], object]) -> None:
        content = self.annotations(split)
        edit(content)
        self.annotations_file(split).write_text(json.dumps(content))

    def recipe(self, **changes: Any) -> Recipe:
        splits = {
            split: {"images": str(self.folder / f"{split}2014"), "annotations": str(self.annotations_file(split))}
            for split in FIRST_ID
        }
        holdout = {"of": "train", "fraction": 0.2}
        values = {"name": "small", "splits": splits, "holdout": holdout, "max_shard_samples": 10, **changes}
        return Recipe.parse({"target": str(self.folder / "built"), **values})

    def build(self, **changes: Any) -> Summary:
        return build(self.recipe(**changes), run_tasks=in_process)

    @property
    def built(self) -> Path:
        return self.folder / "built"


def write_source(folder: Path) -> Source:
    source = Source(folder)
    random = np.random.default_rng(0)
    for split, count in (("train", 40), ("val", 12)):
        (folder / f"{split}2014").mkdir()
        images: list[dict[str, Any]] = []
        boxes: list[dict[str, Any]] = []
        for sample_id in range(FIRST_ID[split], FIRST_ID[split] + count):
            height_px, width_px = (int(side) for side in random.integers(32, 90, 2))
            path = source.image(sample_id)
            path.write_bytes(draw_jpeg(sample_id, height_px, width_px, "GRAY" if sample_id % 10 == 1 else "RGB"))
            images.append({"id": sample_id, "file_name": path.name, "height": height_px, "width": width_px})
            num_boxes = 0 if sample_id == FIRST_ID[split] else int(random.integers(1, 6))
            boxes += [_box(random, sample_id) for _ in range(num_boxes)]
        for box_id, box in enumerate(boxes, start=1):
            box["id"] = box_id
        content = {"images": images, "annotations": boxes, "categories": CATEGORIES}
        source.annotations_file(split).write_text(json.dumps(content))
    return source


def _box(random: np.random.Generator, sample_id: int) -> dict[str, Any]:
    side = float(random.integers(2, 30))
    return {
        "image_id": sample_id,
        "category_id": int(random.choice([2, 3, 7])),
        "bbox": [0.0, 0.0, side, side],
        "area": side * side,
        "iscrowd": int(random.random() < 0.2),
        "segmentation": [[0, 0, 1, 1, 2, 2]],
    }


def read_coco(annotations: Path) -> tuple[LabelSpace, list[ImageRow]]:
    """Return the label space and the rows of an annotations file."""
    stated = coco.read(CocoSource(images=".", annotations=str(annotations)))
    return stated.label_space, list(rows_of(stated.batches))


def run_script(body: str, source: Source) -> subprocess.Popen[str]:
    """Run Python in a process, and a process group, of its own, with `source` at hand."""
    prelude = (
        f"from pathlib import Path\nfrom tests.data.small_source import Source\nsource = Source(Path({str(source.folder)!r}))\n"
    )
    repository = Path(__file__).resolve().parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", prelude + body],
        cwd=repository,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
