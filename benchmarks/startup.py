"""Start-up time of the verbs, with the alternatives side by side in one run: medians of --repeats, in turn.

    python benchmarks/startup.py [--repeats 3]

    first step       `rayprob train` with one worker until its first step: on Ray, in its own process
    one image        `rayprob predict` of one image: with the tracer of torch.compile, which torchvision imports, and without
    imports          what predict imports: with the tracer, without
    --help           of the whole command

On two cores, as seconds and ratios. Other work on the machine lengthens both sides.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rayprob.data.building.build import build, in_process
from rayprob.data.building.recipe import Recipe
from rayprob.scenes.generate import ScenesSpec, generate_scenes

PYTHON = sys.executable
WITH_TRACER = "import torch._dynamo.utils; from rayprob.cli.app import main; main()"
WITHOUT = "from rayprob.cli.app import main; main()"
IMPORTS = "import rayprob.predict.job"
Measure = Callable[[int], float]


def main() -> None:
    """Make tiny data and a run, then time each pair in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        make_data(Path(folder))
        on_ray, alone = side_by_side(repeats, first_step("local"), first_step(""))
        show("first step, one worker", "on Ray", on_ray, "without", alone)
        image = next(str(path) for path in sorted(Path(folder, "scenes", "val2014").glob("*.jpg")))
        predict = ("predict", "run-1-0", image)
        traced, plain = side_by_side(repeats, command(WITH_TRACER, *predict), command(WITHOUT, *predict))
        show("predict, one image", "with tracer", traced, "without", plain)
        traced, plain = side_by_side(repeats, command(f"import torch._dynamo.utils; {IMPORTS}"), command(IMPORTS))
        show("imports of predict", "with tracer", traced, "without", plain)
        (helped,) = side_by_side(repeats, command(WITHOUT, "--help"))
        print(f"{'--help':26} {helped:6.2f} s")


def make_data(folder: Path) -> None:
    """Write scenes, their shards, and the run file."""
    generate_scenes("scenes", ScenesSpec.parse({"num_train": 60, "num_val": 8, "size_px": 64, "num_labels": 8}, where="scenes"))
    splits = {
        split: {"images": f"scenes/{split}2014", "annotations": f"scenes/annotations/instances_{split}2014.json"}
        for split in ("train", "val")
    }
    recipe = {"name": "scenes", "splits": splits, "target": "shards", "holdout": {"fraction": 0.2}, "max_shard_samples": 10}
    build(Recipe.parse(recipe), run_tasks=in_process)
    size = {"size_px": 64}
    run = {
        "name": "startup",
        "data": {"root": "shards"},
        "stream": {"global_batch": 8, "lanes": 2, "loader_workers": 0},
        "transforms": {"train": {"name": "paper", **size}, "evaluate": {"name": "resize", **size}},
        "model": {"backbone": "resnet18"},
        "duration": {"steps": 2},
        "log_every_steps": 1,
        "placement": {"num_workers": 1, "use_gpu": False},
    }
    (folder / "run.yaml").write_text(json.dumps(run))  # JSON is YAML


def first_step(ray_address: str) -> Measure:
    """Return the seconds from the command to its first logged step; the run then ends."""

    def measure(repeat: int) -> float:
        name = f"run-{0 if ray_address else 1}-{repeat}"
        environment = {**os.environ, "RAY_ADDRESS": ray_address}
        train = [PYTHON, "-m", "rayprob", "train", "run.yaml", "--set", f"folder={name}"]
        began_at_s = time.perf_counter()
        with subprocess.Popen(train, env=environment, stdout=subprocess.DEVNULL) as process:
            history = Path(name, "metrics.jsonl")
            while not (history.exists() and '"kind": "step"' in history.read_text()):
                if process.poll():
                    raise SystemExit(f"rayprob train ended with {process.returncode}")
                time.sleep(0.01)
            return time.perf_counter() - began_at_s

    return measure


def command(code: str, *arguments: str) -> Measure:
    """Return the seconds that Python takes for some code."""

    def measure(_: int) -> float:
        began_at_s = time.perf_counter()
        subprocess.run([PYTHON, "-c", code, *arguments], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began_at_s

    return measure


def side_by_side(repeats: int, *measures: Measure) -> tuple[float, ...]:
    """Return the median seconds of each way, measured in turn so that other work slows all of them equally."""
    rows = [[measure(repeat) for measure in measures] for repeat in range(repeats)]
    return tuple(statistics.median(column) for column in zip(*rows, strict=True))


def show(what: str, before: str, before_s: float, after: str, after_s: float) -> None:
    """Print a pair with its ratio."""
    print(f"{what:26} {before} {before_s:6.2f} s   {after} {after_s:6.2f} s   {before_s / after_s:5.2f} x", flush=True)


if __name__ == "__main__":
    main()
