"""Whole sweeps under Ray Tune, each a child process as users start it: stopped, killed and gone on with."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from rayprob import __version__
from rayprob.data.building.build import build, in_process
from rayprob.data.building.recipe import Recipe
from rayprob.data.manifest.dataset import Dataset
from rayprob.errors import RunError
from rayprob.runs.history_rows import read_history
from rayprob.sweep.ledger import Ledger, read_ledger
from rayprob.sweep.results import summarise
from rayprob.sweep.search import Sweep
from rayprob.sweep.study import Study
from rayprob.sweep.trials import Director, room_for
from rayprob.sweep.tune import alone_in, claim, clear, on_its_dataset, run_sweep
from tests.train.conftest import MakeRun, write_coco

LIMIT_S = 240
LRS = [1e-4, 3e-3, 1e30]
SLOW = 60  # steps of a trial that can be caught under way


def sweep_file(
    make_run: MakeRun, tmp_path: Path, steps: int = 12, placement: dict[str, Any] | None = None, **search: Any
) -> Path:
    """Write a sweep over the learning rate of the tiny run, one CPU a trial; the highest rate fails."""
    changes = {
        "duration": {"steps": steps},
        "evaluation": {"every": {"steps": 6}, "micro_batch": 20},
        "placement": placement or {"num_workers": 1, "cpus_per_worker": 1, "use_gpu": False},
        "checkpoint": {"every_steps": 3},
    }
    run = make_run(tmp_path / "sweep", **changes).model_dump(mode="json", exclude_none=True)
    space = {"optimizer.lr": {"grid": LRS}}
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump({**run, "search": {"metric": "mAP", "space": space, "default": False, **search}}))
    return file


@pytest.fixture(scope="module")
def ray_address() -> Iterator[str]:
    """Where a Ray runs that all sweeps of this module join, one after the other."""
    command = [sys.executable, "-m", "tests.sweep.cluster"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.communicate(timeout=LIMIT_S)


def start(file: Path, ray_address: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "rayprob", "tune", str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "COLUMNS": "200", "RAY_ADDRESS": ray_address},
    )


def finish(child: subprocess.Popen[str]) -> str:
    """Wait for a sweep to end well; return what it printed."""
    text, _ = child.communicate(timeout=LIMIT_S)
    assert child.returncode == 0, text
    return text


def wait_until(is_so: Callable[[], bool], child: subprocess.Popen[str]) -> None:
    """Wait until something is so, while the sweep is alive."""
    until_s = time.monotonic() + LIMIT_S
    while not is_so():
        assert child.poll() is None, child.communicate()[0]
        assert time.monotonic() < until_s
        time.sleep(0.05)


def wait_until_gone(pid: int) -> None:
    """Wait until a process has ended, as a trial does when Ray notices that its driver is gone."""
    until_s = time.monotonic() + LIMIT_S
    while subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, check=False).stdout.strip()[:1] not in (
        b"",
        b"Z",
    ):
        assert time.monotonic() < until_s
        time.sleep(0.05)


def steps_of(folder: Path, number: int) -> list[int]:
    return [row["step"] for row in read_history(f"{folder}/trials/{number:03d}") if row["kind"] == "step"]


def starts(folder: Path, number: int) -> list[dict[str, Any]]:
    return [row for row in read_history(f"{folder}/trials/{number:03d}") if row["kind"] == "start"]


def ends(folder: Path) -> list[tuple[int, str]]:
    return [(row["number"], row["state"]) for row in read_ledger(str(folder)) if row["kind"] == "end"]


@pytest.fixture(scope="module")
def alone(ray_address: str, make_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of an undisturbed sweep of two slow trials and one that fails, and what it printed."""
    tmp_path = tmp_path_factory.mktemp("alone")
    text = finish(start(sweep_file(make_run, tmp_path, steps=SLOW), ray_address))
    return tmp_path / "sweep", text


@pytest.fixture
def disturbed(ray_address: str, make_run: MakeRun, tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts the sweep of `alone` in `tmp_path/sweep`, as often as it is called; none is left after the test."""
    file, children = sweep_file(make_run, tmp_path, steps=SLOW), []

    def start_again() -> subprocess.Popen[str]:
        children.append(start(file, ray_address))
        return children[-1]

    yield start_again
    for child in children:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)


def values(folder: Path) -> dict[int, tuple[Any, ...]]:
    summary = json.loads((folder / "summary.json").read_text())
    return {row["number"]: (row["params"], row["values"], row["state"], row["curve"]) for row in summary["trials"]}


@pytest.mark.ray
def test_a_sweep_leaves_tables_a_best_run_file_and_a_summary(alone: tuple[Path, str]) -> None:
    folder, text = alone
    assert sorted(ends(folder)) == [(0, "finished"), (1, "finished"), (2, "failed")]
    table = pq.read_table(folder / "results.parquet").to_pylist()
    assert [row["set.optimizer.lr"] for row in table] == LRS
    assert len((folder / "results.csv").read_text().splitlines()) == 1 + len(LRS)
    summary = json.loads((folder / "summary.json").read_text())
    best = max(summary["trials"][:2], key=lambda row: row["values"]["mAP"])
    assert summary["best"] == best["number"]
    assert set(summary["val"]["best"]) >= {"mAP", "OF1"}
    assert f"next: rayprob train {folder}/best.yaml" in text
    assert list((folder / "tensorboard").rglob("events.out.tfevents.*"))
    assert not (folder / "tune").exists()


@pytest.mark.ray
def test_a_failing_trial_is_one_row_with_its_reason(alone: tuple[Path, str]) -> None:
    folder, text = alone
    failed = json.loads((folder / "summary.json").read_text())["trials"][2]
    assert (failed["state"], failed["values"]) == ("failed", {})
    assert failed["reason"].startswith("NonFiniteLoss: the loss of step")
    assert "1 trial failed: 002: NonFiniteLoss" in text


@pytest.mark.slow
@pytest.mark.ray
def test_the_best_run_file_alone_repeats_its_trial_bit_by_bit(alone: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = alone
    command = [sys.executable, "-m", "rayprob", "train", str(folder / "best.yaml"), "--set", f"folder={tmp_path / 'again'}"]
    subprocess.run(command, check=True, timeout=LIMIT_S, capture_output=True)
    summary = json.loads((folder / "summary.json").read_text())
    told = [
        [row for row in read_history(str(place)) if row["kind"] == "evaluation"]
        for place in (folder / "trials" / f"{summary['best']:03d}", tmp_path / "again")
    ]
    assert told[0]
    timeless = [[{**row, "elapsed_s": 0} for row in rows] for rows in told]
    assert timeless[0] == timeless[1]


@pytest.mark.ray
def test_a_finished_sweep_is_over_at_once_and_trains_nothing(alone: tuple[Path, str], make_run: MakeRun) -> None:
    folder, _ = alone
    before, rows = values(folder), read_ledger(str(folder))
    swept = run_sweep(Sweep.read(folder.parent / "sweep.yaml"))
    assert swept.is_finished
    assert (values(folder), read_ledger(str(folder))) == (before, rows)


@pytest.mark.slow
@pytest.mark.ray
def test_ctrl_c_then_a_killed_driver_then_a_killed_trial_lose_nothing_and_repeat_nothing(
    alone: tuple[Path, str], disturbed: Callable[[], subprocess.Popen[str]], tmp_path: Path
) -> None:
    folder = tmp_path / "sweep"
    child = disturbed()
    wait_until(lambda: max(steps_of(folder, 0), default=0) >= 3, child)
    child.send_signal(signal.SIGINT)
    text, _ = child.communicate(timeout=LIMIT_S)
    assert child.returncode == 130, text
    assert "the running ones saved; the same command continues from there" in text

    child = disturbed()
    wait_until(lambda: max(steps_of(folder, 0)) >= starts(folder, 0)[-1]["step"] + 9, child)
    trials = [found[-1]["pid"] for number in range(2) if (found := starts(folder, number))]
    child.kill()
    child.communicate()
    with suppress(ProcessLookupError):  # Ray may have ended it already, or notice only later that its driver is gone
        os.kill(trials[0], signal.SIGKILL)
    for trial in trials:
        wait_until_gone(trial)
    done_then = dict(ends(folder))

    child = disturbed()
    wait_until(lambda: len(starts(folder, 0)) == 3 and max(steps_of(folder, 0)) > starts(folder, 0)[-1]["step"] + 3, child)
    assert starts(folder, 0)[-1]["step"] >= 6, "the trial went on from its checkpoint"
    os.kill(starts(folder, 0)[-1]["pid"], signal.SIGKILL)
    assert "continuing; " in finish(child)
    assert len(starts(folder, 0)) == 4
    assert values(folder) == values(alone[0])
    finished = ends(folder)
    assert len(finished) == len({number for number, _ in finished}) == len(LRS)
    assert done_then.items() <= dict(finished).items()


@pytest.mark.slow
@pytest.mark.ray
def test_a_trial_of_two_workers_trains_under_ray_train(ray_address: str, make_run: MakeRun, tmp_path: Path) -> None:
    placement = {"num_workers": 2, "cpus_per_worker": 1, "use_gpu": False}
    file = sweep_file(make_run, tmp_path, placement=placement, space={"optimizer.lr": {"grid": [1e-3]}})
    finish(start(file, ray_address))
    assert ends(tmp_path / "sweep") == [(0, "finished")]
    assert [row["world_size"] for row in starts(tmp_path / "sweep", 0)] == [2]


def test_ray_is_not_imported_before_its_settings_are_made() -> None:
    # Ray reads RAY_AUTH_MODE at its first import; with it too late, a sweep's own cluster refuses its own driver.
    modules = "rayprob.cli.app, rayprob.cli.show_sweep, rayprob.sweep.tune, rayprob.report.sweep.page"
    script = f"import sys, {modules}\nprint('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


def test_a_sweep_keeps_to_the_version_of_its_dataset(make_run: MakeRun, tmp_path: Path) -> None:
    splits = {"train": write_coco(tmp_path / "data", "train", 20, 1)}
    recipe = Recipe.parse({"name": "grows", "splits": splits, "target": str(tmp_path / "built")})
    old = build(recipe, run_tasks=in_process)
    sweep = Sweep.read(sweep_file(make_run, tmp_path, trials=1), [f"data.root={old.root}"])
    assert on_its_dataset(sweep) == sweep
    claim(sweep, Dataset.open(old.root))
    more = {"train": write_coco(tmp_path / "more", "train", 30, 1)}
    build(Recipe.parse({**recipe.model_dump(), "splits": more}), run_tasks=in_process, grow=True)
    again = on_its_dataset(sweep)
    assert again.run.data.root == f"{old.root}@{old.facts['fingerprint']}"
    claim(again, Dataset.open(again.run.data.root))


def test_two_sweeps_with_one_name_are_told_apart(make_run: MakeRun, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    file = sweep_file(make_run, tmp_path, trials=1)
    first = Sweep.read(file)
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="is not empty and is not a sweep folder; set another name or folder"):
        run_sweep(first)
    (folder / "notes.txt").unlink()
    dataset = Dataset.open(first.run.data.root)
    claim(first, dataset)
    claim(Sweep.read(file, ["search.confirm.seeds=3"]), dataset)
    identity = Path(first.folder) / "sweep.json"
    identity.write_text(identity.read_text().replace(f'"rayprob": "{__version__}"', '"rayprob": "0.0.1"'))
    claim(first, dataset)  # by another version
    with pytest.raises(
        RunError, match=r"contains another sweep of this name, which differs in 1 key:\n  run\.seed: 0 -> 5\nset"
    ):
        claim(Sweep.read(file, ["seed=5"]), dataset)


def test_one_process_at_a_time_works_on_a_sweep(tmp_path: Path) -> None:
    folder = str(tmp_path)
    busy = f"is in use by process {os.getpid()} on this machine"
    with alone_in(folder), pytest.raises(RunError, match=busy), alone_in(folder):
        pass
    with alone_in(str(tmp_path)):
        pass


def test_a_sweep_on_val_is_warned_of(make_run: MakeRun, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="is not empty"):
        run_sweep(Sweep.read(sweep_file(make_run, tmp_path, split="val")))
    assert "trials are chosen on val, so its numbers will be optimistic" in caplog.text


def test_a_fresh_start_takes_no_sweep_from_under_another_process(make_run: MakeRun, tmp_path: Path) -> None:
    sweep = Sweep.read(sweep_file(make_run, tmp_path))
    claim(sweep, Dataset.open(sweep.run.data.root))
    with alone_in(sweep.folder), pytest.raises(RunError, match="is in use by process"):
        run_sweep(sweep, fresh=True)
    assert (tmp_path / "sweep" / "sweep.json").exists()
    clear(sweep)
    assert not (tmp_path / "sweep").exists()


def test_parameters_that_make_no_run_fail_their_trial_and_not_the_sweep(make_run: MakeRun, tmp_path: Path) -> None:
    space = {"loss.gamma": {"choice": [1.0]}, "loss.name": {"choice": ["focal", "bce"]}}
    base = {"loss": {"name": "focal"}}
    file = sweep_file(make_run, tmp_path, space=space, trials=4)
    value = {**yaml.safe_load(file.read_text()), **base}
    file.write_text(yaml.safe_dump(value))
    sweep = Sweep.read(file)
    study = Study(sweep, Ledger(sweep.folder))
    told: list[dict[str, Any]] = []
    director = Director(study, lambda trial: sweep.trial_run(trial.number, trial.params), told.append)
    while isinstance(director.suggest(f"trial {len(study.trials)}"), dict):
        pass
    states = {trial.params["loss.name"]: (trial.state, trial.reason) for trial in study.trials.values()}
    assert states["focal"] == ("running", "")
    assert states["bce"][0] == "failed"
    assert states["bce"][1].startswith("SpecError: trial ")
    rows = {row["params"]["loss.name"]: row for row in summarise(sweep, study, None, 1.0)["trials"]}
    assert (rows["bce"]["state"], rows["bce"]["values"]) == ("failed", {})


@pytest.mark.parametrize(
    ("placement", "resources", "expected"),
    [
        ({}, {"CPU": 2}, (1, False, 1, 2)),
        ({}, {"CPU": 16}, (1, False, 4, 4)),
        ({"num_workers": 2}, {"CPU": 2}, (2, False, 1, 1)),
        ({}, {"CPU": 16, "GPU": 4}, (1, True, 1, 4)),
        ({"num_workers": 4}, {"CPU": 32, "GPU": 8}, (4, True, 1, 2)),
        ({"cpus_per_worker": 2}, {"CPU": 2}, (1, False, 2, 1)),
    ],
)
def test_as_many_trials_run_as_fit(
    make_run: MakeRun, tmp_path: Path, placement: dict[str, Any], resources: dict[str, float], expected: tuple[Any, ...]
) -> None:
    room = room_for(make_run(tmp_path, placement=placement), resources, "auto")
    workers = room.workers
    assert (workers.num_workers, workers.use_gpu, workers.cpus_per_worker, room.max_concurrent) == expected


def test_a_trial_larger_than_the_cluster_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(
        RunError, match=r"a trial takes 8 GPUs, one per worker \(placement\.num_workers\), and this cluster has 4"
    ):
        room_for(make_run(tmp_path, placement={"num_workers": 8}), {"CPU": 64, "GPU": 4}, "auto")
    with pytest.raises(RunError, match=r"a trial takes 4 CPUs, 1 for each of 4 workers, and this cluster has 2"):
        room_for(make_run(tmp_path, placement={"num_workers": 4}), {"CPU": 2}, "auto")
