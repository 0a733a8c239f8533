"""One worker on this machine: when it is started again, when not, and that no Ray is needed."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from rayprob.cli.app import app
from rayprob.errors import NonFiniteLoss, RunError
from rayprob.loader.order import Place
from rayprob.runs.checkpoints import latest, list_checkpoints
from rayprob.runs.folder import read_failure
from rayprob.runs.history_rows import read_history
from rayprob.runs.spec import Run
from rayprob.train import child, here, ready
from rayprob.train import launch as launching
from rayprob.train.launch import launch
from rayprob.train.loop import Outcome, fit
from rayprob.train.placing import Workers
from tests.train.test_launch import STEPS, assert_bit_identical, losses, small, wait_for_step

MakeRun = Callable[..., Run]
BATCH_NORM = "ValueError: Expected more than 1 value per channel, after step 7"
DONE = {"outcome": {"ending": "finished", "step": 12, "total_steps": 12, "best_step": 6, "best_score": 0.5}}


class Worker:
    """Gives the answers of a list, one a process."""

    answers: Iterator[dict[str, Any]]

    def give(self, job: dict[str, Any]) -> None:
        assert job["workers"] == {"num_workers": 1, "use_gpu": False, "cpus_per_worker": 2, "least": None}

    def wait(self) -> dict[str, Any]:
        return next(self.answers)

    def end(self) -> None:
        pass


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, make_run: MakeRun, tmp_path: Path) -> Callable[..., Outcome]:
    """Train with workers that answer what is given."""

    def follow(
        answers: list[dict[str, Any]], tell: Callable[[dict[str, Any]], None] = lambda _: None, **placement: Any
    ) -> Outcome:
        monkeypatch.setattr(Worker, "answers", iter(answers), raising=False)
        monkeypatch.setattr(here, "take_worker", Worker)
        return here.TrainingHere(make_run(tmp_path, placement=placement), Workers(1, False, 2), tell).train()

    return follow


def test_an_error_that_comes_twice_ends_the_run_with_its_own_text(train: Callable[..., Outcome]) -> None:
    fault = {"fault": BATCH_NORM}
    for max_failures in (-1, 3):
        with pytest.raises(RunError, match=r"the same error occurred twice.*per channel, after step 7\n.*worker\.log"):
            train([fault, fault], max_failures=max_failures)


def test_the_folder_keeps_a_note_of_what_ended_the_run(train: Callable[..., Outcome], tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLoss):
        train([{"failure": {"kind": "NonFiniteLoss", "message": "the loss became nan"}}])
    assert read_failure(str(tmp_path)) == {"kind": "NonFiniteLoss", "message": "the loss became nan"}


def test_other_errors_and_deaths_are_started_again_as_often_as_allowed(train: Callable[..., Outcome]) -> None:
    told: list[dict[str, Any]] = []
    answers = [{"fault": BATCH_NORM}, {"died": -9, "said": ""}, {"fault": BATCH_NORM}]
    assert train([*answers, DONE], told.append).step == 12
    assert [event["number"] for event in told] == [1, 2, 3]
    assert told[1]["reason"] == "the worker was killed by SIGKILL; the kernel does this when memory runs out"
    with pytest.raises(RunError, match=r"and 2 restarts did not help: ValueError: .*\n.*; run the same command to resume"):
        train(answers, max_failures=2)
    with pytest.raises(RunError, match=r"ended with exit code 1: ModuleNotFoundError: torch"):
        train([{"died": 1, "said": "Traceback\nModuleNotFoundError: torch\n"}], max_failures=0)


def test_an_error_of_ours_is_raised_as_it_is(train: Callable[..., Outcome]) -> None:
    with pytest.raises(NonFiniteLoss, match=r"^the loss of step 3"):
        train([{"failure": {"kind": "NonFiniteLoss", "message": "the loss of step 3 is not finite"}}])


def test_a_killed_worker_starts_again_from_its_checkpoint_and_ends_bit_identical(make_run: MakeRun, tmp_path: Path) -> None:
    undisturbed, killed = (small(make_run, tmp_path / name, placement={"cpus_per_worker": 1}) for name in ("one", "two"))
    assert launch(undisturbed).ending == "finished"

    def kill() -> None:
        os.kill(wait_for_step(killed, 12)["pid"], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    assert launch(killed).ending == "finished"
    killer.join()
    starts = [row["step"] for row in read_history(killed.run_folder) if row["kind"] == "start"]
    assert len(starts) == 2
    assert 10 <= starts[1] <= STEPS
    assert losses(undisturbed) == losses(killed)
    assert_bit_identical(undisturbed, killed)


def rayprob(*arguments: str) -> str:
    """Return what a command prints that succeeds; it runs in this process."""
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return result.output


def test_ctrl_c_saves_and_the_same_command_ends_bit_identical(make_run: MakeRun, tmp_path: Path) -> None:
    undisturbed = small(make_run, tmp_path / "one", stream={"global_batch": 16, "lanes": 4, "loader_workers": 1})
    os.makedirs(undisturbed.run_folder)
    fit(undisturbed, Place(), torch.device("cpu"))
    run = small(make_run, tmp_path / "two", stream={"global_batch": 16, "lanes": 4, "loader_workers": 1})
    path = tmp_path / "run.yaml"
    path.write_text(run.to_yaml())
    arguments = ["train", str(path), "--set", "placement.cpus_per_worker=1"]
    command = [sys.executable, "-m", "rayprob", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    wait_for_step(run, 3)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the whole group hears it
    first, _ = process.communicate(timeout=120)
    assert process.returncode == 130, first
    assert "saving after the next step" in first
    assert "saved; the same command continues from there" in first
    stopped_at = latest(list_checkpoints(run.run_folder))
    assert stopped_at
    assert 3 <= stopped_at.step < STEPS
    second = rayprob(*arguments)
    assert f"resuming from step {stopped_at.step}" in second
    assert f"finished at step {STEPS}" in second
    assert_bit_identical(undisturbed, run)
    assert "this run is already finished" in rayprob(*arguments)
    assert json.loads((tmp_path / "two" / "run.json").read_text())["rayprob"]


def test_what_a_run_cannot_start_with_leaves_no_claim(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = small(make_run, tmp_path / "run", placement={"num_workers": 1, "cpus_per_worker": 10_000})
    with pytest.raises(RunError, match=r"asks for 1 worker with 10,000 CPU"):
        launch(run)
    monkeypatch.setenv("RAY_ADDRESS", "no port")
    with pytest.raises(RunError, match="RAY_ADDRESS=no port is not the address of a cluster"):
        launch(run)
    assert not list((tmp_path / "run").glob("*"))


def test_a_frozen_process_is_killed_and_said_to_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ready, "MOST_LOOKS", 2)
    monkeypatch.setattr(ready, "LOOK_EVERY_S", 0.01)
    worker = ready.WorkerProcess()  # stays at its imports, and is killed there
    pulse = Path(worker._folder.name, ready.PULSE)
    pulse.touch()
    assert worker.wait() == {"frozen": 0.02}
    worker.end()


def test_a_process_without_a_pulse_yet_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready, "MOST_LOOKS", 2)
    monkeypatch.setattr(ready, "LOOK_EVERY_S", 0.01)
    worker = ready.WorkerProcess()
    stopped = threading.Timer(0.5, worker._process.kill)
    stopped.start()
    assert worker.wait()["died"] == -signal.SIGKILL
    worker.end()


CHILD = """
import json, queue, random
from multiprocessing.spawn import get_preparation_data
def main():
    print(json.dumps(sorted(get_preparation_data("a loader worker"))))
"""


def test_the_process_takes_nothing_from_the_working_folder_and_gives_loader_workers_no_main_to_import(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package, working = tmp_path / "path" / "rayprob" / "train", tmp_path / "working"
    package.mkdir(parents=True)
    working.mkdir()
    (package / "child.py").write_text(CHILD)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    for name in ("queue.py", "random.py", "types.py"):
        (working / name).write_text("raise RuntimeError('a file of the user')")
    monkeypatch.syspath_prepend(tmp_path / "path")
    monkeypatch.chdir(working)
    worker = ready.WorkerProcess()
    ended = worker.wait()
    worker.end()
    assert ended["died"] == 0, ended["said"]
    assert not {"init_main_from_name", "init_main_from_path"} & set(json.loads(ended["said"]))


def test_a_worker_that_comes_after_the_run_was_abandoned_is_ended(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[bool] = []

    class Late(Worker):
        def __init__(self) -> None:
            training.abandon()  # while the process starts

        def give(self, job: dict[str, Any]) -> None:
            raise AssertionError("the run was abandoned")

        def end(self) -> None:
            ended.append(True)

    training = here.TrainingHere(make_run(tmp_path), Workers(1, False, 2), lambda event: None)
    monkeypatch.setattr(here, "take_worker", Late)
    with pytest.raises(RunError, match="killed by SIGKILL"):
        training.train()
    assert ended


def test_a_death_by_a_signal_without_a_name_is_told_by_its_number(train: Callable[..., Outcome]) -> None:
    with pytest.raises(RunError, match="killed by signal 40"):
        train([{"died": -40, "said": ""}], max_failures=0)


def test_the_log_of_a_remote_run_is_a_closed_file(make_run: MakeRun) -> None:
    before = len(os.listdir("/proc/self/fd"))
    log = here._log_of(make_run(Path("x")).model_copy(update={"folder": "s3://bucket/run"}))
    assert len(os.listdir("/proc/self/fd")) == before
    os.unlink(log)


def test_sigterm_before_the_workers_train_leaves_no_claim(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = signal.getsignal(signal.SIGTERM)

    def terminated(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(launching, "place_workers", terminated)
    monkeypatch.setattr(launching, "worker_ready", lambda num_workers: nullcontext())
    with pytest.raises(KeyboardInterrupt):
        launch(make_run(tmp_path / "run"))
    assert not list((tmp_path / "run").glob("*"))
    assert signal.getsignal(signal.SIGTERM) == handler


def test_a_pulse_without_its_folder_does_not_end_the_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wake(_: float) -> None:
        raise InterruptedError

    monkeypatch.setattr(child.time, "sleep", wake)
    with pytest.raises(InterruptedError):
        child._show_life(tmp_path / "gone" / "pulse")
