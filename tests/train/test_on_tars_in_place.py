"""A run on tars of others: trained, stopped, the tars moved, resumed, evaluated and predicted, as on shards of our own."""

import shutil
from pathlib import Path
from typing import Any

import torch

from rayprob.data.building.build import build, in_process
from rayprob.data.building.recipe import Recipe
from rayprob.data.manifest.dataset import Dataset
from rayprob.loader.order import Place
from rayprob.predict.images import find_images
from rayprob.runs import folder
from rayprob.runs.checkpoints import latest, list_checkpoints
from rayprob.runs.folder import claim
from rayprob.runs.paths import RunFolder
from rayprob.runs.predictions import Predictions
from rayprob.runs.spec import Run
from rayprob.train.assess import assess
from rayprob.train.loop import fit
from tests.train.conftest import NAMES, MakeRun

CPU = torch.device("cpu")
SHORT: dict[str, Any] = {"duration": {"steps": 4}, "evaluation": {"every": {"steps": 4}, "micro_batch": 40}}


def index(target: Path, tars: Path) -> str:
    """Index tars in place, each split by its name; return the dataset's root."""
    names = {name: name for name in NAMES}
    splits = {
        split: {"format": "webdataset", "images": f"{tars}/{split}-*.tar", "names": names, "copy": False}
        for split in ("train", "holdout", "val")
    }
    recipe = Recipe.parse({"name": "tars", "splits": splits, "holdout": None, "target": str(target)})
    return build(recipe, run_tasks=in_process).root


def start(run: Run) -> str:
    claim(run, Dataset.open(run.data.root))
    return fit(run, Place(), CPU).ending


def last_tensors(run: Run) -> dict[str, Any]:
    checkpoint = latest(list_checkpoints(run.run_folder))
    assert checkpoint
    tensors: dict[str, Any] = checkpoint.load()["classifier"]
    return tensors


def test_a_run_resumed_after_its_tars_moved_ends_as_one_on_our_own_shards(make_run: MakeRun, tiny: str, tmp_path: Path) -> None:
    tars = tmp_path / "tars"
    tars.mkdir()
    for path in Path(tiny).glob("*.tar"):
        shutil.copy(path, tars)
    own = make_run(tmp_path / "own", **SHORT)
    assert start(own) == "finished"

    first = make_run(tmp_path / "on-tars", data={"root": index(tmp_path / "index", tars)}, **SHORT)
    claim(first, Dataset.open(first.data.root))
    folder.ask_to_stop(first.run_folder)
    assert fit(first, Place(), CPU).ending == "stopped"
    shutil.move(tars, tmp_path / "moved")
    resumed = make_run(tmp_path / "on-tars", data={"root": index(tmp_path / "again", tmp_path / "moved")}, **SHORT)
    assert start(resumed) == "finished"

    ours, theirs = last_tensors(own), last_tensors(resumed)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assess(resumed.run_folder, "val")
    evaluated = Predictions.read(RunFolder(resumed.run_folder).predictions("val")).sample_ids_N.tolist()
    assert evaluated == sorted(image.sample_id or 0 for image in find_images([resumed.data.root], split="val"))
    assert evaluated == sorted(Dataset.open(tiny).split("val").sample_ids().tolist())
