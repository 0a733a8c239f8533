"""Evaluating on another dataset: labels by name, predictions kept apart, and bundles alone."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from rayprob.cli.app import app
from rayprob.data.building.build import build, in_process
from rayprob.data.building.recipe import Recipe
from rayprob.data.manifest.dataset import Dataset
from rayprob.errors import LabelError, RunError
from rayprob.labels import LabelSpace
from rayprob.loader.order import Place
from rayprob.metrics.ranking import average_precision
from rayprob.runs.predictions import Predictions
from rayprob.train.assess import assess
from rayprob.train.evaluable import LabelMatch
from rayprob.train.loop import fit
from tests.train.conftest import NAMES, MakeRun, write_coco

OTHERS = ("purple", "bright", "Red", "green")  # two of the model's labels, in another order and without boxes


@pytest.fixture(scope="module")
def run_folder(make_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two steps, evaluated on its own val."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    run = make_run(folder, duration={"steps": 2}, evaluation={"every": {"steps": 2}, "micro_batch": 20})
    folder.mkdir()
    (folder / "run.yaml").write_text(run.to_yaml())
    fit(run, Place(), torch.device("cpu"))
    assess(str(folder), "val")
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The root of a dataset with other labels, from a CSV file."""
    root = tmp_path_factory.mktemp("other")
    rng = np.random.default_rng(0)
    splits = {}
    for split, first in (("train", 1), ("val", 51)):
        write_coco(root, split, 24, first)
        rows = [[path.name, *(rng.random(len(OTHERS)) < 0.5).astype(int)] for path in sorted((root / split).iterdir())]
        with open(root / f"{split}.csv", "w", newline="") as file:
            csv.writer(file).writerows([["file", *OTHERS], *rows])
        table = {"format": "table", "annotations": str(root / f"{split}.csv"), "one_hot": "2.."}
        splits[split] = {**table, "images": str(root / split)}
    recipe = {"name": "other", "splits": splits, "target": str(root / "built"), "holdout": {"fraction": 0.2}}
    return build(Recipe.parse(recipe), run_tasks=in_process).root


def test_labels_are_matched_by_name_and_the_runs_own_predictions_stay(run_folder: Path, other: str) -> None:
    own = (run_folder / "predictions" / "val.parquet").read_bytes()
    numbers = assess(str(run_folder), "val", data=other)
    assert numbers.labels is not None
    assert (numbers.labels.only_model, numbers.labels.only_data) == (("red", "blue"), ("purple", "Red"))
    assert (run_folder / "predictions" / "val.parquet").read_bytes() == own
    dataset = Dataset.open(other)
    assert numbers.predictions == str(run_folder / "predictions" / dataset.fingerprint / "val.parquet")
    table = Predictions.read(numbers.predictions)
    assert table.label_space.names == NAMES
    assert table.known_NL.any(axis=0).tolist() == [False, True, False, True]
    manifest = dataset.split("val")
    rows = np.argsort(manifest.sample_ids_N)
    np.testing.assert_array_equal(table.targets_NL[:, [1, 3]], manifest.targets(rows)[:, [3, 1]])
    ap_L = average_precision(table.outputs["logits"][:, [1, 3]], table.targets_NL[:, [1, 3]])
    assert numbers.ap == {"green": ap_L[0], "bright": ap_L[1]}
    assert numbers.at_half.mAP == ap_L.mean()


def test_a_bundle_alone_predicts_as_its_run_and_needs_a_dataset(run_folder: Path, other: str, tmp_path: Path) -> None:
    bundle = tmp_path / "a bundle [1]"
    shutil.copytree(run_folder / "bundle", bundle)
    of_run, alone = (assess(str(folder), "val", data=other) for folder in (run_folder, bundle))
    assert (alone.at_half, alone.threshold, alone.at_threshold) == (of_run.at_half, None, None)
    assert alone.predictions.startswith(str(bundle / "predictions"))
    again = assess(str(bundle), "val", data=other, out=str(tmp_path / "table.parquet"))
    assert again.predictions == str(tmp_path / "table.parquet")
    np.testing.assert_array_equal(*(Predictions.read(one.predictions).outputs["logits"] for one in (of_run, again)))
    with pytest.raises(RunError, match=r"is a bundle; give the run's folder, .*or a dataset with --data"):
        assess(str(bundle), "val")
    with pytest.raises(RunError, match="is not a run folder"):
        assess(str(tmp_path), "val", data=other)


def test_the_runs_own_dataset_elsewhere_is_its_own(run_folder: Path, tiny: str, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "moved")
    numbers = assess(str(run_folder), "val", data=str(tmp_path / "moved"))
    assert numbers.predictions == str(run_folder / "predictions" / "val.parquet")
    assert numbers.labels is not None
    assert numbers.labels.sentences() == []


def test_evaluate_says_which_labels_are_missing_on_either_side(run_folder: Path, other: str) -> None:
    command = ["evaluate", str(run_folder), "--data", other]
    said = " ".join(CliRunner().invoke(app, command, env={"COLUMNS": "80"}).output.split())
    assert "of the model's 4 labels, the dataset lacks 2, which count as unknown: red, blue" in said
    assert "of the dataset's 4 labels, the model lacks 2, which are left out: purple, Red" in said
    told = json.loads(CliRunner().invoke(app, [*command, "--json"]).output)
    assert told["data"] == other
    assert told["labels"] == {"matched": 2, "renamed": {}, "only_model": ["red", "blue"], "only_data": ["purple", "Red"]}


def test_a_dataset_without_any_of_the_labels_is_refused() -> None:
    model, data = (LabelSpace(names, tuple(range(len(names)))) for names in (("cat", "dog"), ("fork", "knife")))
    with pytest.raises(LabelError, match=r"no label of there \(fork, knife\) is one of the model's \(cat, dog\); give"):
        LabelMatch.of(model, data, "there")


def test_vocs_and_cocos_names_of_a_label_are_matched_and_named() -> None:
    model, data = (LabelSpace(names, tuple(range(len(names)))) for names in (("tv", "cat"), ("cat", "tvmonitor")))
    match = LabelMatch.of(model, data, "there")
    assert match.columns == {0: 1, 1: 0}
    assert match.sentences() == ["matched under another name: tv = tvmonitor"]
