"""What a rehearsal of the GPU day has instead of COCO and ResNet-101: drawn scenes, and files that extend the real ones."""

from pathlib import Path
from typing import Any

import yaml
from gpu_day_steps import Step

# The counts are COCO's. More of the few images become holdout, because calibration needs at least ten.
TINY_RECIPE: dict[str, Any] = {
    "splits.train.expect": "null",
    "splits.val.expect": "null",
    "holdout.fraction": 0.3,
    "max_shard_samples": 20,
}
TINY_RUN: dict[str, Any] = {
    "stream": {"global_batch": 16, "lanes": 2, "window_shards": 1, "loader_workers": 0},
    "transforms": {"train": {"size_px": 32}, "evaluate": {"size_px": 32}},
    "model": {"backbone": "timm/test_resnet", "weights": None},
    "duration": {"epochs": None, "steps": 4},
    "evaluation": {"every": {"epochs": None, "steps": 4}, "micro_batch": 20},
    "placement": {"num_workers": 1, "use_gpu": False, "cpus_per_worker": 1},
}


def draw_scenes(folder: Path) -> Step:
    """Return the step that draws a dataset in COCO's layout."""
    sizes = ("--train", "120", "--val", "40", "--size", "64", "--labels", "6", "--processes", "1")
    return Step("scenes", ("rayprob", "scenes", str(folder), *sizes), folder)


def write_tiny_files(folder: Path, real: Path, shards: Path, systems: tuple[str, ...]) -> None:
    """Write the two systems files and the run files that they name into a folder; each extends the real one."""
    tiny = {**TINY_RUN, "data": {"root": str(shards)}}
    names = ["paper", "strong", *(f"systems/{name}" for name in systems)]
    files = {name: {"extends": str(real / f"{name}.yaml"), **tiny} for name in names}
    for name in ("coco2014", "coco2014-systems"):
        files[name] = {"extends": str(real / f"{name}.yaml"), "systems": {"draws": 20}}
    for name, value in files.items():
        path = folder / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(value, sort_keys=False))
