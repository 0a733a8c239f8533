"""A tiny dataset whose labels can be learnt in seconds, and the run that learns them."""

import json
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
import simplejpeg

from rayprob.data.building.build import build, in_process
from rayprob.data.building.recipe import Recipe
from rayprob.runs.spec import Run

NAMES = ("red", "green", "blue", "bright")


def draw(present: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A noisy 40 x 48 image; red, green and blue each fill a vertical third, bright lifts all of it."""
    image = rng.integers(20, 60, (40, 48, 3))
    for channel in range(3):
        if present[channel]:
            image[:, 16 * channel : 16 * channel + 16, channel] += 150
    return np.clip(image + 60 * present[3], 0, 255).astype(np.uint8)


def write_coco(root: Path, split: str, num_images: int, first_id: int) -> dict[str, str]:
    """Write a split in COCO layout and return its part of a recipe."""
    rng = np.random.default_rng(first_id)
    images, annotations = [], []
    folder = root / split
    folder.mkdir(parents=True)
    for image_id in range(first_id, first_id + num_images):
        present = rng.random(4) < 0.4
        present[rng.integers(4)] = True
        name = f"{image_id:012d}.jpg"
        (folder / name).write_bytes(simplejpeg.encode_jpeg(draw(present, rng), quality=90))
        images.append({"id": image_id, "file_name": name, "width": 48, "height": 40})
        for column in np.flatnonzero(present).tolist():
            box = {"bbox": [0, 0, 10, 10 * (column + 1)], "area": 100.0 * (column + 1), "iscrowd": 0}
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, "category_id": column + 1, **box})
    categories = [{"id": n + 1, "name": name, "supercategory": "colour"} for n, name in enumerate(NAMES)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (root / f"{split}.json").write_text(json.dumps(document))
    return {"images": str(folder), "annotations": str(root / f"{split}.json")}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The root of a built dataset: 4 labels, 160 images to learn from, holdout and val."""
    root = tmp_path_factory.mktemp("tiny")
    splits = {"train": write_coco(root, "train", 200, 1), "val": write_coco(root, "val", 40, 10_001)}
    recipe = Recipe.parse(
        {"name": "tiny", "splits": splits, "target": str(root / "built"), "holdout": {"fraction": 0.2}, "max_shard_samples": 20}
    )
    return build(recipe, run_tasks=in_process).root


class MakeRun(Protocol):
    """Builds a run of a few seconds on the CPU; `changes` replace whole top-level keys."""

    def __call__(self, folder: Path, **changes: Any) -> Run: ...


@pytest.fixture(scope="session")
def make_run(tiny: str) -> MakeRun:
    """A run on the tiny dataset, in a folder of the test's choice."""

    def make(folder: Path, **changes: Any) -> Run:
        value: dict[str, Any] = {
            "name": "tiny",
            "folder": str(folder),
            "data": {"root": tiny},
            "stream": {"global_batch": 16, "lanes": 4, "window_shards": 2, "loader_workers": 0},
            "transforms": {"train": {"name": "paper", "size_px": 32}, "evaluate": {"name": "resize", "size_px": 32}},
            "model": {"backbone": "squeezenet1_1", "norm": "frozen"},
            "optimizer": {"name": "adamw", "lr": 1e-3},
            "duration": {"steps": 12},
            "evaluation": {"every": {"steps": 6}, "micro_batch": 20},
            "ema": {"half_life_samples": 64},
            "log_every_steps": 1,
        }
        return Run.parse({**value, **changes})

    return make
