"""What the page of a sweep says and where it puts things, by its parts: words, tiles, axes, and the faults of a summary."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayprob.errors import RunError
from rayprob.report.html import NONE
from rayprob.report.sweep.axes import metric_axis, parameter_axis
from rayprob.report.sweep.charts import learning, progress
from rayprob.report.sweep.page import commands, noise_says, notes, sweep_report, tiles
from rayprob.report.sweep.slices import slice_of
from rayprob.report.sweep.words import on_importance, on_search, on_winner
from rayprob.runs.sweep_summary import Metric, SweepSummary, open_sweep
from tests.report.sweep.sweep_summaries import summary, write


def sweep_of(value: dict[str, Any], folder: Path) -> SweepSummary:
    return open_sweep(write(folder, value))


def words_of(value: dict[str, Any], folder: Path) -> str:
    """Return what the page says beside its charts and tables, which take the time."""
    sweep = sweep_of(value, folder)
    shown = [f"{tile.name} {tile.value} {tile.aside} {tile.hint}" for tile in tiles(sweep)]
    said = [on_search(sweep), on_winner(sweep), noise_says(sweep), on_importance(sweep), *notes(sweep)]
    return " ".join(" ".join([*shown, *said]).split())


def test_the_key_numbers_are_those_of_numpy(tmp_path: Path) -> None:
    value = summary()
    text = words_of(value, tmp_path)
    settings = [row["values"]["mAP"] for row in value["trials"] if row["values"] and row["kind"] != "confirm"]
    seeds = [[row["values"]["mAP"] for row in value["trials"] if row["of"] == of] for of in (0, value["best"])]
    error = np.sqrt(sum(np.var(values, ddof=1) / len(values) for values in seeds))
    assert f"best mAP {max(settings):.3f}" in text
    assert f"{np.mean(seeds[1]) - np.mean(seeds[0]):+.3f} ± {error:.3f}" in text
    states = [row["state"] for row in value["trials"]]
    assert f"{states.count('finished')} finished, {states.count('pruned')} pruned, 1 failed" in text
    assert f"{sum(row['epochs'] for row in value['trials']):.0f} of {6 * len(states)}" in text


def test_the_search_is_said_in_a_sentence(tmp_path: Path) -> None:
    text = words_of(summary(), tmp_path)
    assert "23 trials on scenes over optimizer.lr (0.0001 to 0.1, logarithmic); resolution_px (64, 96, 128)" in text
    assert "chosen by Optuna's TPE, poor trials stopped early by ASHA; the goal is the highest mAP on holdout." in text
    assert "6 trials repeat the default and the best setting with other seeds" in text


def test_a_gain_within_the_noise_is_called_noise(tmp_path: Path) -> None:
    noise = {"default": {"values": [0.50, 0.54], "mean": 0.52}, "best": {"values": [0.53, 0.57], "mean": 0.55}}
    text = words_of(summary(noise={**noise, "gain": 0.03, "gain_se": 0.028}), tmp_path)
    assert "The best is 0.030 better than the default in mean mAP, with a standard error of 0.028" in text
    assert "less than twice its standard error, so it may well be noise" in text
    assert "+0.030 ± 0.028 less than twice its standard error: may be noise" in text
    sure = words_of(summary(noise={**noise, "gain": 0.03, "gain_se": 0.014}), tmp_path)
    assert "may well be noise" not in sure
    assert ": more than twice its standard error." in sure


def test_a_winner_that_loses_over_seeds_is_called_worse(tmp_path: Path) -> None:
    noise = {"default": {"values": [0.52], "mean": 0.52}, "best": {"values": [0.50], "mean": 0.50}, "gain": -0.02}
    text = words_of(summary(noise={**noise, "gain_se": 0.001}), tmp_path)
    assert "The best is 0.020 worse than the default in mean mAP" in text
    assert "this is not a gain" in text
    unsure = words_of(summary(noise={**noise, "gain_se": None}), tmp_path)
    assert "its standard error is unknown (that needs two seeds each), so this may be noise" in unsure


def test_a_mean_that_counts_the_chosen_run_is_said_to_lean(tmp_path: Path) -> None:
    value = summary()
    says = "includes the run that it was chosen by, so it is still slightly optimistic"
    assert says not in words_of(value, tmp_path)
    chosen = next(row["values"]["mAP"] for row in value["trials"] if row["number"] == value["best"])
    value["noise"]["best"]["values"].append(chosen)
    assert says in words_of(value, tmp_path)


def test_the_best_of_many_is_called_optimistic(tmp_path: Path) -> None:
    assert "Trial 3 is the best of 23 settings on holdout. The best of many is optimistic" in words_of(summary(), tmp_path)


def test_a_default_that_nothing_beats_is_the_winner(tmp_path: Path) -> None:
    text = words_of({**summary(), "best": 0}, tmp_path)
    assert "Nothing beat the run file's own settings: trial 0" in text
    assert "gain over the default none" in text


def test_the_commands_name_files_of_the_folder_and_are_quoted(tmp_path: Path) -> None:
    sweep = sweep_of(summary(), tmp_path)
    assert commands(sweep, "sweeps/demo/") == [
        "rayprob train sweeps/demo/best.yaml",
        "rayprob train sweeps/demo/trials/003/run.yaml",
    ]
    assert commands(sweep, "my sweeps; ls")[0] == "rayprob train 'my sweeps; ls/best.yaml'"


def test_a_sweep_without_a_default_claims_no_gain(tmp_path: Path) -> None:
    text = words_of({**summary(), "default": None, "noise": None}, tmp_path)
    assert "The run file's own settings were not tried, so the gain over them is unknown" in text
    assert f"gain over the default {NONE} unknown" in text


def test_open_trials_and_a_choice_on_val_are_noted(tmp_path: Path) -> None:
    value = summary(split="val")
    value["trials"][1]["state"] = "running"
    text = words_of(value, tmp_path)
    assert "1 trial not finished" in text
    assert "The sweep chose the winner on val, so its numbers on val are optimistic" in text


def test_few_trials_make_rough_shares(tmp_path: Path) -> None:
    says = "With so few, the shares are rough"
    assert says in words_of(summary(24), tmp_path)
    assert says not in words_of(summary(60), tmp_path)


def test_the_best_so_far_is_the_running_maximum(tmp_path: Path) -> None:
    value = summary(60)
    chart = progress(sweep_of(value, tmp_path))
    assert chart is not None
    expected, best = [], -math.inf
    for row in (row for row in value["trials"] if row["kind"] != "confirm"):
        best = max([best, *row["values"].values()])
        expected.append(f"{best:.3f}")
    assert [row[2] for row in chart.rows] == expected


def test_a_parameter_that_is_not_set_stands_below_its_axis(tmp_path: Path) -> None:
    axis = parameter_axis(sweep_of(summary(), tmp_path), "loss.gamma")
    assert [words for _, words in axis.extra] == ["not set"]
    assert axis.place("not set") == axis.extra[0][0] < 0
    assert 0 <= axis.place(2.0) <= 1


def test_axes_place_values_by_kind_and_stretch_to_the_default(tmp_path: Path) -> None:
    sweep = sweep_of(summary(), tmp_path)
    rate = parameter_axis(sweep, "optimizer.lr")
    assert rate.is_log
    assert rate.place(0.2) == 1.0  # the default lies outside of the space
    assert rate.place(1e-4) == 0.0
    assert rate.place(1e-2) - rate.place(1e-3) == pytest.approx(rate.place(1e-3) - rate.place(1e-4))
    assert [words for _, words in rate.ticks] == ["0.0001", "0.001", "0.01", "0.1"]
    size = parameter_axis(sweep, "resolution_px")
    assert [size.place(px) for px in (64, 96, 128)] == [0.0, 0.5, 1.0]
    assert not size.extra


def test_a_choice_of_null_is_another_place_than_not_set(tmp_path: Path) -> None:
    value = summary()
    value["space"] = {"loss.gamma": {"kind": "choice", "choices": [None, 1.0]}}
    for row in value["trials"][:12]:
        row["params"] = {"loss.gamma": None} if row["number"] % 2 else {}
    axis = parameter_axis(sweep_of(value, tmp_path), "loss.gamma")
    assert axis.place("not set") < 0 <= axis.place(None)


def test_a_rate_of_zero_makes_a_linear_axis(tmp_path: Path) -> None:
    value = summary()
    value["trials"][0]["params"]["optimizer.lr"] = 0.0
    axis = parameter_axis(sweep_of(value, tmp_path), "optimizer.lr")
    assert not axis.is_log
    assert axis.place(0.0) == 0.0
    assert slice_of(sweep_of(value, tmp_path), "optimizer.lr", "rate").svg


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9), st.sampled_from(["max", "min"]))
def test_the_better_value_stands_higher(values: list[float], mode: Any) -> None:
    axis = metric_axis(Metric("m", mode), values)
    ordered = sorted(values, reverse=mode == "min")
    places = [axis.place(value) for value in ordered]
    assert places == sorted(places)
    assert 0 <= places[0] <= places[-1] <= 1


def test_numbers_that_are_none_count_as_not_reached(tmp_path: Path) -> None:
    value = summary()
    value["trials"][7] |= {"values": {"mAP": math.nan}, "curve": [[1, math.nan], [2, 0.3]]}
    sweep = sweep_of(value, tmp_path)
    assert sweep.trials[7] not in sweep.valued
    assert sweep.trials[7].points == ((2.0, 0.3),)
    assert all("nan" not in cell for chart in (learning(sweep), progress(sweep)) if chart for row in chart.rows for cell in row)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metrics": []}, "metrics is empty; one or two are needed"),
        ({"best": 99}, "trial 99, which best, default or pareto names, does not exist"),
        ({"name": None}, r"name: expected text \(found null\)"),
        (
            {"metrics": [{"name": "mAP", "mode": "most"}]},
            r"metrics\[0\]\.mode: input should be 'max' or 'min'",
        ),
        ({"trials": [{"number": 1}, {"number": 1}]}, "trials: number 1 occurs more than once"),
        ({"trials": [{"kind": "search"}]}, r"trials\[0\]\.number: required, but missing"),
    ],
)
def test_a_faulty_summary_is_refused_with_its_fault(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=rf"summary\.json: {message}.*`rayprob tune` on the same sweep file writes it again"):
        sweep_report(write(tmp_path, {**summary(6), **change}))


def test_what_is_no_summary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"has no summary\.json; give the folder of a sweep"):
        sweep_report(str(tmp_path))
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(RunError, match=r"summary\.json is not JSON"):
        sweep_report(str(tmp_path))
    (tmp_path / "summary.json").write_text("[]")
    with pytest.raises(RunError, match="contains list, not a mapping"):
        sweep_report(str(tmp_path))
