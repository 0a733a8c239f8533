"""`rayprob compare`: numbers are those of `evaluate`, predictions are made where they are missing, and the page is sound."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from rayprob.calibrate.crossfit import CalibrateSpec
from rayprob.calibrate.fitting import calibrate
from rayprob.cli.app import app
from rayprob.cli.show_compare import show_comparison
from rayprob.errors import RayprobError, RunError, SpecError
from rayprob.report.compare.comparison import compare, open_models
from rayprob.report.compare.page import render
from rayprob.report.compare.words import heading, lead
from rayprob.runs.paths import RunFolder
from rayprob.runs.predictions import Predictions
from rayprob.train.assess import assess
from tests.report.compare.conftest import MakeFolder
from tests.report.page_checks import Page
from tests.report.run_folders import NAMES


def said(*arguments: str) -> str:
    """Return what a verb prints in a terminal of 80 columns."""
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "80"})
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def test_the_noisier_run_is_worse_and_the_same_predictions_are_equal(folders: tuple[str, ...]) -> None:
    found = compare(open_models(folders, "val", None), "val", draws=200)
    assert [model.letter for model in found.models] == ["A", "B", "C"]
    assert (found.paired.num_images, found.num_labels, len(found.paired.labels)) == (48, len(NAMES), len(NAMES) - 1)
    noisier, same = zip(*(row.differences for row in found.paired.numbers), strict=True)
    assert noisier[0].is_clear
    assert noisier[0].value < 0
    assert {(each.value, each.p_value) for each in same} == {(0.0, 1.0)}
    assert lead(found).startswith(
        "A is first, B is other and C is third, on 48 images of val with 6 labels. B compared with A: A "
    )
    assert lead(found).endswith(
        "C compared with A: no number of C differs from A's by more than chance; none of 5 labels differs "
        "in AP by more than chance."
    )


def test_labels_with_too_few_images_for_a_test_are_not_counted_as_equal(folders: tuple[str, ...]) -> None:
    found = compare(open_models(folders[:2], "val", None), "val", draws=2)
    untested = [
        replace(row, differences=tuple(replace(one, p_value=None) for one in row.differences)) for row in found.paired.labels
    ]
    few = replace(found, paired=replace(found.paired, labels=tuple(untested)))
    told = "no label has 10 images with it and 10 without, which a test of its AP takes"
    assert lead(few).endswith(f"; {told}.")
    console = Console(file=io.StringIO(), width=200)
    show_comparison(console, few)
    assert f"\n{told}; the largest differences:\n" in console.file.getvalue()  # type: ignore[attr-defined]


def test_numbers_are_those_of_evaluate_once_calibrated(
    make_folder: MakeFolder, folders: tuple[str, ...], tmp_path: Path
) -> None:
    folder = make_folder(tmp_path / "calibrated", 1.0)
    report = calibrate(folder, CalibrateSpec.parse({"method": "temperature"}))
    assess(folder, "val")
    numbers = assess(folder, "val")
    twice = compare(open_models([folder, folder], "val", None), "val", draws=2)
    values = {row.name: row.values[0].value for row in twice.paired.numbers}
    assert numbers.tuned is not None
    of_evaluate = {"mAP": numbers.at_half.mAP, "OF1 at 0.5": numbers.at_half.OF1, "CF1 at 0.5": numbers.at_half.CF1}
    of_evaluate |= {"OF1 tuned": numbers.tuned.OF1, "CF1 tuned": numbers.tuned.CF1}
    assert {name: values[name] for name in of_evaluate} == pytest.approx(of_evaluate)
    assert set(values) - set(of_evaluate) == {"ECE", "NLL"}
    assert {row.name: row.values[0].value for row in twice.paired.labels} == pytest.approx(numbers.ap)
    assert report.method == "temperature"
    mixed = compare(open_models([folder, folders[0]], "val", None), "val", draws=2)
    assert [row.name for row in mixed.paired.numbers] == ["mAP", "OF1 at 0.5", "CF1 at 0.5", "ECE", "NLL"]
    assert [note.command for note in mixed.notes] == [f"rayprob calibrate {folders[0]}"]


def test_missing_and_stale_predictions_are_made_and_named(
    make_folder: MakeFolder, folders: tuple[str, ...], tmp_path: Path
) -> None:
    folder = make_folder(tmp_path / "late")
    path = Path(RunFolder(folder).predictions("val"))
    seen: list[tuple[str, int, int]] = []
    path.unlink()
    found = compare(open_models([folders[0], folder], "val", None, lambda *at: seen.append(at)), "val", draws=2)
    assert seen[-1] == (folder, 48, 48)
    assert str(found.notes[0]) == f"Predictions of val by the bundle of {folder} were missing, and have been written."
    assert [one.note for one in open_models([folders[0], folder], "val", None)] == ["", ""]
    table = Predictions.read(str(path))
    table.facts["step"] = 7
    table.write(str(path))
    assert [bool(one.note) for one in open_models([folders[0], folder], "val", None)] == [False, True]
    shutil.rmtree(path.parent)
    path.parent.write_text("not a folder, so that nobody can write into it")
    found = compare(open_models([folders[0], folder], "val", None), "val", draws=2)
    assert "cannot be kept" in str(found.notes[0])


def test_bundles_alone_are_compared_on_a_dataset(folders: tuple[str, ...], root: str, tmp_path: Path) -> None:
    bundles = [str(tmp_path / name) for name in ("one", "two")]
    for bundle, folder in zip(bundles, folders, strict=False):
        shutil.copytree(RunFolder(folder).bundle, bundle)
    first = said("compare", *bundles, "--data", root, "--split", "holdout", "--draws", "10")
    assert f"holdout of {root}: " in first
    assert "have been written" in first
    assert "have been written" not in said("compare", *bundles, "--data", root, "--split", "holdout", "--draws", "10")
    own = Path(RunFolder(folders[0]).predictions("val")).read_bytes()
    said("compare", folders[0], bundles[0], "--data", root, "--draws", "10")
    assert Path(RunFolder(folders[0]).predictions("val")).read_bytes() == own


def test_the_terminal_shows_whole_numbers_and_names_as_they_are(folders: tuple[str, ...], tmp_path: Path) -> None:
    page = tmp_path / "a page [1].html"
    text = said("compare", *folders[:2], "--draws", "200", "-o", str(page))
    assert f"\nB: {folders[1]}, not calibrated\n" in text
    assert all(len(line) <= 80 for line in text.splitlines() if line.startswith(("mAP", "OF1", "ECE", "cat", "<b>dog")))
    assert "A is better" in text
    assert f"{page}: 0.1 MB" in text or f"{page}: 0.0 MB" in text
    told = json.loads(said("compare", *folders[:2], "--draws", "200", "--json"))
    assert [model["folder"] for model in told["models"]] == [*folders[:2]]
    assert told["numbers"][0]["name"] == "mAP"
    assert told["numbers"][0]["differences"][0]["more_than_chance"] is True
    assert {row["name"] for row in told["labels"]} == {*NAMES} - {"never there"}
    assert np.isfinite([value["low"] for row in told["labels"] for value in row["values"]]).all()


def test_the_page_is_sound_escapes_names_and_tells_its_command(folders: tuple[str, ...]) -> None:
    found = compare(open_models(folders, "val", None), "val", draws=50)
    page = Page(render(found))
    assert page.faults() == []
    assert heading(found) in page.text
    assert all(name in page.text for name in NAMES[:-1])
    assert f"rayprob compare {folders[0]} '{folders[1]}' {folders[2]}" in page.text


def test_what_cannot_be_compared_is_named(folders: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="compare takes 2 to 26 runs or bundles; got 1"):
        open_models(folders[:1], "val", None)
    with pytest.raises(RunError, match="is not a run folder"):
        open_models([folders[0], str(tmp_path)], "val", None)
    with pytest.raises(RunError, match="is a bundle; give the run's folder"):
        open_models([folders[0], RunFolder(folders[1]).bundle], "val", None)
    with pytest.raises(RayprobError, match="has no split 'test'"):
        open_models(folders, "test", None)
