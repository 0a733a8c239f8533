"""The study: what is tried, in which order, what is stopped, and that a ledger brings all of it back."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from rayprob.files import storage
from rayprob.runs.paths import SweepFolder
from rayprob.sweep.ledger import Ledger, read_ledger
from rayprob.sweep.search import Sweep
from rayprob.sweep.study import DONE, WAIT, Study, Trial
from tests.sweep.conftest import MakeSweep

EPOCHS = 9


def quality(trial: Trial) -> float:
    """The best learning rate is 0.01; seeds move the value a little."""
    lr = trial.params.get("optimizer.lr", 1e-3)
    return 1.0 - abs(math.log10(lr) + 2) / 3 + 0.001 * trial.seed


def train(study: Study, trial: Trial, value: Callable[[Trial], float] = quality) -> None:
    """Report every epoch of one trial until it is stopped or over."""
    for epoch in range(1, EPOCHS + 1):
        goes_on = study.result(trial.number, float(epoch), {"mAP": value(trial) * epoch / EPOCHS})
        if not goes_on and epoch < EPOCHS:
            study.end(trial.number, "pruned")
            return
    study.end(trial.number, "finished")


def run_all(study: Study, most: int = 1000) -> int:
    """Train trials one after the other; return how many were started."""
    started = 0
    while started < most and isinstance(trial := study.next(), Trial):
        train(study, trial)
        started += 1
    return started


def facts(study: Study) -> list[Any]:
    return [(t.number, t.what, t.params, t.seed, t.of, t.state, t.best, t.epoch) for t in study.trials.values()]


@pytest.fixture
def sweep(make_sweep: MakeSweep) -> Sweep:
    """A sweep with all that there is: ASHA, and confirmations."""
    return make_sweep(trials=20, scheduler={"name": "asha", "grace_epochs": 1, "reduction_factor": 3}, confirm={"seeds": 2})


def test_the_run_file_itself_comes_first_then_the_search_then_fresh_seeds(sweep: Sweep) -> None:
    study = Study(sweep, Ledger(sweep.folder))
    run_all(study)
    assert [t.what for t in study.trials.values()] == ["default"] + ["search"] * 20 + ["confirm"] * 4
    best = study.best()
    assert best is not None
    assert [(t.of, t.seed) for t in list(study.trials.values())[21:]] == [(0, 1), (0, 2), (best.number, 1), (best.number, 2)]
    assert study.next() == DONE
    assert not study.is_open()


def test_tpe_comes_nearer_than_its_first_draws(make_sweep: MakeSweep) -> None:
    sweep = make_sweep(trials=40)
    study = Study(sweep, Ledger(sweep.folder))
    run_all(study)
    drawn = [quality(t) for t in study.trials.values() if t.what == "search"]
    assert sum(drawn[20:]) / 20 > sum(drawn[:10]) / 10
    assert max(drawn) > 0.98


def test_early_stopping_saves_epochs_and_keeps_the_best(sweep: Sweep) -> None:
    study = Study(sweep, Ledger(sweep.folder))
    run_all(study)
    searched = [t for t in study.trials.values() if t.what == "search"]
    assert sum(t.epoch for t in searched) < 0.7 * EPOCHS * len(searched)
    assert max(searched, key=quality).state == "finished"


def test_hyperband_stops_trials_too(make_sweep: MakeSweep) -> None:
    sweep = make_sweep({"duration": {"epochs": EPOCHS}}, trials=20, scheduler={"name": "hyperband"})
    study = Study(sweep, Ledger(sweep.folder))
    run_all(study)
    assert any(t.state == "pruned" for t in study.trials.values())


@pytest.mark.parametrize("stop_after", range(0, 60, 7))
def test_a_ledger_cut_anywhere_brings_the_study_back_and_the_sweep_ends_with_the_same_trials(
    make_sweep: MakeSweep, stop_after: int
) -> None:
    sweep = make_sweep(trials=8, scheduler={"name": "asha"}, confirm={"seeds": 1})
    whole = Study(sweep, Ledger(sweep.folder))
    run_all(whole)
    rows = (storage.read_bytes(SweepFolder(sweep.folder).ledger)).decode().splitlines(keepends=True)
    kept = rows[:stop_after]
    # The driver was killed in the middle of a line.
    storage.write_text(SweepFolder(sweep.folder).ledger, "".join(kept) + '{"kind": "res')
    again = Study(sweep, Ledger(sweep.folder))
    run_all(again)
    assert facts(again) == facts(whole)
    asked = [row["number"] for row in read_ledger(sweep.folder) if row["kind"] == "ask"]
    assert len(asked) == len(set(asked))


def test_what_was_under_way_goes_on_before_anything_new_begins(sweep: Sweep) -> None:
    study = Study(sweep, Ledger(sweep.folder))
    first, second = study.next(), study.next()
    assert isinstance(first, Trial)
    assert isinstance(second, Trial)
    study.result(second.number, 1.0, {"mAP": 0.5})
    again = Study(sweep, Ledger(sweep.folder))
    resumed = [again.next(), again.next(), again.next()]
    assert [t.number for t in resumed if isinstance(t, Trial)] == [0, 1, 2]
    assert isinstance(resumed[1], Trial)
    assert resumed[1].params == second.params


def test_an_evaluation_that_is_told_twice_counts_once(sweep: Sweep) -> None:
    study = Study(sweep, Ledger(sweep.folder))
    trial = study.next()
    assert isinstance(trial, Trial)
    for value in (0.5, 0.9):
        study.result(trial.number, 1.0, {"mAP": value})
    assert trial.best == (0.5,)
    assert sum(row["kind"] == "result" for row in read_ledger(sweep.folder)) == 1


def test_confirmations_wait_for_the_search(sweep: Sweep) -> None:
    study = Study(sweep, Ledger(sweep.folder))
    last = None
    for _ in range(21):
        last = study.next()
        assert isinstance(last, Trial)
        if last.number < 20:
            train(study, last)
    assert study.next() == WAIT
    assert isinstance(last, Trial)
    train(study, last)
    assert isinstance(study.next(), Trial)


def test_a_grid_tries_every_combination_once_and_no_conditional_one_twice(make_sweep: MakeSweep) -> None:
    space = {"loss.name": {"grid": ["bce", "focal"]}, "loss.gamma": {"grid": [1.0, 2.0], "when": {"loss.name": "focal"}}}
    sweep = make_sweep(space=space, trials=None)
    study = Study(sweep, Ledger(sweep.folder))
    run_all(study)
    assert [t.params for t in study.trials.values() if t.what == "search"] == [
        {"loss.name": "bce"},
        {"loss.name": "focal", "loss.gamma": 1.0},
        {"loss.name": "focal", "loss.gamma": 2.0},
    ]


def test_a_small_space_is_used_up_and_not_tried_again(make_sweep: MakeSweep) -> None:
    sweep = make_sweep(space={"optimizer.lr": {"choice": [1e-3, 1e-2]}}, trials=50)
    study = Study(sweep, Ledger(sweep.folder))
    run_all(study)
    assert sorted(t.params["optimizer.lr"] for t in study.trials.values() if t.what == "search") == [1e-3, 1e-2]


def test_failed_trials_do_not_end_a_sweep_nor_win_it(make_sweep: MakeSweep) -> None:
    sweep = make_sweep(trials=6)
    study = Study(sweep, Ledger(sweep.folder))
    while isinstance(trial := study.next(), Trial):
        if trial.number % 2:
            study.end(trial.number, "failed", "NonFiniteLoss: at step 3")
        else:
            train(study, trial)
    assert [t.state for t in study.trials.values()] == ["finished", "failed"] * 3 + ["finished"]
    best = study.best()
    assert best is not None
    assert best.state == "finished"


def test_two_metrics_are_searched_together(make_sweep: MakeSweep) -> None:
    sweep = make_sweep(metric=["mAP", "images_per_s"], trials=6)
    study = Study(sweep, Ledger(sweep.folder))
    while isinstance(trial := study.next(), Trial):
        study.result(trial.number, 1.0, {"mAP": quality(trial), "images_per_s": 100.0 + trial.number})
        study.end(trial.number, "finished")
    assert all(len(t.best) == 2 for t in study.trials.values())


def test_importance_finds_the_parameter_that_matters(make_sweep: MakeSweep) -> None:
    space = {"optimizer.lr": {"loguniform": [1e-4, 1e-1]}, "optimizer.weight_decay": {"loguniform": [1e-4, 1e-1]}}
    sweep = make_sweep(space=space, trials=30, sampler="random")
    study = Study(sweep, Ledger(sweep.folder))
    assert study.importance() is None
    run_all(study)
    shares = study.importance()
    assert shares is not None
    assert shares["optimizer.lr"] > 0.8
