"""A user's folder with the four kinds of files, and commands run in this process as the shell would run them."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from rayprob.cli.app import main

SPLITS = {
    split: {"images": f"scenes/{split}2014", "annotations": f"scenes/annotations/instances_{split}2014.json"}
    for split in ("train", "val")
}
RECIPE = {"name": "tiny", "target": "shards", "splits": SPLITS, "holdout": {"fraction": 0.3}, "max_shard_samples": 20}
RUN = {
    "name": "tiny",
    "folder": "run",
    "data": {"root": "shards"},
    "stream": {"global_batch": 16, "lanes": 2, "loader_workers": 0},
    "transforms": {"train": {"name": "paper", "size_px": 32}, "evaluate": {"name": "resize", "size_px": 32}},
    "model": {"backbone": "timm/test_resnet"},
    "optimizer": {"name": "adamw", "lr": 3e-3},
    "duration": {"steps": 8},
    "evaluation": {"every": {"steps": 4}, "micro_batch": 20},
    "placement": {"num_workers": 1, "use_gpu": False, "cpus_per_worker": 1},
}
SEARCH = {"metric": "mAP", "trials": 2, "default": False, "space": {"optimizer.lr": {"grid": [1e-3, 1e-2]}}}
FILES: dict[str, Any] = {
    "recipe": RECIPE,
    "run": RUN,
    "sweep": {"extends": "run.yaml", "name": "tiny-sweep", "folder": "sweep", "search": SEARCH},
    "thresholds": {"thresholds": {"run": "run", "folds": 2, "bootstrap": 20}},
}


def write_files(folder: Path) -> None:
    """Write a recipe, a run file, a sweep file and a file of a threshold search, which go together."""
    for name, value in FILES.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(value))


@dataclass(frozen=True)
class Said:
    """How a command ended in this process, and what it wrote."""

    code: int | str | None
    output: str
    errors: str


def here(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> Said:
    """Run a command in this process, which saves the seconds that a new one takes to import torch."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["rayprob", *arguments])
    capsys.readouterr()
    code: int | str | None = 0
    try:
        main()
    except SystemExit as ending:
        code = ending.code or 0
    return Said(code, *capsys.readouterr())
