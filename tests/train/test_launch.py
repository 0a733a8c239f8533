"""Runs on Ray: two workers against one, a killed worker, Ctrl-C, and what is refused before a worker starts."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rayprob.errors import NonFiniteLoss, RunError, SpecError
from rayprob.loader.order import Place
from rayprob.runs.checkpoints import latest, list_checkpoints
from rayprob.runs.history_rows import read_history
from rayprob.runs.spec import Run
from rayprob.train.launch import launch
from rayprob.train.loop import Outcome, fit

MakeRun = Callable[..., Run]
TWO = {"num_workers": 2, "use_gpu": False, "cpus_per_worker": 1}
STEPS = 40


def small(make_run: MakeRun, folder: Path, **changes: Any) -> Run:
    defaults = {"duration": {"steps": STEPS}, "evaluation": {"every": {"steps": 20}}, "checkpoint": {"every_steps": 5}}
    return make_run(folder, **{**defaults, **changes})


def weights(run: Run) -> dict[str, torch.Tensor]:
    checkpoint = latest(list_checkpoints(run.run_folder))
    assert checkpoint
    found: dict[str, torch.Tensor] = checkpoint.load()["classifier"]
    return found


def losses(run: Run) -> list[float]:
    return [row["loss"] for row in read_history(run.run_folder) if row["kind"] == "step"]


def assert_bit_identical(left: Run, right: Run) -> None:
    ours, theirs = weights(left), weights(right)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def wait_for_step(run: Run, step: int, timeout_s: float = 150) -> dict[str, Any]:
    """Wait until a run has written `step`; return its last start row."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        rows = read_history(run.run_folder)
        if any(row["kind"] == "step" and row["step"] >= step for row in rows):
            return [row for row in rows if row["kind"] == "start"][-1]
        time.sleep(0.02)
    raise AssertionError(f"{run.run_folder} did not reach step {step} in {timeout_s} s")


@pytest.mark.slow
@pytest.mark.ray
def test_two_workers_see_ones_losses_and_survive_a_kill_bit_for_bit(ray_here: None, make_run: MakeRun, tmp_path: Path) -> None:
    alone = small(make_run, tmp_path / "alone")
    os.makedirs(alone.run_folder)
    fit(alone, Place(), torch.device("cpu"))
    undisturbed = small(make_run, tmp_path / "undisturbed", placement=TWO)
    assert launch(undisturbed).ending == "finished"
    assert losses(undisturbed) == pytest.approx(losses(alone), rel=2e-2)
    assert losses(undisturbed)[:10] == pytest.approx(losses(alone)[:10], rel=1e-4)

    killed = small(make_run, tmp_path / "killed", placement=TWO)

    def kill() -> None:
        os.kill(wait_for_step(killed, 12)["pid"], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    outcome = launch(killed)
    killer.join()
    assert outcome == Outcome("finished", STEPS, STEPS, outcome.best_step, outcome.best_score)
    starts = [row["step"] for row in read_history(killed.run_folder) if row["kind"] == "start"]
    assert len(starts) == 2
    assert 10 <= starts[1] <= STEPS
    assert_bit_identical(undisturbed, killed)
    assert losses(undisturbed) == losses(killed)


@pytest.mark.slow
@pytest.mark.ray
def test_an_error_of_ours_ends_the_run_with_its_own_message(ray_here: None, make_run: MakeRun, tmp_path: Path) -> None:
    run = small(make_run, tmp_path / "run", optimizer={"name": "sgd", "lr": 1e12, "momentum": 0.0})
    with pytest.raises(NonFiniteLoss, match=r"the loss of step \d+ is not finite"):
        launch(run)


@pytest.mark.ray
def test_more_workers_than_there_are_cores_is_refused_at_once(ray_here: None, make_run: MakeRun, tmp_path: Path) -> None:
    run = small(make_run, tmp_path, placement={"num_workers": 4, "use_gpu": False, "cpus_per_worker": 1})
    with pytest.raises(RunError, match=r"asks for 4 workers .*, but this Ray has 2 CPUs and 0 GPUs, enough for 2"):
        launch(run)
    assert not list(tmp_path.glob("run.*"))  # a changed run may have the folder


@pytest.mark.ray
def test_a_world_size_that_does_not_divide_the_lanes_is_refused(ray_here: None, make_run: MakeRun, tmp_path: Path) -> None:
    run = small(make_run, tmp_path, placement=TWO, stream={"global_batch": 15, "lanes": 5, "loader_workers": 0})
    with pytest.raises(
        SpecError, match=r"placement.num_workers 2 does not divide stream.lanes 5; set placement.num_workers to 1"
    ):
        launch(run)


def test_a_relative_folder_inside_a_job_is_refused(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(RunError, match=r"folder runs/x is relative, .* --set folder=/mnt/shared/runs/tiny"):
        launch(make_run(Path("runs/x")))


AFTER_RAY = """
import os, signal, time
from rayprob.cluster import start_ray
from rayprob.signals import signals_call

def stop():
    raise KeyboardInterrupt

with signals_call(stop):
    start_ray(num_cpus=1)
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    except KeyboardInterrupt:
        print("stopped by its own handler")
"""


@pytest.mark.ray
def test_signals_reach_the_handlers_of_a_command_after_ray_has_started() -> None:
    """Ray replaces them, below Python too: it would print a stack and abort."""
    done = subprocess.run([sys.executable, "-c", AFTER_RAY], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "stopped by its own handler\n", "")
