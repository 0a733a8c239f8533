"""How the files of tests/artefacts/0.1 were made: by this script at commit d4db564 (0.1.0). Later versions need not run it.

    python tests/artefacts/make.py /home/user/rayprob

The argument is a folder that does not exist yet. Runs write its path into their files, so it should say nothing about the
machine; the tests play the user who moves such a folder elsewhere. Every network is timm's smallest, most of them frozen as the
same seed draws it, so that the archive of tensors and images, compressed, holds those weights once.
"""

import contextlib
import hashlib
import io
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # as the suite's tests compute; sums of several threads have other last bits

import torch
import yaml

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
sys.path.insert(0, str(REPOSITORY))

from rayprob.data.build import build, in_process  # noqa: E402
from rayprob.data.recipe import Recipe  # noqa: E402
from rayprob.data.shard import ShardFacts, ShardJob  # noqa: E402
from rayprob.train.run import Run  # noqa: E402

from rayprob.cli import main  # noqa: E402
from rayprob.data import commit  # noqa: E402

TARGET = HERE / "0.1"
ARCHIVE = "large.tar.xz"
IN_ARCHIVE = (".jpg", ".tar", ".safetensors", ".pt", ".onnx")
LEFT_OUT = ("tensorboard", "ray", "tune", "features", "worker.log", "report.html", "sweep.lock")
SPLITS = {
    split: {"images": f"scenes/{split}2014", "annotations": f"scenes/annotations/instances_{split}2014.json"}
    for split in ("train", "val")
}
RECIPE = {"name": "tiny", "target": "shards", "splits": SPLITS, "holdout": {"fraction": 0.5}, "max_shard_samples": 20}
RUN = {
    "name": "tiny",
    "folder": "run",
    "data": {"root": "shards"},
    "stream": {"global_batch": 16, "lanes": 2, "loader_workers": 0},
    "transforms": {"train": {"name": "paper", "size_px": 64}, "evaluate": {"name": "resize", "size_px": 64}},
    "model": {"backbone": "timm/test_efficientnet_ln", "frozen": "backbone"},
    "optimizer": {"name": "adamw", "lr": 0.03},
    "ema": {"half_life_samples": 64},
    "duration": {"steps": 24},
    "evaluation": {"every": {"steps": 8}, "micro_batch": 20},
    "log_every_steps": 1,
    "precision": {"channels_last": False},  # the same weights are the same bytes in checkpoints, bundles and ONNX
    "placement": {"num_workers": 1, "use_gpu": False, "cpus_per_worker": 1},
}
MIXTURE = {"model": {"head": {"name": "mixture", "components": 3, "rank": 1}}, "loss": {"name": "mixture"}}
LONG = {"duration": {"steps": 60}, "evaluation": {"every": {"steps": 60}}}
# All weights learn, so the archive holds them twice: as they were when the run was stopped, and their momentum.
WHOLE = {
    "model": {"backbone": "timm/test_efficientnet", "frozen": "none"},
    "optimizer": {"name": "sgd", "lr": 0.1, "clip_norm": 1.0},
    "ema": None,
}
SPACE = {"optimizer.lr": {"loguniform": [1e-3, 0.1]}, "model.pooling": {"choice": ["gap", "gmp"]}}
ASHA = {"name": "asha", "grace_epochs": 2}
SEARCH = {
    "metric": "mAP",
    "trials": 3,
    "space": SPACE,
    "scheduler": {"name": "asha", "grace_epochs": 2},
    "confirm": {"seeds": 1},
}
GRID = {"metric": "mAP", "default": False, "space": {"optimizer.lr": {"grid": [0.01, 0.03, 0.1]}}, "max_concurrent": 1}
FILES: dict[str, dict[str, Any]] = {
    "recipe": RECIPE,
    "run": RUN,
    "mixture": {"extends": "run.yaml", "name": "mixture", "folder": "mixture", **MIXTURE},
    "stopped": {"extends": "run.yaml", "name": "stopped", "folder": "stopped", **LONG, **WHOLE},
    "stopped-mixture": {"extends": "run.yaml", "name": "stopped-mixture", "folder": "stopped-mixture", **LONG, **MIXTURE},
    "sweep": {"extends": "run.yaml", "name": "sweep", "folder": "sweep", "search": SEARCH},
    "stopped-sweep": {"extends": "run.yaml", "name": "stopped-sweep", "folder": "stopped-sweep", **LONG, "search": GRID},
    "thresholds": {"thresholds": {"run": "run", "folds": 2, "bootstrap": 20, "calibrators": ["identity", "platt"]}},
}
REFIT = ("--set", "head.name=mixture", "--set", "head.components=2", "--set", "epochs=3", "--set", "global_batch=18")
ASKED = ("--query", "P(cup | dining table)", "--query", "P(person, !car)", "--rule", "label_OF1", "--top", "6")
CHOICES = {"isotonic": ("--method", "isotonic"), "with-prior": ("--prior", "prior.safetensors")}


def rayprob(*arguments: str) -> str:
    """Run a command in this process and return what it writes; it must end well, or be stopped."""
    print("rayprob", *arguments, file=sys.stderr, flush=True)
    said = io.StringIO()
    sys.argv = ["rayprob", *arguments]
    code: Any = 0
    with contextlib.redirect_stdout(said):
        try:
            main()
        except SystemExit as ending:
            code = ending.code or 0
    assert code in (0, 130), said.getvalue()
    return said.getvalue()


@contextlib.contextmanager
def stopped_when(is_so: Callable[[], bool]) -> Iterator[None]:
    """Press Ctrl-C within the block, once something is so."""

    def watch() -> None:
        while not is_so():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()
    yield


@contextlib.contextmanager
def small_ray() -> Iterator[None]:
    """Name a Ray of two cores for the commands of the block to join."""
    command = [sys.executable, "-m", "tests.sweep.cluster"]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    os.environ["RAY_ADDRESS"] = process.stdout.readline().strip()
    try:
        yield
    finally:
        del os.environ["RAY_ADDRESS"]
        process.communicate()


def last_step(folder: str) -> int:
    """Return the last step in a run's history, 0 before the first."""
    path = Path(folder) / "metrics.jsonl"
    rows = path.read_text().splitlines() if path.exists() else []
    return max((json.loads(row)["step"] for row in rows if row.endswith("}")), default=0)


def has_taken(folder: str, num_steps: int) -> bool:
    """Return whether a run has taken so many steps."""
    return last_step(folder) >= num_steps


def write_files() -> None:
    """Write what a user writes: a recipe, run files, sweep files, and both kinds with every key spelled."""
    for name, value in FILES.items():
        Path(f"{name}.yaml").write_text(yaml.safe_dump(value, sort_keys=False))
    for name, whole in (("recipe", Recipe.read("recipe.yaml")), ("run", Run.read("run.yaml"))):
        Path(f"{name}-every-key.yaml").write_text(yaml.safe_dump(whole.model_dump(mode="json"), sort_keys=False))
    rows = ["1,0,1,0", "1,0,1,1", "0,1,0,0", "1,0,,1", "0,1,0,0", "0,0,1,1"] * 20
    Path("labels.csv").write_text("\n".join(["person,car,cup,dining table", *rows]) + "\n")


def make_datasets() -> None:
    """Draw the scenes, and build them twice: with one manifest, and with a manifest in parts as large datasets have."""
    size = ("--train", "150", "--val", "50", "--size", "64", "--labels", "6", "--processes", "1")
    rayprob("scenes", "scenes", *size)
    build(Recipe.read("recipe.yaml"), run_tasks=in_process)
    with contextlib.suppress(KeyboardInterrupt):
        build(Recipe.read("recipe.yaml", ["target=shards-stopped"]), run_tasks=three_only)
    commit.ONE_FILE_ROWS, commit.PART_ROWS = 50, 30  # type: ignore[attr-defined]
    build(Recipe.read("recipe.yaml", ["target=shards-in-parts"]), run_tasks=in_process)
    Path("answers").mkdir()
    Path("answers/inspect.json").write_text(rayprob("inspect", "shards", "--json"))


def three_only(write: Callable[[ShardJob], ShardFacts], jobs: Sequence[ShardJob]) -> Iterator[ShardFacts]:
    """Write three shards, and press Ctrl-C."""
    yield from map(write, jobs[:3])
    raise KeyboardInterrupt


def make_runs() -> None:
    """Train: two runs to their ends, two that are stopped, and what the stopped ones would have become undisturbed."""
    for name in ("run", "mixture"):
        rayprob("train", f"{name}.yaml")
    for name in ("stopped", "stopped-mixture"):
        rayprob("train", f"{name}.yaml", "--set", f"folder={name}-undisturbed")
        for path in (Path(f"{name}-undisturbed/bundle"), *Path(f"{name}-undisturbed").glob("checkpoints/*.pt")):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        while last_step(name) % 3 == 0:  # three steps are an epoch, and it is to be stopped within one
            shutil.rmtree(name, ignore_errors=True)
            with stopped_when(partial(has_taken, name, 8)):
                rayprob("train", f"{name}.yaml")
    rayprob("refit", "run", "--folder", "refitted", *REFIT)


def ask_all() -> None:
    """Calibrate the runs in several ways, and keep what each bundle answers."""
    made = rayprob("prior", "labels.csv", "--output", "prior.safetensors", "--components", "2", "--json")
    Path("answers/prior.json").write_text(made)
    for name in ("run", "mixture", "refitted"):
        rayprob("evaluate", name)
    for name, options in CHOICES.items():
        rayprob("calibrate", "run", *options)
        shutil.copytree("run/bundle", name)
    rayprob("calibrate", "run", "--method", "platt", "--objective", "mean_F1", "--precision", "0.5")
    rayprob("calibrate", "mixture")
    for name in ("run", "mixture", "refitted"):
        Path(f"answers/evaluate-{name}.json").write_text(rayprob("evaluate", name, "--json"))
    images = [str(path) for path in sorted(Path("scenes/val2014").glob("*.jpg"))[:4]]
    for bundle in ("run", "mixture", "refitted", *CHOICES):
        asked = ASKED if bundle != "refitted" else ASKED[:4]
        Path(f"answers/predict-{bundle}.jsonl").write_text(rayprob("predict", bundle, *images, "--json", *asked))
    rayprob("predict", "run", "shards", "--parquet", "answers/predict.parquet")
    rayprob("tune", "thresholds.yaml")
    rayprob("export", "run", "--onnx", "run.onnx")


def make_sweeps() -> None:
    """Search under Ray Tune: once to the end, once until the second of three trials has done a part of its steps."""
    with small_ray():
        rayprob("tune", "sweep.yaml")
        with stopped_when(partial(has_taken, "stopped-sweep/trials/001", 8)):
            rayprob("tune", "stopped-sweep.yaml")
    for path in Path("sweep/trials").glob("*/checkpoints/*.pt"):
        path.unlink()  # nobody reads the weights of a finished trial again but those in its bundle
    for row in json.loads(Path("sweep/summary.json").read_text())["trials"]:
        if row["kind"] == "confirm":  # other seeds draw other weights, which the archive would hold once more
            shutil.rmtree(Path("sweep", row["folder"], "bundle"))


def pack() -> None:
    """Copy what was made, without logs and what the commands write anew; tensors and images into one archive."""
    shutil.rmtree(TARGET, ignore_errors=True)
    shutil.copytree(".", TARGET, ignore=shutil.ignore_patterns(*LEFT_OUT))
    large = sorted(path for path in TARGET.rglob("*") if path.suffix in IN_ARCHIVE)
    # Equal bytes near each other are what the compressor finds.
    large.sort(key=lambda path: (path.suffix in (".jpg", ".tar"), path.suffix, path))
    with tarfile.open(TARGET / ARCHIVE, "w:xz", preset=9) as archive:
        for path in large:
            archive.add(path, path.relative_to(TARGET), filter=anonymous)
    for path in large:
        path.unlink()
    for path in TARGET.rglob("metrics.jsonl"):
        path.write_text(re.sub(r'"host": "[^"]*"', '"host": "somewhere"', path.read_text()))
    for folder in sorted((path for path in TARGET.rglob("*") if path.is_dir()), reverse=True):
        with contextlib.suppress(OSError):  # not empty
            folder.rmdir()
    facts = {"made_in": os.getcwd(), "torch": torch.__version__, "processor": processor(), "python": platform.python_version()}
    (TARGET / "made.json").write_text(json.dumps(facts, indent=1) + "\n")


def anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Return a member of the archive without its owner, and with a fixed time."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


def processor() -> str:
    """Return 16 hex digits of the processor's model and instructions, on which the last bits of a float depend."""
    first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    stated = sorted(re.findall(r"^((?:vendor_id|cpu family|model|model name|stepping|flags)\s*:.*)$", first, re.M))
    return hashlib.sha256("\n".join(stated).encode()).hexdigest()[:16]


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    os.chdir(folder)
    for part in (write_files, make_datasets, make_runs, ask_all, make_sweeps, pack):
        part()
