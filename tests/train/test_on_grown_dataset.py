"""A run keeps to the version of its dataset that it was trained on, after the dataset has grown."""

from pathlib import Path

import pytest
import torch

from rayprob.data.building.build import build, in_process
from rayprob.data.building.recipe import Recipe
from rayprob.data.manifest.dataset import Dataset
from rayprob.errors import RunError
from rayprob.loader.order import Place
from rayprob.report.run.files import open_dataset
from rayprob.runs import folder
from rayprob.runs.paths import RunFolder
from rayprob.runs.predictions import Predictions
from rayprob.train.assess import assess
from rayprob.train.launch import launch
from rayprob.train.loop import fit
from tests.train.conftest import MakeRun, write_coco


def test_a_run_is_continued_evaluated_and_reported_on_its_version(make_run: MakeRun, tmp_path: Path) -> None:
    splits = {"train": write_coco(tmp_path / "data", "train", 40, 1), "val": write_coco(tmp_path / "data", "val", 8, 10_001)}
    recipe = Recipe.parse({"name": "grows", "splits": splits, "target": str(tmp_path / "built"), "max_shard_samples": 20})
    old = build(recipe, run_tasks=in_process)
    steps = {"duration": {"steps": 2}, "evaluation": {"every": {"steps": 2}, "micro_batch": 20}}
    run = make_run(tmp_path / "run", data={"root": old.root}, **steps)
    folder.claim(run, Dataset.open(old.root))
    fit(run, Place(), torch.device("cpu"))
    manifest = Dataset.open(old.root).split("train")
    more = {"train": write_coco(tmp_path / "more", "train", 60, 1), "val": write_coco(tmp_path / "more", "val", 12, 10_001)}
    new = build(Recipe.parse({**recipe.model_dump(), "splits": more}), run_tasks=in_process, grow=True)
    version = f"{old.root}@{old.facts['fingerprint']}"
    assert folder.recorded_data(run).root == version
    assert run.data.model_copy(update={"root": (old.root,)}).at(old.facts["fingerprint"]).roots == (version,)
    assert manifest.fingerprint == old.facts["fingerprint"]  # that a stream opened before writes into checkpoints
    assert launch(run).step == 2  # it has finished, and is the same run
    assess(run.run_folder, "val")
    predictions = Predictions.read(RunFolder(run.run_folder).predictions("val"))
    assert len(predictions.sample_ids_N) == 8 < new.facts["splits"]["val"] == 12
    dataset, notes = open_dataset(run.model_dump(mode="json"), predictions)
    assert dataset is not None
    assert (dataset.root, notes) == (version, [])
    with pytest.raises(RunError, match=f"dataset fingerprint: {old.facts['fingerprint']} -> {new.facts['fingerprint']}"):
        folder.claim(run, Dataset.open(old.root))
