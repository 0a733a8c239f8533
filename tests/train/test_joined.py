"""A run on two datasets: one label space, numbers on each, and every verb that opens the run's data."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from rayprob.calibrate.crossfit import CalibrateSpec
from rayprob.calibrate.find_priors import find_priors
from rayprob.calibrate.fitting import calibrate
from rayprob.cli.app import app
from rayprob.data.manifest.dataset import Dataset
from rayprob.errors import DatasetError
from rayprob.labels import LabelSpace
from rayprob.loader.order import Place
from rayprob.report.run.write import report
from rayprob.runs import folder
from rayprob.runs.bundle import Bundle
from rayprob.runs.checkpoints import latest, list_checkpoints
from rayprob.runs.history_rows import read_history
from rayprob.runs.predictions import Predictions
from rayprob.runs.rules import check
from rayprob.runs.spec import Run
from rayprob.train.assess import assess
from rayprob.train.evaluable import own_dataset
from rayprob.train.job import prevalence
from rayprob.train.loop import fit
from rayprob.train.refit import RefitSpec, refit
from tests.train.conftest import NAMES, MakeRun

OTHERS = ("crimson", "green", "blue", "bright")
SHORT = {"duration": {"steps": 6}, "evaluation": {"every": {"steps": 6}, "micro_batch": 20}}


@pytest.fixture(scope="module")
def other(tiny: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The root of a dataset with the images and ids of `tiny`, one of whose labels has another name."""
    root = tmp_path_factory.mktemp("other") / "built"
    shutil.copytree(tiny, root)
    labels = LabelSpace(OTHERS, Dataset.open(tiny).label_space.category_ids)
    facts = json.loads((root / "dataset.json").read_text())
    facts |= {"label_space_fingerprint": labels.fingerprint, "fingerprint": "0123456789abcdef", "name": "other"}
    (root / "labels.json").write_text(json.dumps(labels.to_dict()))
    (root / "dataset.json").write_text(json.dumps(facts))
    return str(root)


def start(run: Run) -> str:
    Path(run.run_folder).mkdir(parents=True, exist_ok=True)
    (Path(run.run_folder) / "run.yaml").write_text(run.to_yaml())
    return fit(run, Place(), torch.device("cpu")).ending


@pytest.fixture(scope="module")
def trained(make_run: MakeRun, tiny: str, other: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run on both, evaluated on val; tests only read it."""
    data = {"root": [tiny, other], "weights": [1, 0.5]}
    run = make_run(tmp_path_factory.mktemp("trained") / "both", data=data, **SHORT)
    start(run)
    assess(run.run_folder, "val")
    return run


def test_the_bundle_knows_all_labels_and_the_run_says_what_it_mixes(trained: Run, tiny: str, other: str) -> None:
    assert Bundle.load(f"{trained.run_folder}/bundle").label_space.names == (*NAMES, "crimson")
    (first, *_) = read_history(trained.run_folder)
    sizes = {root: Dataset.open(root).splits for root in (tiny, other)}
    assert first["datasets"] == [
        f"{root}: {sizes[root]['train']:,} samples, weight {weight}: {taken:,} in each epoch; {sizes[root]['holdout']:,} in "
        "holdout; 4 of the 5 labels, the others unknown"
        for root, weight, taken in ((tiny, 1, sizes[tiny]["train"]), (other, 0.5, (sizes[other]["train"] + 1) // 2))
    ]
    assert first["steps_per_epoch"] == (sizes[tiny]["train"] + (sizes[other]["train"] + 1) // 2) // 16


def test_evaluation_is_on_the_samples_of_both_and_on_each_by_its_root(trained: Run, other: str) -> None:
    both = Predictions.read(f"{trained.run_folder}/predictions/val.parquet")
    assert len(both) == 80
    is_own = np.isin(both.sample_ids_N, Dataset.open(other).split("val").sample_ids())
    assert is_own.sum() == 40, "the first dataset keeps its ids, which are those of the other one, too"
    assert both.known_NL[is_own].all(axis=0).tolist() == [True] * 4 + [False]
    assert both.known_NL[~is_own].all(axis=0).tolist() == [False] + [True] * 4
    alone = assess(trained.run_folder, "val", data=other)
    assert alone.num_samples == 40
    assert alone.labels is not None
    assert alone.labels.only_model == ("red",)
    assert alone.ap.keys() == set(OTHERS)
    result = CliRunner().invoke(app, ["evaluate", trained.run_folder, "--json"])
    assert json.loads(result.output)["data"] == f"{trained.data.roots[0]} and {other}"
    assert json.loads(result.output)["num_samples"] == 80


def test_every_verb_after_training_takes_such_a_run(trained: Run, tmp_path: Path) -> None:
    copied = tmp_path / "both"
    shutil.copytree(trained.run_folder, copied)
    (copied / "run.yaml").write_text(trained.model_copy(update={"folder": str(copied)}).to_yaml())
    calibrate(str(copied), CalibrateSpec(method="temperature", objectives=("OF1",), smoothing=0, alphas=()))
    assert assess(str(copied), "val").tuned is not None
    assert find_priors(Bundle.load(f"{copied}/bundle"), "auto").out_of_reach == ""
    page = Path(report(str(copied), "val", str(tmp_path / "page.html")).path).read_text()
    assert "tiny + other" in page
    assert "cannot be shown" not in page
    assert page.count("data:image/jpeg") > 4
    refitted = refit(str(copied), RefitSpec.parse({"epochs": 2, "global_batch": 16}), name="again")
    train_rows = Dataset.open(trained.data.roots[0]).splits["train"]
    assert refitted.total_steps == 2 * ((train_rows + (train_rows + 1) // 2) // 16)
    assert Bundle.load(f"{refitted.folder}/bundle").label_space.names == (*NAMES, "crimson")


def test_a_run_on_both_keeps_to_their_versions(
    trained: Run, other: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_folder, grown = tmp_path / "run", tmp_path / "other"
    shutil.copytree(trained.run_folder, run_folder)
    shutil.copytree(other, grown)
    first = trained.data.roots[0]
    data = trained.data.model_copy(update={"root": (first, str(grown))})
    (run_folder / "run.yaml").write_text(trained.model_copy(update={"folder": str(run_folder), "data": data}).to_yaml())
    own = Predictions.read(f"{run_folder}/predictions/val.parquet")
    version = grown / "versions" / "0123456789abcdef.json"
    version.parent.mkdir()
    shutil.copy(grown / "dataset.json", version)
    facts = json.loads(version.read_text()) | {"fingerprint": "f" * 16, "parent": {"fingerprint": version.stem, "file": "-"}}
    (grown / "dataset.json").write_text(json.dumps(facts))
    run = folder.open_run(str(run_folder))
    assert own_dataset(run, Bundle.load(f"{run_folder}/bundle")).root == f"{first} and {grown}@{version.stem}"
    assess(str(run_folder), "val")
    assert Predictions.read(f"{run_folder}/predictions/val.parquet").facts == own.facts
    assert not caplog.records
    version.unlink()
    assert own_dataset(run, Bundle.load(f"{run_folder}/bundle")).root == f"{first} and {grown}"
    assert f"{first} and {grown} has other images or labels than those that" in caplog.text


def test_a_stopped_run_on_both_ends_bit_identical(trained: Run, tmp_path: Path) -> None:
    stopped = trained.model_copy(update={"folder": str(tmp_path)})
    folder.ask_to_stop(stopped.run_folder)
    assert start(stopped) == "stopped"
    Path(tmp_path / "stop").unlink(missing_ok=True)
    assert start(stopped) == "finished"
    last, resumed = latest(list_checkpoints(trained.run_folder)), latest(list_checkpoints(stopped.run_folder))
    assert last
    assert resumed
    weights, again = (checkpoint.load()["classifier"] for checkpoint in (last, resumed))
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_the_head_starts_from_prevalences_counted_by_weight(make_run: MakeRun, tiny: str, other: str, tmp_path: Path) -> None:
    def start_of(*weights: float) -> np.ndarray:
        data = {"root": [tiny, other], "weights": list(weights)}
        return prevalence(make_run(tmp_path, data=data).data.open().split("train"))

    alone = prevalence(Dataset.open(tiny).split("train"))
    assert np.allclose(start_of(1, 1), [*alone, alone[0]], rtol=1e-12)
    assert np.allclose(start_of(3, 0.5), start_of(1, 1), rtol=1e-12), "both have the same samples"


def test_a_dataset_without_the_training_split_is_refused(make_run: MakeRun, tiny: str, other: str, tmp_path: Path) -> None:
    shutil.copytree(other, tmp_path / "val only")
    facts = json.loads((tmp_path / "val only" / "dataset.json").read_text())
    run = make_run(tmp_path / "run", data={"root": [tiny, other], "train_split": "more"})
    assert facts["name"] == "other"
    with pytest.raises(DatasetError, match="has no split 'more'"):
        check(run, run.data.open(), 1)
