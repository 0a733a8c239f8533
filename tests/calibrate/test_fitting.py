"""Calibration of a run: honest on images that it never saw, the same twice, and every fault named."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from scipy.special import expit
from sklearn.metrics import f1_score
from typer.testing import CliRunner

from rayprob.calibrate.comparison import Comparison, SetNumbers
from rayprob.calibrate.crossfit import CalibrateSpec
from rayprob.calibrate.fitting import calibrate, worse_notes
from rayprob.cli.app import app
from rayprob.errors import CalibrationError, LabelError, RayprobError, RunError, SpecError
from rayprob.labels import LabelSpace
from rayprob.metrics.reliability import Honesty
from rayprob.runs.bundle import Bundle
from rayprob.runs.predictions import Predictions
from tests.calibrate.calibrated_run import FACTS, LABELS, mixture_predictions, predictions, true_logits, write_run

AUTO = CalibrateSpec()
SHARED = CalibrateSpec(method="shared_platt")


def read_all(folder: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


def without_card(files: dict[str, bytes]) -> dict[str, bytes]:
    """Return the files that decide; the card also states numbers of val."""
    return {name: content for name, content in files.items() if not name.startswith("card.")}


def test_calibrated_marginals_are_nearly_the_true_ones_on_images_never_seen(tmp_path: Path) -> None:
    val = predictions(3000, "val", seed=2)
    folder = write_run(tmp_path, predictions(600, "holdout", seed=1), val)
    report = calibrate(folder, AUTO)
    assert report.reported is not None
    before, after = report.reported.before, report.reported.after
    assert after.ECE < before.ECE / 3
    assert after.adaptive_ECE < before.adaptive_ECE / 3
    assert after.Brier < before.Brier
    logits_NL = true_logits(3000, seed=2)
    best = -np.where(val.targets_NL, np.log(expit(logits_NL)), np.log(expit(-logits_NL))).sum(axis=1).mean()
    assert best < after.nll_nats < best + 0.03 < before.nll_nats
    marginals_NL = Bundle.load(f"{folder}/bundle").distribution(val.outputs).marginals()
    assert np.abs(marginals_NL - expit(logits_NL)).mean() < 0.02


def test_the_numbers_of_holdout_are_honest_where_there_is_nothing_to_learn(tmp_path: Path) -> None:
    holdout = predictions(60, "holdout", seed=1, informative=False)
    report = calibrate(write_run(tmp_path, holdout, predictions(4000, "val", seed=5, informative=False)), SHARED)
    assert report.reported is not None
    flattered = report.holdout.oracles["label_CF1"].CF1
    judged, real = report.holdout.sets["label_CF1"].CF1, report.reported.sets["label_CF1"].CF1
    assert flattered - real > 0.1
    assert judged - real < 0.05
    assert report.holdout.after.nll_nats == pytest.approx(report.reported.after.nll_nats, abs=0.3)


def test_the_bundle_decides_as_the_report_says(tmp_path: Path) -> None:
    val = predictions(1000, "val", seed=2)
    folder = write_run(tmp_path, predictions(400, "holdout", seed=1), val)
    report = calibrate(folder, CalibrateSpec(precision=0.8))
    bundle = Bundle.load(f"{folder}/bundle")
    fitted = ["global_OF1", "label_OF1", "global_CF1", "label_CF1", "global_precision_0.8", "label_precision_0.8"]
    assert list(bundle.thresholds) == fitted
    assert list(bundle.guarantees) == ["0.05", "0.1", "0.2"]
    assert bundle.facts["calibration"] == {"method": report.method, "split": "holdout", "num_samples": 400}
    distribution = bundle.distribution(val.outputs)
    assert report.reported is not None
    assert list(report.reported.sets) == ["0.5", *fitted, "recall@0.05", "recall@0.1", "recall@0.2", "best_F1", "top_set"]
    for rule, numbers in report.reported.sets.items():
        sets_NL = bundle.label_sets(distribution, rule)
        assert pytest.approx(f1_score(val.targets_NL, sets_NL, average="micro", zero_division=0)) == numbers.OF1
        assert numbers.labels_per_image == pytest.approx(sets_NL.sum() / 1000)
    assert report.reported.sets["label_OF1"].OF1 > report.reported.before_at_half.OF1
    assert pytest.approx(0.8, abs=0.05) == report.reported.sets["global_precision_0.8"].OP
    for rule, oracle in report.reported.oracles.items():
        objective = rule.removeprefix("global_").removeprefix("label_")
        assert getattr(oracle, objective) >= getattr(report.reported.sets[rule], objective)


def test_val_decides_nothing(tmp_path: Path) -> None:
    val = predictions(300, "val", seed=2)
    folder = write_run(tmp_path, predictions(200, "holdout", seed=1), val)
    report = calibrate(folder, AUTO)
    bundle = without_card(read_all(f"{folder}/bundle"))
    replace(val, targets_NL=~val.targets_NL).write(f"{folder}/predictions/val.parquet")
    other = calibrate(folder, AUTO)
    assert without_card(read_all(f"{folder}/bundle")) == bundle
    assert other.holdout == report.holdout
    assert other.reported != report.reported


def test_calibrating_twice_replaces_with_the_same_bytes(tmp_path: Path) -> None:
    folder = write_run(tmp_path, predictions(150, "holdout", seed=1), predictions(100, "val", seed=2))
    calibrate(folder, AUTO)
    once = read_all(folder)
    assert "calibration.json" in once
    calibrate(folder, CalibrateSpec(method="identity", precision=0.7))
    other = read_all(folder)
    assert other["bundle/bundle.json"] != once["bundle/bundle.json"]
    calibrate(folder, AUTO)
    assert read_all(folder) == once


def test_guarantees_hold_on_average_with_a_calibrator_a_label(tmp_path: Path) -> None:
    risks = []
    for seed in range(6):
        holdout, val = (predictions(100, "holdout", seed=seed), predictions(1000, "val", seed=100 + seed))
        report = calibrate(write_run(tmp_path / str(seed), holdout, val), CalibrateSpec(method="platt", alphas=(0.2,)))
        assert any("guarantees are fitted on cross-fitted marginals" in note for note in report.notes)
        assert report.reported is not None
        risks.append(report.reported.sets["recall@0.2"].missed_share)
    standard_error = np.std(risks, ddof=1) / np.sqrt(len(risks))
    assert 0.2 - 0.05 < np.mean(risks) < 0.2 + 2 * standard_error


def test_a_mixture_is_calibrated_as_a_whole(tmp_path: Path) -> None:
    folder = write_run(tmp_path, mixture_predictions(200, "holdout", seed=1), mixture_predictions(1000, "val", seed=2))
    report = calibrate(folder, CalibrateSpec(method="shared_platt"))
    assert report.reported is not None
    assert report.reported.after.nll_nats < report.reported.before.nll_nats - 0.1
    assert report.holdout.after.nll_nats < report.holdout.before.nll_nats - 0.1
    assert Bundle.load(f"{folder}/bundle").calibrator is not None


def test_labels_that_nobody_stated_count_for_nothing(tmp_path: Path) -> None:
    holdout = predictions(200, "holdout", seed=1)
    known_NL = np.random.default_rng(3).random(holdout.known_NL.shape) < 0.7
    hidden = replace(holdout, known_NL=known_NL, targets_NL=holdout.targets_NL & known_NL)
    flipped = replace(holdout, known_NL=known_NL, targets_NL=holdout.targets_NL | ~known_NL)
    one, two = (calibrate(write_run(tmp_path, table), SHARED) for table in (hidden, flipped))
    assert one.to_dict() == two.to_dict()


def test_a_tiny_holdout_says_what_it_cannot_carry(tmp_path: Path) -> None:
    report = calibrate(write_run(tmp_path, predictions(26, "holdout", seed=1)), AUTO)
    assert list(report.guarantees) == ["0.05", "0.1", "0.2"]
    assert "recall@0.05" not in report.holdout.sets
    assert "recall@0.2" in report.holdout.sets
    notes = "\n".join(report.notes)
    assert "26 samples are too few to try platt (50), isotonic (50)" in notes
    assert notes.startswith("26 images with a known label are few: what is fitted on less than 100 may do worse on new images")
    assert "recall@0.05 has no cross-fitted numbers: on a part of holdout, alpha 0.05 needs 19" in notes
    assert "no predictions of val to report on: `rayprob evaluate" in notes
    tiny = calibrate(write_run(tmp_path / "ten", predictions(10, "holdout", seed=1)), AUTO)
    assert list(tiny.guarantees) == ["0.2"]
    assert "recall@0.05 is not possible: alpha 0.05 needs 19 calibration samples with a label, found" in "\n".join(tiny.notes)


def test_predictions_of_val_by_another_checkpoint_are_not_reported(tmp_path: Path) -> None:
    report = calibrate(write_run(tmp_path, predictions(40, "holdout", seed=1), predictions(40, "val", seed=2, step=6)), SHARED)
    assert report.reported is None
    assert any("val do not come from this bundle (step 6, the bundle's 12): `rayprob evaluate" in note for note in report.notes)


def test_a_label_out_of_reach_is_noted_by_name(tmp_path: Path) -> None:
    holdout = predictions(300, "holdout", seed=1)
    logits_NL = holdout.outputs["logits"].copy()
    logits_NL[:, 1] = np.where(holdout.targets_NL[:, 1], -3.0, 3.0)
    report = calibrate(
        write_run(tmp_path, replace(holdout, outputs={"logits": logits_NL})), CalibrateSpec(method="identity", precision=0.7)
    )
    assert any(note.startswith("label_precision_0.7: cow reaches precision") for note in report.notes)


def other_labels() -> Predictions:
    names = LabelSpace(("ant", *LABELS.names[1:]), LABELS.category_ids)
    return replace(predictions(40, "holdout", seed=1), label_space=names)


FAULTS = [
    (
        (predictions(9, "holdout", seed=1),),
        AUTO,
        CalibrationError,
        r"holdout.parquet has 9 samples with a known label; calibration needs at least 10",
    ),
    (
        (predictions(40, "val", seed=1),),
        AUTO,
        RunError,
        r"holdout.parquet is missing, .*; `rayprob evaluate .* --split holdout`",
    ),
    (
        (predictions(40, "holdout", seed=1, step=6),),
        AUTO,
        RunError,
        r"does not come from this bundle \(step 6, the bundle's 12\); `rayprob",
    ),
    (
        (predictions(40, "holdout", seed=1),),
        CalibrateSpec(method="plat"),
        SpecError,
        r"unknown calibration method 'plat'; nearest: platt",
    ),
    (
        (mixture_predictions(40, "holdout", seed=1),),
        CalibrateSpec(method="isotonic"),
        SpecError,
        r"unknown calibrator of a mixture",
    ),
    (
        (predictions(40, "holdout", seed=1, informative=False),),
        CalibrateSpec(precision=1.0, method="identity"),
        CalibrationError,
        r"global_precision_1: no threshold reaches precision 1 on these 40 samples; the highest is",
    ),
    ((other_labels(),), AUTO, LabelError, r"the bundle.*its predictions"),
]


@pytest.mark.parametrize(("tables", "spec", "error", "message"), FAULTS)
def test_every_fault_is_named_and_leaves_the_bundle(
    tmp_path: Path, tables: tuple[Predictions, ...], spec: CalibrateSpec, error: type[RayprobError], message: str
) -> None:
    folder = write_run(tmp_path, *tables)
    before = read_all(folder)
    with pytest.raises(error, match=message):
        calibrate(folder, spec)
    assert read_all(folder) == before


def test_a_folder_without_a_bundle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").touch()
    with pytest.raises(
        RunError, match=r"has no bundle yet: the run is not finished; continue with `rayprob train` and the same file"
    ):
        calibrate(str(tmp_path), AUTO)
    folder = write_run(tmp_path, predictions(40, "holdout", seed=1))
    with pytest.raises(RunError, match=r"bundle is a bundle; give the run's folder"):
        calibrate(f"{folder}/bundle", AUTO)


def test_predictions_that_do_not_name_their_split_are_those_of_the_runs_holdout(tmp_path: Path) -> None:
    holdout = predictions(60, "holdout", seed=1)
    known_NL = np.random.default_rng(3).random(holdout.known_NL.shape) < 0.7
    folder = write_run(tmp_path, replace(holdout, known_NL=known_NL, targets_NL=holdout.targets_NL & known_NL))
    facts = {key: value for key, value in holdout.facts.items() if key != "split"}
    path = f"{folder}/predictions/holdout.parquet"
    replace(Predictions.read(path), facts=facts).write(path)
    notes = calibrate(folder, SHARED).notes
    assert any("of the labels of holdout are unknown" in note for note in notes)


def test_a_bundle_of_unknown_origin_is_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path, facts={key: value for key, value in FACTS.items() if key != "run"})
    with pytest.raises(RunError, match=r"the bundle does not name the split on which its run chose a checkpoint"):
        calibrate(folder, AUTO)


def test_a_precision_outside_0_to_1_is_refused() -> None:
    with pytest.raises(SpecError, match=r"precision: input should be less than or equal to 1 \(found 90\)"):
        CalibrateSpec.parse({"precision": 90})


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["calibrate", *arguments])


def test_the_verb_shows_before_and_after_and_what_is_next(tmp_path: Path) -> None:
    folder = write_run(tmp_path, predictions(60, "holdout", seed=1), predictions(80, "val", seed=2))
    result = run(folder, "--method", "shared_platt", "--precision", "0.6")
    assert result.exit_code == 0, result.output
    for text in (
        "tiny, calibrated by shared_platt: named, not chosen",
        "holdout (60 images)",
        "val (80 images)",
        "adaptive ECE",
        " -> ",
    ):
        assert text in result.output
    for rule in ("0.5, before", "label_OF1", "global_precision_0.6", "recall@0.1", "oracle's label_CF1"):
        assert rule in result.output
    assert f"written: {folder}/bundle    {folder}/calibration.json" in result.output
    assert f"next: rayprob predict {folder}/bundle" in result.output


def test_the_verbs_json_is_the_file_that_it_writes(tmp_path: Path) -> None:
    folder = write_run(tmp_path, predictions(60, "holdout", seed=1))
    result = run(folder, "--method", "temperature", "--json")
    assert json.loads(result.output) == json.loads((tmp_path / "calibration.json").read_text())
    assert json.loads(result.output)["method"] == "temperature"
    assert isinstance(run(folder, "--method", "magic").exception, SpecError)


@pytest.mark.parametrize(("after", "is_noted"), [(0.012, False), (0.0356, True)])
def test_a_calibration_that_raises_the_ece_is_noted(after: float, is_noted: bool) -> None:
    numbers = dict.fromkeys(Honesty.__dataclass_fields__, 0.1)
    at_half = SetNumbers(*[0.5] * 8)
    judged = Comparison(
        "holdout", 15, Honesty(**{**numbers, "ECE": 0.0086}), Honesty(**{**numbers, "ECE": after}), at_half, {}, {}
    )
    words = "calibration raises ECE from 0.0086 to 0.0356 on holdout: it is chosen by likelihood on holdout; "
    assert [note.startswith(words) for note in worse_notes(judged)] == [True] * is_noted
