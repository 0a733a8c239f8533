"""A source with one image of every kind and of every EXIF orientation, built into a dataset, and what becomes of each."""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow
from PIL import ImageOps

from rayprob.data.building.build import Summary, build, in_process
from rayprob.data.building.recipe import Recipe
from rayprob.data.manifest.dataset import Dataset
from rayprob.images.decode import decode
from rayprob.images.kinds import kind_of
from rayprob.images.reading import READ_UPRIGHT, ImageReading
from rayprob.loader.augment import Resize
from rayprob.loader.order import Place
from rayprob.loader.streams import EvalStream, StreamSpec
from rayprob.predict.images import ImageFile
from rayprob.predict.reading import Input, load
from tests.images.every_kind import KINDS, turned_file

SIZE_PX = 24


@cache
def every_file() -> dict[str, bytes]:
    """Return a file of every kind, and of every orientation in each of the three, by what it is."""
    turned = {
        f"{title}, EXIF orientation {value}": (title, value) for title in ("JPEG", "PNG", "WEBP") for value in range(1, 9)
    }
    return {kind.title: kind.content() for kind in KINDS} | {name: turned_file(*how) for name, how in turned.items()}


def write_source(folder: Path) -> dict[str, Any]:
    """Write every file as a .jpg, whatever it is, with COCO annotations; return the values of a recipe."""
    (folder / "images").mkdir(parents=True)
    images, boxes = [], []
    for number, content in enumerate(every_file().values()):
        (folder / "images" / f"{number:03d}.jpg").write_bytes(content)
        images.append({"id": number, "file_name": f"{number:03d}.jpg"})
        boxes.append({"id": number, "image_id": number, "category_id": number % 2 + 1})
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    (folder / "labels.json").write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories}))
    split = {"images": str(folder / "images"), "annotations": str(folder / "labels.json")}
    return {"name": "kinds", "splits": {"val": split}, "holdout": None, "target": str(folder / "built")}


def build_dataset(folder: Path, **changes: Any) -> Summary:
    """Build a dataset of every file."""
    return build(Recipe.parse({**write_source(folder), **changes}), run_tasks=in_process)


def by_pillow(content: bytes) -> np.ndarray:
    """Return what Pillow reads: upright, what is transparent composited over white, and the upper 8 of 16 bits."""
    image = ImageOps.exif_transpose(Pillow.open(io.BytesIO(content)))
    if image.mode == "I;16":
        image = Pillow.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        image = Pillow.alpha_composite(Pillow.new("RGBA", layered.size, "white"), layered)
    return np.asarray(image.convert("RGB")).astype(int)


@dataclass(frozen=True)
class Outcome:
    """What became of a file: the suffix it is stored under, how far it is from Pillow's pixels, and whether training and
    prediction see the same ones."""

    title: str
    suffix: str
    difference: int
    trained: np.ndarray
    predicted: np.ndarray

    @property
    def is_same(self) -> bool:
        return np.array_equal(self.trained, self.predicted)


def outcomes(folder: Path, reading: ImageReading) -> Iterator[Outcome]:
    """Yield what became of each file of the dataset built in a folder, read by a model that has this reading."""
    manifest = Dataset.open(str(folder / "built")).split("val")
    stream = EvalStream(manifest, StreamSpec(loader_workers=0), Resize(SIZE_PX), place=Place(), micro_batch=8)
    trained = {
        sample_id: image.permute(1, 2, 0).numpy()
        for batch in stream
        for sample_id, image in zip(batch.sample_ids_B.tolist(), batch.images_BCHW, strict=True)
    }
    for number, (title, content) in enumerate(every_file().items()):
        loaded = load(ImageFile(str(folder / "images" / f"{number:03d}.jpg")), [Input(SIZE_PX, reading)])
        difference = int(np.abs(decode(content, READ_UPRIGHT) - by_pillow(content)).max())
        yield Outcome(title, kind_of(content).suffix, difference, trained[number], loaded.squashed_S[0])
