"""What the verbs read, made once and small: datasets, runs, a sweep and images; and copies of it in which files are changed."""

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from rayprob.calibrate.crossfit import CalibrateSpec
from rayprob.calibrate.fitting import calibrate
from rayprob.data.building.build import build, in_process
from rayprob.data.building.recipe import Recipe
from rayprob.data.manifest.dataset import Dataset
from rayprob.loader.order import Place
from rayprob.probability.calibration.affine import AffineCalibrator
from rayprob.probability.calibration.prior import PriorCalibrator
from rayprob.probability.distributions.mixture import LabelMixture
from rayprob.probability.priors.file import LabelPriorFile
from rayprob.runs.bundle import Bundle
from rayprob.runs.folder import claim
from rayprob.runs.history_rows import read_history
from rayprob.runs.paths import SweepFolder
from rayprob.runs.spec import Run
from rayprob.scenes.generate import ScenesSpec, generate_scenes
from rayprob.sweep.ledger import Ledger
from rayprob.sweep.results import summarise, write_results
from rayprob.sweep.search import Sweep
from rayprob.sweep.study import Study, Trial
from rayprob.sweep.tune import claim as claim_sweep
from rayprob.sweep.work import evaluations_of
from rayprob.train.assess import assess
from rayprob.train.loop import fit
from rayprob.train.refit import RefitSpec, refit
from tests.data.in_parts import copy_in_parts
from tests.images.every_kind import turned_file
from tests.loader.tiny import photo
from tests.train.conftest import write_coco

RUN: dict[str, Any] = {
    "name": "tiny",
    "folder": "run",
    "data": {"root": "built"},
    "stream": {"global_batch": 16, "lanes": 4, "window_shards": 2, "loader_workers": 0},
    "transforms": {"train": {"name": "paper", "size_px": 32}, "evaluate": {"name": "resize", "size_px": 32}},
    "model": {"backbone": "squeezenet1_1", "norm": "frozen", "head": {"dropout": 0.2}},
    "optimizer": {"name": "adamw", "lr": 1e-3},
    "duration": {"steps": 2},
    "evaluation": {"every": {"steps": 1}, "micro_batch": 40},
    "ema": {"half_life_samples": 64},
    "log_every_steps": 1,
}
SEARCH = {"metric": "mAP", "space": {"optimizer.lr": {"grid": [0.001, 0.01]}}}
THRESHOLDS = {
    "run": "run",
    "folds": 2,
    "bootstrap": 10,
    "smoothings": [0.0, 1.0],
    "precisions": [0.5],
    "conformal_levels": [0.1],
}
ONLY_READ = ("source", "images", "built", "in-parts")  # by every verb
APPENDED = ".jsonl"  # files that verbs write on, which a hard link would carry into the world itself


@dataclass(frozen=True)
class World:
    """A folder with everything in it; verbs never run in it, but in copies."""

    root: Path

    @contextmanager
    def copy(self, folder: Path, changed: Sequence[str] = ()) -> Iterator[Path]:
        """Work in a copy of the world in which files may be `changed`; it is removed at the end."""
        folder.mkdir()
        for entry in self.root.iterdir():
            if entry.name in ONLY_READ and not any(name.startswith(f"{entry.name}/") for name in changed):
                (folder / entry.name).symlink_to(entry)
            elif entry.is_dir():
                shutil.copytree(entry, folder / entry.name, copy_function=_link)
            else:
                _link(str(entry), str(folder / entry.name))
        try:
            with contextlib.chdir(folder):
                yield folder
        finally:
            shutil.rmtree(folder)


def make_world(root: Path) -> World:
    """Write a world: about five seconds."""
    root.mkdir()
    with contextlib.chdir(root):
        _write_datasets(root)
        _write_runs()
        _write_sweep()
        _write_images(root / "images")
        generate_scenes("scenes", ScenesSpec(num_train=2, num_val=1, size_px=64))
    return World(root)


def _write_datasets(root: Path) -> None:
    (root / "source").mkdir()
    splits = {"train": write_coco(root / "source", "train", 60, 1), "val": write_coco(root / "source", "val", 20, 10_001)}
    splits = {split: {key: os.path.relpath(path) for key, path in part.items()} for split, part in splits.items()}
    recipe = {"name": "tiny", "splits": splits, "target": "built", "holdout": {"fraction": 0.4}, "max_shard_samples": 12}
    (root / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    build(Recipe.parse(recipe), run_tasks=in_process)
    copy_in_parts(root / "built", root / "in-parts", part_rows=20)


def _write_runs() -> None:
    """A calibrated run and its mixture; `started` has the checkpoints of the first, and no bundle yet."""
    run = Run.parse(RUN)
    Path("run.yaml").write_text(yaml.safe_dump(RUN))
    claim(run, Dataset.open("built"))
    fit(run, Place(), torch.device("cpu"))
    assess("run", "val")
    calibrate("run", CalibrateSpec())
    refit(
        "run",
        RefitSpec.parse({"epochs": 1, "global_batch": 16, "head": {"name": "mixture", "components": 2}}),
        folder="mixture",
    )
    assess("mixture", "val")
    calibrate("mixture", CalibrateSpec())
    _write_prior()
    shutil.copytree("run", "started", ignore=shutil.ignore_patterns("bundle", "predictions", "tensorboard"))
    Path("started.yaml").write_text(yaml.safe_dump({**RUN, "folder": "started"}))
    Path("thresholds.yaml").write_text(yaml.safe_dump({"thresholds": THRESHOLDS}))


def _write_prior() -> None:
    """A label prior in a file, and a copy of the run's bundle that holds it."""
    bundle = Bundle.load("run/bundle")
    num_labels = len(bundle.label_space)
    mixture = LabelMixture(np.array([0.5, 0.5]), np.linspace(0.1, 0.9, 2 * num_labels).reshape(2, num_labels))
    LabelPriorFile(bundle.label_space.names, mixture, "a test").save("tiny.prior.safetensors")
    affine = AffineCalibrator("temperature", np.ones(1), np.zeros(1))
    replace(bundle, calibrator=PriorCalibrator(affine, 0.6, "tiny", mixture)).save("with-prior/bundle")


def _write_sweep() -> None:
    """A finished sweep whose trials all went as the run did."""
    Path("sweep.yaml").write_text(yaml.safe_dump({**RUN, "name": "swept", "folder": "sweep", "search": SEARCH}))
    sweep = Sweep.read("sweep.yaml")
    claim_sweep(sweep, Dataset.open("built"))
    study = Study(sweep, Ledger(sweep.folder))
    while isinstance(trial := study.next(), Trial):
        folder = Path(SweepFolder(sweep.folder).trial(trial.number))
        folder.mkdir(parents=True)
        shutil.copy("run/metrics.jsonl", folder)
        (folder / "run.yaml").write_text(sweep.trial_run(trial.number, trial.params, trial.seed).to_yaml())
        for numbers in evaluations_of(read_history(str(folder))):
            study.result(trial.number, numbers["epoch"], numbers)
        study.end(trial.number, "finished")
    numbers = {"mAP": 0.5, "OF1": 0.4}
    write_results(sweep, study, summarise(sweep, study, {"best": numbers, "default": numbers}, 1.0))


def _write_images(folder: Path) -> None:
    folder.mkdir()
    for place in range(3):
        (folder / f"photo-{place}.jpg").write_bytes(photo(place))
    for title in ("PNG", "WEBP"):
        (folder / f"turned.{title.lower()}").write_bytes(turned_file(title, 6))


def _link(source: str, target: str) -> None:
    if source.endswith(APPENDED):
        shutil.copyfile(source, target)
    else:
        os.link(source, target)
