"""The positions of a scene's objects and the visible part of each. Pictures are [H, W]; boxes are COCO's x, y, w, h."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rayprob.scenes.backdrops import backdrop
from rayprob.scenes.drawing import Stamp, extent_per_size, light, overlap, paint, stamp

MIN_VISIBLE = 0.4  # of an object's area
MIN_VISIBLE_PX2 = 24
MIN_SIZE_PX = 11
SIZES = (0.045, 0.65)  # of the long side; the size of an object is the square root of its area
TRIES = 8
ASPECTS = (3 / 4, 2 / 3, 9 / 16, 4 / 5, 1.0)  # short side / long side
ASPECT_WEIGHTS = (0.4, 0.36, 0.06, 0.1, 0.08)


@dataclass(frozen=True)
class SceneObject:
    """An object of a scene; box and area are those of its visible pixels."""

    stamp: Stamp
    box_xywh: tuple[int, int, int, int]
    area_px2: int


@dataclass(frozen=True)
class Scene:
    """A picture before it is painted. Its objects are ordered front to back."""

    height_px: int
    width_px: int
    is_grey: bool
    objects: tuple[SceneObject, ...]


def arrange(labels: Sequence[str], size_px: int, seed: int, *, grey_fraction: float = 0.01) -> Scene:
    """Return a scene in which every label has at least one visible object and nothing else is visible.

    Objects are placed front to back and kept if at least a fraction MIN_VISIBLE of them is visible, so a kept object stays
    visible. If a label does not fit, the arrangement starts over with smaller objects.
    """
    rng = np.random.default_rng(seed)
    is_grey = bool(rng.random() < grey_fraction)
    height_px, width_px = picture_size(size_px, rng)
    shrink = 1.0
    while True:
        objects = _try_to_arrange(labels, height_px, width_px, shrink, rng)
        if objects is not None:
            return Scene(height_px, width_px, is_grey, tuple(objects))
        shrink *= 0.8


def draw(scene: Scene, seed: int) -> NDArray[np.uint8]:
    """Return the painted scene, RGB [H, W, 3]."""
    rng = np.random.default_rng(seed)
    picture_HW3 = backdrop(scene.height_px, scene.width_px, rng)
    for item in reversed(scene.objects):
        paint(picture_HW3, item.stamp, rng)
    return light(picture_HW3, rng)


def picture_size(size_px: int, rng: np.random.Generator) -> tuple[int, int]:
    """Return height and width: the longer is `size_px`, with the aspect ratios of COCO."""
    ratio = rng.choice(ASPECTS, p=ASPECT_WEIGHTS) if rng.random() < 0.85 else rng.uniform(0.5, 1)
    short_px = round(size_px * ratio)
    return (size_px, short_px) if rng.random() < 0.27 else (short_px, size_px)


def _try_to_arrange(
    labels: Sequence[str], height_px: int, width_px: int, shrink: float, rng: np.random.Generator
) -> list[SceneObject] | None:
    """Return the objects front to back, or None if a label does not fit."""
    repeats_L = np.minimum(rng.geometric(0.6, len(labels)), 4)
    num_objects = int(repeats_L.sum())
    size_L = {label: shrink * random_size(max(height_px, width_px), num_objects, rng) for label in labels}
    queue = rng.permutation(np.repeat(np.arange(len(labels)), repeats_L))
    hidden_HW = np.zeros((height_px, width_px), dtype=bool)
    objects: list[SceneObject] = []
    for column in queue:
        label = labels[column]
        item = _place(label, size_L[label] * rng.uniform(0.6, 1), hidden_HW, rng)
        if item is not None:
            objects.append(item)
    found = {item.stamp.label for item in objects}
    return objects if found == set(labels) else None


def random_size(long_px: int, num_objects: int, rng: np.random.Generator) -> float:
    """Return the square root of an object's area in pixels: log-uniform, and smaller if more objects share a picture."""
    largest_px = SIZES[1] * long_px / max(1.0, num_objects / 2.5) ** 0.5
    smallest_px = min(max(MIN_SIZE_PX, SIZES[0] * long_px), largest_px / 2)
    return float(smallest_px * (largest_px / smallest_px) ** rng.uniform() ** 0.7)


def _place(label: str, size_px: float, hidden_HW: NDArray[np.bool_], rng: np.random.Generator) -> SceneObject | None:
    """Return the object where enough of it is visible, and mark in `hidden_HW` what it hides; None after TRIES places."""
    for _ in range(TRIES):
        item = see(stamp(label, _random_matrix(label, size_px, hidden_HW.shape, rng)), hidden_HW)
        if item is not None:
            target, source = overlap(hidden_HW.shape, item.stamp)
            hidden_HW[target] |= item.stamp.coverage_HW[source] >= 128
            return item
        size_px *= 0.93
    return None


def see(item: Stamp, hidden_HW: NDArray[np.bool_]) -> SceneObject | None:
    """Return the object with the box and area of what `hidden_HW` leaves visible, or None if that is too little."""
    target, source = overlap(hidden_HW.shape, item)
    visible_HW = (item.coverage_HW[source] >= 128) & ~hidden_HW[target]
    area_px2 = int(visible_HW.sum())
    if area_px2 < max(MIN_VISIBLE_PX2, MIN_VISIBLE * (item.coverage_HW >= 128).sum()):
        return None
    rows, columns = np.flatnonzero(visible_HW.any(axis=1)), np.flatnonzero(visible_HW.any(axis=0))
    left, top = target[1].start + int(columns[0]), target[0].start + int(rows[0])
    return SceneObject(item, (left, top, int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1), area_px2)


def _random_matrix(label: str, size_px: float, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the map from half extents to pixels: a random position, rotation, flip, stretch and shear."""
    extent_px = size_px * extent_per_size(label)
    angle = rng.normal(0, 0.28)
    turn_22 = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    stretch = np.exp(rng.uniform(-0.15, 0.15))
    bend_22 = np.array([[stretch * rng.choice((-1, 1)), rng.uniform(-0.12, 0.12)], [0, 1 / stretch]])
    centre_2 = rng.uniform(0.04, 0.96, 2) * (shape[1], shape[0])
    return np.column_stack([extent_px * turn_22 @ bend_22, centre_2]).astype(np.float32)


def random_box(scene: Scene, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Return a plausible object box x, y, w, h inside the picture."""
    size_px = random_size(max(scene.height_px, scene.width_px), max(1, len(scene.objects)), rng)
    width, height = (round(size_px * stretch) for stretch in np.exp(rng.uniform(-0.4, 0.4, 2)))
    left, top = int(rng.uniform(0, 0.9) * scene.width_px), int(rng.uniform(0, 0.9) * scene.height_px)
    return left, top, max(1, min(width, scene.width_px - left)), max(1, min(height, scene.height_px - top))
