"""The verbs, run as a person runs them on a dataset whose labels are odd: names are printed as they are."""

import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from rayprob.cli.app import app
from rayprob.runs.spec import Run
from tests.report import run_folders

ODD = ("box [open]", "box [closed]", "[/b]", ":cat:", "a\\", "$x_{1}$ [red]")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run on a dataset with these labels, as training would leave it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_folders, "NAMES", ODD)
        root = run_folders.build_dataset(tmp_path_factory.mktemp("odd"))
        folder = run_folders.write_run(tmp_path_factory.mktemp("runs") / "odd [run]", root)
    value = {
        "name": "odd",
        "folder": folder,
        "data": {"root": root},
        "stream": {"global_batch": 16, "loader_workers": 0},
        "transforms": {"train": {"name": "paper", "size_px": 32}, "evaluate": {"name": "resize", "size_px": 32}},
        "model": {"backbone": "squeezenet1_1"},
        "duration": {"steps": 1},
    }
    (Path(folder) / "run.yaml").write_text(yaml.safe_dump(Run.parse(value).model_dump(mode="json")))
    return folder


def said(*arguments: str) -> str:
    """Return what a verb prints in a terminal of 80 columns."""
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "80"})
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def test_inspect_names_each_label(run_folder: str) -> None:
    text = said("inspect", yaml.safe_load((Path(run_folder) / "run.yaml").read_text())["data"]["root"])
    beginnings = {line.split("  ")[0] for line in text.split("\n")}
    assert {*ODD} <= beginnings


def test_evaluate_and_calibrate_name_labels_and_folders(run_folder: str, tmp_path: Path) -> None:
    folder = str(tmp_path / "run [of] :cat:")
    shutil.copytree(run_folder, folder)
    text = said("evaluate", folder)
    assert all(f" {label} 0." in text for label in ODD[:-1])
    assert f"predictions: {folder}/predictions/val.parquet" in text
    assert f"written: {folder}/bundle    {folder}/calibration.json" in said("calibrate", folder, "--method", "temperature")


def test_predict_names_labels_evidence_and_files(run_folder: str, tmp_path: Path) -> None:
    root = Path(yaml.safe_load((Path(run_folder) / "run.yaml").read_text())["data"]["root"]).parent
    photo = tmp_path / "a [bold]$1$ $2_{$ :cat:.jpg"
    shutil.copy(next((root / "val").iterdir()), photo)
    shutil.copy(photo, second := tmp_path / "[b].jpg")
    asked = ("--top", "6", "-q", 'P("[/b]" | ":cat:")', "--figure", str(tmp_path / "figures [x]"))
    one = said("predict", run_folder, str(photo), *asked)
    assert one.split("\n")[0] == str(photo)
    assert {*ODD} <= {line.split("  ")[0] for line in one.split("\n")}
    several = said("predict", run_folder, str(photo), str(second), *asked)
    assert f"\n{second}\n" in several
    assert all(f"{label} 0." in several for label in ODD)
    assert f"\n{tmp_path}/figures [x]: 2 figures written, 1 replaced an earlier figure of the same image\n" in several
    assert {path.name for path in (tmp_path / "figures [x]").iterdir()} == {"a [bold]$1$ $2_{$ :cat:.png", "[b].png"}


def test_errors_name_what_was_given_as_it_was_given(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["inspect", str(tmp_path / "[/b] :cat:")])
    assert str(tmp_path / "[/b] :cat:") in str(result.exception)
    usage = CliRunner().invoke(app, ["inspect", "x", "[/b] :cat:"])
    assert (usage.exit_code, "extra argument(s) ([/b] :cat:)" in usage.output) == (2, True)
