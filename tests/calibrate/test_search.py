"""Threshold search: what it finds is what brute force finds, nothing leaks from judged images, and every fault is named."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from scipy.special import expit
from sklearn.metrics import f1_score
from typer.testing import CliRunner

from rayprob.calibrate.candidates import RuleCandidates, global_candidates, judge, policies_of
from rayprob.calibrate.crossfit import CalibrateSpec, fold_up
from rayprob.calibrate.fitting import calibrate
from rayprob.calibrate.search import SearchReport, search_thresholds
from rayprob.calibrate.search_spec import ThresholdSearch
from rayprob.calibrate.winners import gains, set_values
from rayprob.cli.app import app
from rayprob.cli.show_search import show_threshold_search
from rayprob.errors import CalibrationError, RayprobError, RunError, SpecError
from rayprob.metrics.counting import count_metrics
from rayprob.probability.calibration.holdout import folds
from rayprob.probability.decisions.cuts import OBJECTIVES
from rayprob.probability.decisions.thresholds import (
    fit_global_precision,
    fit_global_threshold,
    fit_label_precision,
    fit_label_thresholds,
)
from rayprob.runs.bundle import Bundle
from rayprob.runs.predictions import Predictions
from tests.calibrate.calibrated_run import mixture_predictions, predictions, write_run

FOLDS = CalibrateSpec()
QUICK: dict[str, Any] = {"smoothings": [0, 5, 50], "precisions": [0.5, 0.7], "conformal_levels": [0.1, 0.3], "bootstrap": 100}


def search(folder: str, **changes: Any) -> SearchReport:
    return search_thresholds(ThresholdSearch.parse({"thresholds": {"run": folder, **QUICK, **changes}}))


def families(holdout: Predictions, method: str, *names: str) -> dict[str, RuleCandidates]:
    spec = ThresholdSearch.parse({"thresholds": {"run": "", **QUICK, "policies": names or ["global"], "top_k": [1, 2, 3]}})
    folds = fold_up(holdout, method, FOLDS)
    return {"global": global_candidates(holdout, folds)} | {
        policy.name: judge(policy, folds) for policy in policies_of(spec.thresholds)
    }


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, SearchReport]:
    """A run's folder after a search; tests only read it."""
    folder = tmp_path_factory.mktemp("searched")
    write_run(folder, predictions(120, "holdout", seed=1), predictions(500, "val", seed=2))
    return str(folder), search(str(folder))


def test_every_cut_of_one_threshold_has_the_value_that_brute_force_finds() -> None:
    holdout = predictions(40, "holdout", seed=3)
    family = families(holdout, "identity")["global"]
    marginals_NL = expit(holdout.outputs["logits"].astype(np.float64))
    assert len(family.parameters_C) == len(np.unique(marginals_NL))
    for threshold, *found in zip(family.parameters_C, *(family.values[aim] for aim in OBJECTIVES), strict=True):
        sets_NL = marginals_NL >= threshold
        micro, macro = (f1_score(holdout.targets_NL, sets_NL, average=kind, zero_division=0) for kind in ("micro", "macro"))
        assert found == pytest.approx([micro, count_metrics(sets_NL, holdout.targets_NL).CF1, macro])


def test_the_nested_value_of_one_threshold_is_that_of_fits_on_the_other_folds() -> None:
    holdout = predictions(60, "holdout", seed=4)
    marginals_NL = expit(holdout.outputs["logits"].astype(np.float64))
    sets_NL = np.zeros_like(holdout.targets_NL)
    for fit, judged in folds(60, 5, FOLDS.seed):
        fitted = fit_global_threshold(marginals_NL[fit], holdout.targets_NL[fit], holdout.known_NL[fit], objective="CF1")
        sets_NL[judged] = marginals_NL[judged] >= fitted.values_L
    expected = count_metrics(sets_NL, holdout.targets_NL).CF1
    assert families(holdout, "identity")["global"].nested["CF1"] == pytest.approx(expected)


@pytest.mark.parametrize("objective", ["OF1", "CF1", "mean_F1"])
def test_thresholds_a_label_are_those_of_fit_label_thresholds(objective: str) -> None:
    holdout = predictions(60, "holdout", seed=5)
    family = families(holdout, "identity", "label")[f"label_{objective}"]
    marginals_NL = expit(holdout.outputs["logits"].astype(np.float64))
    for place, smoothing in enumerate(family.parameters_C):
        sets_NL = np.zeros_like(holdout.targets_NL)
        for fit, judged in folds(60, 5, FOLDS.seed):
            rows = marginals_NL[fit], holdout.targets_NL[fit], holdout.known_NL[fit]
            sets_NL[judged] = fit_label_thresholds(*rows, objective=objective, smoothing=smoothing).decide(marginals_NL[judged])
        assert family.values["CF1"][place] == pytest.approx(count_metrics(sets_NL, holdout.targets_NL).CF1)
        assert family.values["OF1"][place] == pytest.approx(count_metrics(sets_NL, holdout.targets_NL).OF1)


def test_nothing_leaks_where_labels_have_nothing_to_do_with_images() -> None:
    """Permuted targets leave nothing to learn but each label's prevalence, and so no more than a constant set has."""
    nested, chance, flattered = [], [], []
    for seed in range(5):
        drawn = predictions(60, "holdout", seed=10 + seed)
        shuffled = replace(drawn, targets_NL=np.random.default_rng(seed).permutation(drawn.targets_NL))
        found = families(shuffled, "platt", "label", "precision", "recall", "top_k")
        nested.append(max(family.nested["OF1"] for family in found.values() if family.nested))
        marginals_NL = expit(shuffled.outputs["logits"].astype(np.float64))
        rows = marginals_NL, shuffled.targets_NL, shuffled.known_NL
        flattered.append(fit_label_thresholds(*rows, objective="OF1", smoothing=0).value)
        order_L = np.argsort(-shuffled.targets_NL.sum(axis=0))
        constant = [np.isin(np.arange(6), order_L[: size + 1])[None].repeat(60, axis=0) for size in range(6)]
        chance.append(max(set_values(sets_NL, shuffled)["OF1"] for sets_NL in constant))
    assert np.mean(nested) < np.mean(chance) + 0.02
    assert np.mean(flattered) > np.mean(chance) + 0.03


def test_unknown_labels_count_for_nothing() -> None:
    holdout = predictions(80, "holdout", seed=6)
    known_NL = np.random.default_rng(3).random(holdout.known_NL.shape) < 0.7
    pair = (replace(holdout, known_NL=known_NL, targets_NL=targets_NL) for targets_NL in (
        holdout.targets_NL & known_NL, holdout.targets_NL | ~known_NL
    ))  # fmt: skip
    one, two = (families(table, "shared_platt", "label", "precision", "recall", "best_F1", "top_k") for table in pair)
    for policy, family in one.items():
        assert family.nested == two[policy].nested
        assert all(np.array_equal(family.values[aim], two[policy].values[aim]) for aim in OBJECTIVES)


def test_the_best_nested_family_wins_and_the_table_has_every_candidate(searched: tuple[str, SearchReport]) -> None:
    folder, report = searched
    table = pq.read_table(f"{folder}/threshold_search.parquet").to_pandas()
    assert len(table) == report.num_candidates
    assert set(table.calibrator) == {"identity", "temperature", "shared_platt", "platt", "isotonic"}
    assert (table.policy == "global").sum() > 4 * 120 * 6  # isotonic has levels that samples share
    for winner in report.winners:
        assert winner.nested == max(family.nested[winner.objective] for family in report.families)
        own = table[(table.calibrator == winner.calibrator) & (table.policy == winner.policy)]
        assert own[winner.objective].max() == winner.cross_validated
    stored = json.loads(Path(f"{folder}/threshold_search.json").read_text())
    assert stored["num_candidates"] == report.num_candidates
    assert stored["candidates_per_s"] == pytest.approx(report.candidates_per_s)
    assert stored["winners"][0]["val"] == report.winners[0].val


def test_a_winner_beats_half_on_images_that_it_never_saw(searched: tuple[str, SearchReport]) -> None:
    for winner in searched[1].winners:
        (gain,) = (one for one in winner.gains if (one.metric, one.over) == (winner.objective, "0.5"))
        assert gain.value > 0
        assert gain.low < gain.value < gain.high
        assert winner.val is not None
        assert winner.val[winner.objective] - gain.value == pytest.approx(
            next(one.val for one in searched[1].references if one.name == "0.5")[winner.objective]  # type: ignore[index]
        )


def test_val_decides_nothing_and_the_same_search_finds_the_same(searched: tuple[str, SearchReport], tmp_path: Path) -> None:
    _, report = searched
    val = predictions(500, "val", seed=2)
    folder = write_run(tmp_path, predictions(120, "holdout", seed=1), replace(val, targets_NL=~val.targets_NL))
    other = search(folder)
    assert other.to_dict()["families"] == report.to_dict()["families"]
    assert [(w.policy, w.parameter, w.nested) for w in other.winners] == [
        (w.policy, w.parameter, w.nested) for w in report.winners
    ]
    assert other.winners[0].val != report.winners[0].val


@pytest.mark.parametrize("policy", ["global", "label", "precision", "recall", "best_F1"])
@pytest.mark.parametrize("method", ["identity", "platt"])
def test_the_printed_command_makes_the_bundle_that_was_reported(tmp_path: Path, policy: str, method: str) -> None:
    val = predictions(300, "val", seed=2)
    folder = write_run(tmp_path, predictions(120, "holdout", seed=1), val)
    report = search(folder, policies=[policy], calibrators=[method], objectives=["mean_F1"], folds=3)
    (winner,) = report.winners
    assert winner.command is not None
    assert winner.rule is not None
    done = CliRunner().invoke(app, [*winner.command.split()[1:], "--json"])
    assert done.exit_code == 0, done.output
    bundle = Bundle.load(f"{folder}/bundle")
    assert set_values(bundle.label_sets(bundle.distribution(val.outputs), winner.rule), val) == winner.val


def test_a_mixture_is_searched_with_its_own_calibrators(tmp_path: Path) -> None:
    folder = write_run(tmp_path, mixture_predictions(80, "holdout", seed=1), mixture_predictions(200, "val", seed=2))
    report = search(folder, calibrators=["identity", "shared_platt"])
    assert {family.calibrator for family in report.families} == {"identity", "shared_platt"}
    assert all(winner.val for winner in report.winners)


def test_intervals_of_gains_cover_the_true_gain() -> None:
    truth = predictions(4000, "val", seed=8)
    marginals_NL = expit(truth.outputs["logits"].astype(np.float64))
    better_NL, worse_NL = marginals_NL >= 0.7, marginals_NL >= 0.5
    true_gain = set_values(better_NL, truth)["OF1"] - set_values(worse_NL, truth)["OF1"]
    covered = 0
    for start in range(0, 4000, 100):
        rows = np.arange(start, start + 100)
        (gain,) = gains(better_NL[rows], {"half": worse_NL[rows]}, truth.rows(rows), metrics=("OF1",), draws=200, seed=start)
        covered += gain.low <= true_gain <= gain.high
    assert covered >= 0.8 * 40


# ---- what it says


def notes_of(tmp_path: Path, *tables: Predictions, **changes: Any) -> str:
    return "\n".join(search(write_run(tmp_path, *tables), **changes).notes)


def test_a_small_holdout_says_that_labels_do_not_beat_one_threshold(tmp_path: Path) -> None:
    notes = notes_of(tmp_path, predictions(40, "holdout", seed=23), objectives=["OF1"], calibrators=["identity"])
    assert "OF1: one threshold per label does not beat a global one, 0." in notes
    assert "40 images have" in notes


def test_a_run_without_predictions_of_val_says_how_to_write_them(tmp_path: Path) -> None:
    report = search(write_run(tmp_path, predictions(60, "holdout", seed=1)))
    assert report.num_reported is None
    assert all(winner.val is None and winner.gains == () for winner in report.winners)
    assert f"no predictions of val to report on: `rayprob evaluate {tmp_path} --split val` writes them" in report.notes[-1]


def test_predictions_of_val_by_another_bundle_are_refused(tmp_path: Path) -> None:
    notes = notes_of(tmp_path, predictions(60, "holdout", seed=1), predictions(60, "val", seed=2, step=99))
    assert "the predictions of val do not come from this bundle (step 99, the bundle's 12)" in notes


def test_candidates_that_a_holdout_cannot_carry_are_left_out_with_the_reason(tmp_path: Path) -> None:
    notes = notes_of(tmp_path, predictions(60, "holdout", seed=1), conformal_levels=[0.01, 0.3])
    assert "recall: 5 candidates left out, such as: alpha 0.01 needs 99 calibration samples with a label" in notes


def test_a_top_k_of_more_labels_than_there_are_is_left_out_with_the_reason(tmp_path: Path) -> None:
    notes = notes_of(tmp_path, predictions(60, "holdout", seed=1), policies=["top_k"], top_k=[2, 9], calibrators=["identity"])
    assert "top_k: 1 candidate left out, such as: top 9 of 6 labels; choose k between 1 and 6" in notes


def test_a_gain_that_may_be_chance_and_a_winner_without_a_rule_are_said(tmp_path: Path) -> None:
    tables = predictions(60, "holdout", seed=1), predictions(40, "val", seed=2)
    notes = notes_of(tmp_path, *tables, policies=["top_k"], objectives=["OF1"])
    assert "OF1: bundles have no rule top_k; leave it out of thresholds.policies" in notes
    notes = notes_of(tmp_path, *tables, policies=["global"], calibrators=["platt"], objectives=["OF1"])
    assert "may be chance: the interval over images is [" in notes


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"calibrators": ["plat"]}, SpecError, r"unknown calibrator of a bernoulli distribution 'plat'; nearest: platt"),
        ({"objectives": ["OF2"]}, SpecError, r"thresholds\.objectives\[0\]: input should be 'OF1', 'CF1' or 'mean_F1'"),
        ({"policies": ["glob"]}, SpecError, r"thresholds\.policies\[0\]: input should be 'global', 'label'"),
        ({"policies": []}, SpecError, r"thresholds\.policies: tuple should have at least 1 item"),
        ({"precisions": [90]}, SpecError, r"thresholds\.precisions\[0\]: input should be less than or equal to 1"),
        ({"conformal_levels": [0]}, SpecError, r"thresholds\.conformal_levels\[0\]: input should be greater than 0"),
        ({"smoothings": [-1]}, SpecError, r"thresholds\.smoothings\[0\]: input should be greater than or equal to 0"),
        ({"folds": 1}, SpecError, r"thresholds\.folds: input should be greater than or equal to 2"),
        ({"smoothing": [1]}, SpecError, r"unknown key under thresholds: 'smoothing'; nearest: smoothings"),
        (
            {"policies": ["top_k"], "top_k": [9]},
            CalibrationError,
            r"no requested candidate.*top 9 of 6 labels; choose k",
        ),
        (
            {"policies": ["recall"], "conformal_levels": [0.01]},
            CalibrationError,
            r"no requested candidate can be fitted.*alpha 0\.01 needs 99",
        ),
    ],
)
def test_faults_are_named(tmp_path: Path, changes: dict[str, Any], error: type[RayprobError], message: str) -> None:
    folder = write_run(tmp_path, predictions(60, "holdout", seed=1))
    with pytest.raises(error, match=message):
        search(folder, **changes)


def test_a_folder_without_a_bundle_or_predictions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a run folder"):
        search(str(tmp_path))
    with pytest.raises(RunError, match=r"holdout\.parquet is missing"):
        search(write_run(tmp_path))
    with pytest.raises(CalibrationError, match=r"8 samples with a known label"):
        search(write_run(tmp_path, predictions(8, "holdout", seed=1)))


def test_a_person_reads_speed_winners_gains_and_the_command(searched: tuple[str, SearchReport]) -> None:
    folder, report = searched
    console = Console(file=io.StringIO(), width=80)
    show_threshold_search(console, report)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"{report.num_candidates:,} candidates on 120 images of holdout and 6 labels" in text
    assert "gains on val (500 images)" in text
    assert f"{folder}/threshold_search.parquet" in text
    for winner in report.winners:
        assert f"for {winner.objective}: {winner.command}    then --rule {winner.rule}" in text


def test_the_file_of_the_repository_is_read_with_overrides() -> None:
    path = Path(__file__).parents[2] / "tune_configs" / "thresholds.yaml"
    spec = ThresholdSearch.read(path, ["thresholds.run=runs/other", "thresholds.folds=3"]).thresholds
    assert (spec.run, spec.folds, spec.calibrators) == ("runs/other", 3, "auto")
    assert len(spec.smoothings) == 41


def test_calibrate_with_search_and_tune_find_the_same_and_leave_the_bundle_as_it_is(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", predictions(60, "holdout", seed=1), predictions(60, "val", seed=2))
    file = tmp_path / "search.yaml"
    file.write_text(json.dumps({"thresholds": {"run": "runs/other", **QUICK, "calibrators": ["platt"]}}))
    before = (Path(folder) / "bundle" / "bundle.json").read_bytes()
    one = CliRunner().invoke(app, ["calibrate", folder, "--search", str(file), "--json"])
    assert one.exit_code == 0, one.output
    two = CliRunner().invoke(app, ["tune", str(file), "--set", f"thresholds.run={folder}"])
    assert two.exit_code == 0, two.output
    found = json.loads((Path(folder) / "threshold_search.json").read_text())
    assert json.loads(one.stdout)["winners"] == found["winners"]
    assert (Path(folder) / "bundle" / "bundle.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "calibrate needs the folder of a finished run, such as demo/run, or --search FILE"),
        (["--search", "file.yaml", "--method", "platt"], "--search FILE takes what to try from FILE; leave out the other"),
    ],
)
def test_calibrate_without_a_run_or_with_options_beside_search_is_refused(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["calibrate", *arguments])
    assert isinstance(done.exception, SpecError)
    assert message in str(done.exception)


def test_calibrate_takes_what_a_search_found(tmp_path: Path) -> None:
    folder = write_run(tmp_path, predictions(120, "holdout", seed=1))
    report = calibrate(folder, CalibrateSpec(objectives=("OF1", "CF1", "mean_F1"), smoothing=7.0, alphas=(0.3,)))
    assert {name: thresholds.smoothing for name, thresholds in report.thresholds.items() if name.startswith("label")} == {
        "label_OF1": 7.0, "label_CF1": 7.0, "label_mean_F1": 7.0
    }  # fmt: skip
    assert list(report.guarantees) == ["0.3"]


@pytest.mark.parametrize("policy", ["global_precision", "label_precision"])
def test_thresholds_for_a_precision_are_those_of_their_fits(policy: str) -> None:
    holdout = predictions(80, "holdout", seed=5)
    family = families(holdout, "identity", "precision")[policy]
    fit = {"global_precision": fit_global_precision, "label_precision": fit_label_precision}[policy]
    marginals_NL = expit(holdout.outputs["logits"].astype(np.float64))
    assert family.parameters_C.tolist() == [0.5, 0.7]
    for place, precision in enumerate(family.parameters_C):
        sets_NL = np.zeros_like(holdout.targets_NL)
        for fit_rows, judged in folds(80, 5, FOLDS.seed):
            rows = marginals_NL[fit_rows], holdout.targets_NL[fit_rows], holdout.known_NL[fit_rows]
            sets_NL[judged] = fit(*rows, precision=float(precision)).decide(marginals_NL[judged])
        assert family.values["CF1"][place] == pytest.approx(count_metrics(sets_NL, holdout.targets_NL).CF1)
