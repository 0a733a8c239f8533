"""Drawing one piece of a split, in any process, and its images as COCO annotations. N images of the piece, L labels."""

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from rayprob.errors import StorageError
from rayprob.labels import COCO_80, LabelSpace
from rayprob.scenes.layout import Scene, arrange, draw, random_box
from rayprob.seeds import derive

CHUNK = 16  # images that a process draws as a unit, which it completes when it is stopped
JPEG_QUALITY = 92
SUPERCATEGORIES = {
    "person": (1, 1), "vehicle": (2, 9), "outdoor": (10, 15), "animal": (16, 25), "accessory": (27, 33), "sports": (34, 43),
    "kitchen": (44, 51), "food": (52, 61), "furniture": (62, 70), "electronic": (72, 77), "appliance": (78, 82),
    "indoor": (84, 90),
}  # fmt: skip


@dataclass(frozen=True)
class DrawJob:
    """Consecutive images of one split: where to write them, their labels, and which of these are annotated."""

    folder: Path
    split: str
    seed: int
    size_px: int
    names: tuple[str, ...]
    first_id: int
    first_index: int
    component_N: NDArray[np.int64]
    present_NL: NDArray[np.bool_]
    stated_NL: NDArray[np.bool_]


@dataclass(frozen=True)
class Box:
    """One annotation: the label's column, COCO's x, y, w, h, and the visible area."""

    column: int
    box_xywh: tuple[int, int, int, int]
    area_px2: float


@dataclass(frozen=True)
class DrawnImage:
    """An image as annotated; `present` are the labels drawn, `stated` the labels annotated."""

    image_id: int
    file_name: str
    height_px: int
    width_px: int
    component: int
    arrange_seed: int
    present: tuple[int, ...]
    stated: tuple[int, ...]
    boxes: tuple[Box, ...]
    is_new: bool


def prepare_process() -> None:
    """Set up a drawing process: one thread, and Ctrl-C handled only by the parent process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)


def draw_job(job: DrawJob) -> list[DrawnImage]:
    """Write the missing pictures of a job and return the annotations of all of them. Raises StorageError."""
    return [_draw_image(job, row) for row in range(len(job.present_NL))]


def _draw_image(job: DrawJob, row: int) -> DrawnImage:
    image_id, part = job.first_id + row, ("scenes", job.split, job.first_index + row)
    present, stated = (np.flatnonzero(sets_NL[row]).tolist() for sets_NL in (job.present_NL, job.stated_NL))
    arrange_seed = derive(job.seed, *part, "arrange")
    scene = arrange([job.names[column] for column in present], job.size_px, arrange_seed)
    file_name = f"COCO_{job.split}2014_{image_id:012d}.jpg"
    path = job.folder / f"{job.split}2014" / file_name
    is_new = not _is_whole(path)
    if is_new:
        _write_whole(path, encode(draw(scene, derive(job.seed, *part, "paint")), scene.is_grey))
    return DrawnImage(
        image_id=image_id,
        file_name=file_name,
        height_px=scene.height_px,
        width_px=scene.width_px,
        component=int(job.component_N[row]),
        arrange_seed=arrange_seed,
        present=tuple(present),
        stated=tuple(stated),
        boxes=tuple(_boxes(scene, job.names, stated, np.random.default_rng(derive(job.seed, *part, "false boxes")))),
        is_new=is_new,
    )


def _boxes(scene: Scene, names: Sequence[str], stated: Sequence[int], rng: np.random.Generator) -> list[Box]:
    """Return the boxes of the stated labels: those of the objects, and a random box for a label that is not present."""
    column_of = {names[column]: column for column in stated}
    seen = [item for item in scene.objects if item.stamp.label in column_of]
    boxes = [Box(column_of[item.stamp.label], item.box_xywh, item.area_px2) for item in seen]
    for column in sorted(set(stated) - {box.column for box in boxes}):
        box_xywh = random_box(scene, rng)
        boxes.append(Box(column, box_xywh, 0.6 * box_xywh[2] * box_xywh[3]))
    return boxes


def encode(picture_HW3: NDArray[np.uint8], is_grey: bool) -> bytes:
    """Return the picture as JPEG, with one channel if it is grey."""
    if is_grey:
        grey_HW1 = np.ascontiguousarray(cv2.cvtColor(picture_HW3, cv2.COLOR_RGB2GRAY)[..., None])
        return bytes(simplejpeg.encode_jpeg(grey_HW1, quality=JPEG_QUALITY, colorspace="GRAY", colorsubsampling="Gray"))
    return bytes(simplejpeg.encode_jpeg(picture_HW3, quality=JPEG_QUALITY, colorspace="RGB", colorsubsampling="444"))


def _is_whole(path: Path) -> bool:
    """Return whether `path` is a JPEG with an end marker."""
    try:
        with path.open("rb") as file:
            file.seek(-2, os.SEEK_END)
            return file.read() == b"\xff\xd9"
    except OSError:
        return False


def _write_whole(path: Path, content: bytes) -> None:
    # No fsync, unlike storage.atomic_writer: it would cost more than the drawing, and any picture can be redrawn from the seed.
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(f"cannot write {path}: {error.strerror}; fix that and run the same command again") from error


def annotations_of(
    split: str, images: Sequence[DrawnImage], label_space: LabelSpace, first_annotation_id: int
) -> dict[str, Any]:
    """Return the content of `instances_<split>2014.json`; annotation ids count from `first_annotation_id`."""
    boxes = [(image, box) for image in images for box in image.boxes]
    return {
        "info": {"description": f"Scenes drawn by rayprob in the layout of COCO {split}2014", "version": "1.0", "year": 2014},
        "licenses": [{"id": 1, "name": "No rights reserved", "url": "https://creativecommons.org/publicdomain/zero/1.0/"}],
        "categories": categories(label_space),
        "images": [
            {
                "license": 1,
                "file_name": image.file_name,
                "height": image.height_px,
                "width": image.width_px,
                "id": image.image_id,
            }
            for image in images
        ],
        "annotations": [
            {
                "id": first_annotation_id + place,
                "image_id": image.image_id,
                "category_id": label_space.category_ids[box.column],
                "bbox": list(box.box_xywh),
                "area": box.area_px2,
                "iscrowd": 0,
            }
            for place, (image, box) in enumerate(boxes)
        ],
    }


def categories(label_space: LabelSpace = COCO_80) -> list[dict[str, Any]]:
    """Return COCO's entries for the labels: official ids, names and supercategories."""
    return [
        {"supercategory": _supercategory(category_id), "id": category_id, "name": name}
        for name, category_id in zip(label_space.names, label_space.category_ids, strict=True)
    ]


def _supercategory(category_id: int) -> str:
    return next(name for name, (first, last) in SUPERCATEGORIES.items() if first <= category_id <= last)
