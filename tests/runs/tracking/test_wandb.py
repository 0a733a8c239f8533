"""Weights & Biases, offline: a run of it per run, each step once, also across a resume."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

import rayprob as rp
from rayprob.errors import SpecError
from rayprob.runs.history import History
from rayprob.runs.tracked import summarise
from tests.runs.tracking.wandb_files import history, records, summary

wandb = pytest.importorskip("wandb", reason="pip install 'rayprob[wandb]'")
MakeRun = Callable[..., rp.Run]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is sent, and no key of this machine is read."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)


def record(run: rp.Run, start: int, *steps: int) -> None:
    log = History(run.run_folder, start, run)
    log.record("start", start, {"device": "cpu"})
    for step in steps:
        log.record("step", step, {"loss": 1 / step})
        if step % 2 == 0:
            log.record("evaluation", step, {"mAP": step / 10, "ap": {"hot dog": 0.5}})
    log.close("finished")


def wait_for_the_next_second() -> None:
    """W&B names the folder of a start by the second."""
    second = int(time.time())
    while int(time.time()) == second:
        time.sleep(0.02)


def test_a_resumed_run_is_one_run_with_each_step_once(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", tracking={"wandb": {"project": "birds", "group": "a sweep"}})
    record(make_run(tmp_path / "run"), 0, 1)  # before it was tracked
    record(run, 1, 2, 3)
    wait_for_the_next_second()
    record(run, 2, 3, 4)
    wait_for_the_next_second()
    summarise(run, {"val/mAP": 0.7})
    wandb.teardown()  # ends the process that writes the files
    folder = tmp_path / "run"
    assert history(folder) == [
        (1, {"step/loss": 1}),
        (2, {"step/loss": 0.5, "evaluation/mAP": 0.2, "evaluation/ap/hot_dog": 0.5}),
        (3, {"step/loss": pytest.approx(1 / 3)}),
        (4, {"step/loss": 0.25, "evaluation/mAP": 0.4, "evaluation/ap/hot_dog": 0.5}),
    ]
    assert summary(folder)["val/mAP"] == 0.7
    starts = [one.run for one in records(folder) if one.WhichOneof("record_type") == "run"]
    assert {(one.project, one.run_group, one.display_name) for one in starts} == {("birds", "a sweep", "tiny")}
    assert len({one.run_id for one in starts}) == 1
    assert {item.key for item in starts[0].config.update} >= {"optimizer", "model", "seed", "rayprob"}


def test_a_run_without_an_api_key_is_refused_before_it_starts(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb.teardown()  # it reads the mode only once
    monkeypatch.setenv("WANDB_MODE", "online")
    run = make_run(tmp_path / "run", tracking={"wandb": "birds"})
    try:
        with pytest.raises(SpecError, match=r"tracking\.wandb cannot log in: .*WANDB_MODE=offline"):
            History(run.run_folder, 0, run)
    finally:
        wandb.teardown()
