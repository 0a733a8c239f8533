"""A trial as Tune runs it, without Ray: errors that come again, and what a trial of several workers says."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rayprob.cli.show_sweep import SweepView
from rayprob.runs import folder
from rayprob.runs.spec import Run
from rayprob.sweep import trials
from rayprob.sweep.ledger import Ledger
from rayprob.sweep.study import Study
from rayprob.sweep.trials import Director, Room, work
from rayprob.train.placing import Workers
from tests.sweep.conftest import MakeSweep
from tests.train.conftest import MakeRun

Attempt = Callable[[str], list[dict[str, Any]]]


@pytest.fixture
def attempt(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Attempt:
    """Run one trial whose training fails with a text; return what it reports to Tune."""
    config = {"number": 0, "run": make_run(tmp_path / "run", placement={"num_workers": 1}).model_dump(mode="json")}
    (tmp_path / "run").mkdir()

    def once(text: str) -> list[dict[str, Any]]:
        def fail(run: Run, report: Any) -> None:
            (tmp_path / "run" / "fault-0.json").unlink(missing_ok=True)  # as the claim does with which training starts
            raise ValueError(text)

        told: list[dict[str, Any]] = []
        monkeypatch.setattr(trials, "train_here", fail)
        monkeypatch.setattr(trials.tune, "report", told.append)
        work(config, ("mAP",))
        return told

    return once


def test_an_error_that_comes_twice_ends_the_trial_with_its_own_text(attempt: Attempt) -> None:
    for text in ("a", "b"):  # the first time, Tune starts the trial again
        with pytest.raises(ValueError, match=text):
            attempt(text)
    (told,) = attempt("b")
    assert told["reason"].startswith("the same error occurred twice, so another restart would not help: ValueError: b (")


@pytest.fixture
def director(make_sweep: MakeSweep) -> tuple[Director, Study, Run, list[dict[str, Any]]]:
    """A director with its first trial under way, as "tune-0"; its study, the trial's run, and what it tells."""
    sweep = make_sweep()
    study, told = Study(sweep, Ledger(sweep.folder)), list[dict[str, Any]]()
    directing = Director(study, lambda trial: sweep.trial_run(trial.number, trial.params), told.append)
    chosen = directing.suggest("tune-0")
    assert isinstance(chosen, dict)
    return directing, study, Run.model_validate(chosen["run"]), told


def test_a_trial_that_failed_too_often_is_told_with_its_error(director: tuple[Director, Study, Run, Any]) -> None:
    directing, study, run, _ = director
    folder.note_fault(run.run_folder, 0, "", "ValueError: b")
    directing.on_trial_complete("tune-0", error=True)
    assert study.trials[0].reason == "it failed more often than placement.max_failures allows: ValueError: b"


def test_what_a_trial_of_several_workers_waits_for_reaches_the_terminal(
    director: tuple[Director, Study, Run, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch, make_run: MakeRun
) -> None:
    directing, _, _, told = director
    waiting = {"kind": "waiting", **vars(Workers(2, False, 3)), "resources": {"CPU": 4.0}}
    reports: list[dict[str, Any]] = []
    monkeypatch.setattr(trials.tune, "report", reports.append)
    monkeypatch.setattr(trials, "launch", lambda run, tell: tell(waiting))
    trials._train_on_ray(make_run(Path("run")), reports.append, trials._say)
    for report in reports:
        directing.on_trial_result("tune-0", report)
    console = Console(record=True, width=300)
    SweepView(console).tell(told[-1])
    assert "trial 000  still waiting for 2 workers with 3 CPUs each; the cluster currently has 4 CPUs" in console.export_text()


def test_the_wait_for_a_first_trial_ends_with_its_start_and_says_what_it_needs() -> None:
    ended: list[bool] = []
    waiting = ExitStack()
    waiting.callback(ended.append, True)
    started = trials._Started(waiting)
    for _ in range(2):
        started.on_trial_start(iteration=1, trials=[], trial=None)
    assert ended == [True]
    assert Room(Workers(1, True, 4), 1).needs == "4 CPUs and 1 GPU"
    assert Room(Workers(2, False, 3), 1).needs == "2 workers with 3 CPUs each"
