"""What came of a sweep: the front, noise over seeds, tables, and what a person reads."""

import io
import json
import statistics
from dataclasses import asdict, fields
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from scipy import stats

from rayprob.cli.show_sweep import SweepView, conclusions, show_sweep
from rayprob.runs.spec import Run
from rayprob.runs.sweep_summary import SweepSummary, TrialSummary, parse_summary
from rayprob.sweep.ledger import Ledger
from rayprob.sweep.results import flat_row, noise, pareto, summarise, write_results
from rayprob.sweep.search import Sweep
from rayprob.sweep.study import Study, Trial
from rayprob.sweep.trials import Room
from rayprob.sweep.work import train_here, train_trial
from rayprob.train.placing import Workers
from tests.sweep.conftest import MakeSweep


def row(number: int, value: float, speed: float = 1.0, **changes: Any) -> dict[str, Any]:
    facts = {"number": number, "kind": "search", "state": "finished", "of": None, "values": {"mAP": value}, "numbers": {}}
    return {**facts, "images_per_s": speed, **changes}


def test_the_front_is_what_brute_force_finds() -> None:
    rng = np.random.default_rng(0)
    points = rng.integers(0, 6, (40, 2)).tolist()
    rows = [row(n, value, speed) for n, (value, speed) in enumerate(points)]
    dominated = {
        a for a, b in product(range(40), repeat=2) if points[a] != points[b] and all(np.array(points[b]) >= np.array(points[a]))
    }
    assert set(pareto(rows, ["mAP"], ["max"])) == set(range(40)) - dominated


def test_failed_and_confirming_trials_are_on_no_front() -> None:
    rows = [row(0, 0.9, state="failed"), row(1, 0.8, kind="confirm"), row(2, 0.1)]
    assert pareto(rows, ["mAP"], ["max"]) == [2]


def test_the_gains_standard_error_is_welchs() -> None:
    default, best = [0.40, 0.43, 0.39], [0.60, 0.58, 0.65]
    rows = [row(0, 0.9), row(5, 0.99)]
    rows += [row(10 + n, value, of=of) for n, (of, value) in enumerate([(0, v) for v in default] + [(5, v) for v in best])]
    found = noise(rows, 5, "mAP")
    assert found is not None
    assert found["gain"] == pytest.approx(statistics.fmean(best) - statistics.fmean(default))
    t = stats.ttest_ind(best, default, equal_var=False).statistic
    assert found["gain"] / found["gain_se"] == pytest.approx(t)
    assert found["best"]["values"] == best, "the trial that was chosen for its value is not counted"


def test_without_fresh_seeds_nothing_is_said_of_noise() -> None:
    assert noise([row(0, 0.5), row(1, 0.6)], 1, "mAP") is None


@pytest.fixture
def swept(make_sweep: MakeSweep) -> tuple[Sweep, Study]:
    """A sweep of a default and two trials, trained here; the third failed."""
    sweep = make_sweep(
        {"duration": {"steps": 6}, "placement": {"num_workers": 1, "micro_batch": 8}}, trials=2, sampler="random"
    )
    study = Study(sweep, Ledger(sweep.folder))
    while isinstance(trial := study.next(), Trial):
        run = sweep.trial_run(trial.number, trial.params, trial.seed)
        if trial.number == 2:
            study.end(2, "failed", "NonFiniteLoss: at step 1")
            continue
        train_trial(run, train_here, lambda numbers, number=trial.number: study.result(number, numbers["epoch"], numbers))  # type: ignore[misc]
        study.end(trial.number, "finished")
    return sweep, study


def test_tables_hold_a_row_a_trial_and_the_best_run_file_is_its_run(swept: tuple[Sweep, Study], tmp_path: Path) -> None:
    sweep, study = swept
    summary = summarise(sweep, study, None, 1.0)
    write_results(sweep, study, summary)
    table = pq.read_table(f"{sweep.folder}/results.parquet").to_pylist()
    assert [entry["state"] for entry in table] == ["finished", "finished", "failed"]
    assert table[0]["set.optimizer.lr"] == sweep.run.optimizer.lr
    assert table[1]["mAP"] == study.trials[1].best[0]
    best = study.best()
    assert best is not None
    run = Run.read(f"{sweep.folder}/best.yaml")
    assert run.run_folder == "runs/tiny-best"
    assert run.placement.num_workers == 1
    assert run.placement.micro_batch == 8
    expected = sweep.trial_run(best.number, best.params, best.seed).model_dump(exclude={"name", "folder", "placement"})
    assert run.model_dump(exclude={"name", "folder", "placement"}) == expected
    assert list(Path(sweep.folder, "tensorboard").rglob("events.out.tfevents.*"))


def test_the_page_reads_every_key_that_a_sweep_writes_and_no_other(swept: tuple[Sweep, Study]) -> None:
    sweep, study = swept
    written = json.loads(json.dumps(summarise(sweep, study, None, 1.0)))
    assert written.keys() == {field.name for field in fields(SweepSummary)}
    names = {field.name for field in fields(TrialSummary)}
    assert [row.keys() ^ names for row in written["trials"]] == [set(), set(), set()]
    read = parse_summary(written, "summary.json")
    assert (read.best, read.kind, len(read.trials)) == (written["best"], "sweep", 3)
    assert json.loads(json.dumps([asdict(trial) for trial in read.trials])) == written["trials"]


def test_mixed_values_of_a_parameter_are_one_column_of_text(tmp_path: Path) -> None:
    facts = {
        "seed": 0,
        "epochs": 1.0,
        "elapsed_s": 1.0,
        "lasted_s": 1.0,
        "micro_batch": 1,
        "reason": "",
        "folder": "trials/000",
    }
    entry = flat_row({**row(0, 0.5), **facts, "params": {"a.b": 3}}, ["a.b", "c"])
    assert (entry["set.a.b"], entry["set.c"]) == (3, None)


def test_a_person_sees_trials_live_and_what_the_sweep_says(swept: tuple[Sweep, Study]) -> None:
    sweep, study = swept
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)
    with SweepView(console) as view:
        view.tell({"kind": "launch", "study": study, "room": Room(Workers(1, False, 1), 2), "folder": sweep.folder})
        view.tell({"kind": "end", "trial": study.trials[2]})
        view.tell({"kind": "stopping"})
    show_sweep(console, sweep.folder, summarise(sweep, study, None, 1.0))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "continuing; 3 trials done, 0 unfinished: 3 trials at most, 2 at a time, each with 1 worker, 1 CPU each" in text
    assert "2 finished, 1 failed of 3 at most" in text
    assert "failed after 0.0 epochs: NonFiniteLoss: at step 1" in text
    assert "saving and stopping; Ctrl-C again discards what is not saved" in text
    assert f"next: rayprob train {sweep.folder}/best.yaml" in text


def test_a_gain_within_two_standard_errors_is_called_possible_noise(swept: tuple[Sweep, Study]) -> None:
    sweep, study = swept
    summary = {**summarise(sweep, study, None, 1.0), "best": 1}
    part = {"values": [0.5, 0.6], "mean": 0.55, "sd": 0.07}
    for gain, verdict in ((0.01, "so it may well be noise"), (0.5, "more than twice"), (-0.5, "this is not a gain")):
        said = conclusions({**summary, "noise": {"default": part, "best": part, "gain": gain, "gain_se": 0.07}}, "sweeps/x")
        line = next(line for line in said if line.startswith("over new seeds, mAP"))
        assert verdict in line
        assert f"gain {gain:+.4f} ± 0.0700" in line


def test_a_sweep_in_which_nothing_finished_says_where_to_look(make_sweep: MakeSweep) -> None:
    sweep = make_sweep(trials=1)
    study = Study(sweep, Ledger(sweep.folder))
    while isinstance(trial := study.next(), Trial):
        study.end(trial.number, "failed", "OutOfMemory: too large")
    summary = summarise(sweep, study, None, 1.0)
    assert (summary["best"], summary["val"]) == (None, None)
    said = conclusions(summary, sweep.folder)
    assert said[0] == "2 trials failed: 000: OutOfMemory: too large; 001: OutOfMemory: too large"
    assert said[-1].startswith("no trial has finished; see the reasons above")
