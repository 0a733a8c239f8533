"""A run whose dataset has train and holdout only, as `rayprob new` makes it of a plain folder: no command asks for val."""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from rayprob.calibrate.crossfit import CalibrateSpec
from rayprob.calibrate.fitting import calibrate
from rayprob.cli.app import app
from rayprob.cli.train import evaluate_command
from rayprob.errors import DatasetError, RunError
from rayprob.report.run.files import open_run_files
from rayprob.runs.finished import split_to_report
from rayprob.runs.spec import Run
from rayprob.train.assess import assess
from tests.report.run_folders import build_dataset, write_run


@pytest.fixture(scope="module")
def without_val(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The root of a dataset with train and holdout only."""
    return build_dataset(tmp_path_factory.mktemp("without-val"), num_val=0)


def make_run(folder: Path, root: str, splits: tuple[str, ...] = ("holdout",)) -> str:
    """Write the folder of a finished run whose run file is complete, so that `evaluate` takes it."""
    write_run(folder, root, splits=splits)
    run = Run.parse(
        {
            "name": folder.name,
            "data": {"root": root},
            "stream": {"global_batch": 16, "loader_workers": 0},
            "transforms": {"train": {"name": "paper", "size_px": 32}, "evaluate": {"name": "resize", "size_px": 32}},
            "model": {"backbone": "squeezenet1_1"},
            "duration": {"steps": 1},
        }
    )
    (folder / "run.yaml").write_text(yaml.safe_dump(run.model_dump(mode="json")))
    return str(folder)


def test_the_next_command_after_training_names_the_split_that_exists(without_val: str, root: str, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", without_val)
    assert evaluate_command(folder) == f"rayprob evaluate {folder} --split holdout"
    with_val = make_run(tmp_path / "with-val", root)
    assert evaluate_command(with_val) == f"rayprob evaluate {with_val}"


def test_a_run_or_dataset_that_cannot_be_read_is_taken_to_have_val(without_val: str, tmp_path: Path) -> None:
    assert split_to_report(str(tmp_path)) == "val"
    folder = make_run(tmp_path / "run", without_val)
    assert split_to_report(folder) == "holdout"
    path = tmp_path / "run" / "run.yaml"
    path.write_text(path.read_text().replace(without_val, str(tmp_path / "gone")))
    assert split_to_report(folder) == "val"
    path.write_text("- no mapping\n")
    assert split_to_report(folder) == "val"


def test_evaluate_names_the_split_to_ask_for(without_val: str, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", without_val)
    with pytest.raises(DatasetError, match=r"has no split 'val'; it has train .*, holdout .*; add --split holdout$"):
        assess(folder, "val")
    with pytest.raises(DatasetError, match=r"has no split 'test'; it has train \(\d+\), holdout \(\d+\)$"):
        assess(folder, "test")


def test_calibrate_does_not_ask_for_val(without_val: str, tmp_path: Path) -> None:
    report = calibrate(make_run(tmp_path / "run", without_val), CalibrateSpec.parse({"method": "temperature"}))
    assert "of val" not in "\n".join(report.notes)


def test_the_page_of_a_run_does_not_ask_for_val(without_val: str, tmp_path: Path) -> None:
    note, *_ = open_run_files(make_run(tmp_path / "run", without_val), None).notes
    assert str(note) == (
        "The dataset has no split val, so this page shows holdout, on which the run chose its checkpoint: "
        "these numbers are optimistic."
    )
    with pytest.raises(RunError, match=r"no predictions of val or holdout .* --split holdout` writes them"):
        open_run_files(make_run(tmp_path / "none", without_val, splits=()), None)


def test_the_page_of_several_runs_is_about_holdout(without_val: str, tmp_path: Path) -> None:
    folders = [make_run(tmp_path / name, without_val) for name in ("one", "two")]
    page = tmp_path / "both.html"
    shown = CliRunner().invoke(app, ["report", *folders, "--out", str(page)], catch_exceptions=False).output
    assert "images of holdout with 6 labels" in shown
    assert "note: Checkpoints were chosen on holdout, so these numbers are optimistic." in shown
    assert "Checkpoints were chosen on holdout" in page.read_text()
