"""The table of runs: what is found, how a state is known, and that damage hides nothing."""

import fcntl
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from rayprob.cli.app import app
from rayprob.errors import RunError
from rayprob.runs.listing import ListedRun, list_runs, of_runs
from tests.loader.s3 import serve

RUN = {"data": {"root": "shards/birds"}, "evaluation": {"split": "holdout"}, "model": {"backbone": "resnet50"}}
NO_SUCH_PROCESS = 2**22 + 1  # above the largest number that Linux gives
GONE = {"host": platform.node(), "pid": NO_SUCH_PROCESS}


def write_run(folder: Path, *rows: dict[str, Any], is_finished: bool = True, **changes: Any) -> Path:
    """Write a run of 20 steps, two of an epoch, with these rows after its start."""
    (folder / "bundle").mkdir(parents=True)
    (folder / "run.yaml").write_text(yaml.safe_dump({"name": folder.name, **RUN, **changes}))
    (folder / "run.json").write_text("{}")
    start = {"kind": "start", "step": 0, "steps_per_epoch": 2, "total_steps": 20, **GONE}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ({**start}, *rows)))
    if is_finished:
        (folder / "bundle" / "bundle.json").write_text("{}")
    return folder


def step(number: int, speed: float = 100.0) -> dict[str, Any]:
    return {"kind": "step", "step": number, "loss": 1.0, "images_per_s": speed}


def evaluation(number: int, value: float, *, is_best: bool = True) -> dict[str, Any]:
    return {"kind": "evaluation", "step": number, "mAP": value, "is_best": is_best}


def only(folder: Path | str) -> ListedRun:
    (row,) = list_runs(str(folder))
    return row


def test_a_finished_run_tells_its_progress_its_best_and_its_speed(tmp_path: Path) -> None:
    rows = (step(10, 90.0), evaluation(10, 0.7), step(15, 100.0), step(20, 120.0), evaluation(20, 0.6, is_best=False))
    write_run(tmp_path / "runs" / "one", *rows)
    row = only(tmp_path)
    assert (row.name, row.kind, row.dataset, row.state, row.because) == ("one", "run", "birds", "finished", "it has its bundle")
    assert (row.done, row.total, row.best, row.metric, row.split, row.images_per_s) == (10, 10, 0.7, "mAP", "holdout", 100)
    assert row.written_s == pytest.approx((tmp_path / "runs" / "one" / "metrics.jsonl").stat().st_mtime)


def test_a_refit_is_told_from_a_run(tmp_path: Path) -> None:
    write_run(tmp_path / "re", model={"weights": "one/bundle", "weights_part": "features", "frozen": "backbone"})
    assert only(tmp_path).kind == "refit"


def test_a_run_of_this_machine_runs_as_long_as_its_process_lives(tmp_path: Path) -> None:
    start = {"kind": "start", "step": 4, "steps_per_epoch": 2, "total_steps": 20, "host": platform.node(), "pid": os.getpid()}
    folder = write_run(tmp_path / "one", start, is_finished=False)
    assert (only(folder).state, only(folder).because) == ("running", f"process {os.getpid()} of this machine is alive")
    write_run(tmp_path / "two", is_finished=False)
    assert only(tmp_path / "two").because == f"process {NO_SUCH_PROCESS} of this machine has ended"
    os.utime(folder / "metrics.jsonl", (1e9, 1e9))  # this process is younger than what the run wrote
    assert only(folder).state == "stopped"


def test_a_run_of_another_machine_runs_as_long_as_it_writes(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "one", {"kind": "start", "step": 0, "host": "elsewhere", "pid": 1}, is_finished=False)
    row = only(folder)
    assert row.state == "running"
    assert row.because.startswith("it wrote ")
    for file in ("metrics.jsonl", "run.json"):
        os.utime(folder / file, (time.time() - 3600, time.time() - 3600))
    assert (only(folder).state, only(folder).because) == ("stopped", "it has not written for 60 min")
    (folder / "stop").touch()
    assert only(folder).because == "it was asked to stop"


def test_a_run_or_sweep_file_alone_is_neither_but_there_may_be_runs_below_it(tmp_path: Path) -> None:
    tmp_path /= "example"
    tmp_path.mkdir()
    for file in ("run.yaml", "sweep.yaml"):
        (tmp_path / file).write_text(yaml.safe_dump({"name": "mine", **RUN}))
        assert list_runs(str(tmp_path)) == []
    write_run(tmp_path / "runs" / "mine")
    assert only(tmp_path).folder == str(tmp_path / "runs" / "mine")
    assert list_runs(str(tmp_path.parent)) == []
    assert len(list_runs(str(tmp_path.parent), every=True)) == 1


def test_a_claimed_run_that_never_wrote_has_not_started(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "one", is_finished=False)
    (folder / "metrics.jsonl").unlink()
    os.utime(folder / "run.json", (1e9, 1e9))
    assert (only(folder).state, only(folder).because) == ("stopped", "it has not started")


def test_a_failed_run_tells_why(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "one", is_finished=False)
    (folder / "failed.json").write_text(json.dumps({"kind": "NonFiniteLoss", "message": "the loss became nan"}))
    assert (only(folder).state, only(folder).because) == ("failed", "the loss became nan")


def test_a_long_history_is_read_at_its_ends_and_its_best_in_the_newest_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_runs, "WHOLE_BYTES", 400)
    monkeypatch.setattr(of_runs, "HEAD_BYTES", 200)
    monkeypatch.setattr(of_runs, "TAIL_BYTES", 200)
    folder = write_run(tmp_path / "one", evaluation(2, 0.8), *(step(number) for number in range(3, 21)))
    (folder / "checkpoints").mkdir()
    for number, best in ((2, 0.8), (20, 0.8)):
        progress = {"step": number, "best_score": best, "best_step": 2}
        (folder / "checkpoints" / f"step-{number:08d}.json").write_text(json.dumps({"progress": progress}))
    row = only(folder)
    assert (row.done, row.total, row.best, row.images_per_s) == (10, 10, 0.8, 100)


@pytest.mark.parametrize("damage", ["run.yaml", "checkpoints"])
@pytest.mark.parametrize("content", [b"\x00\xff", b"[1, 2", b"3", b"a: [\n", b""])
def test_a_broken_folder_is_listed_with_its_fault_next_to_the_others(tmp_path: Path, damage: str, content: bytes) -> None:
    write_run(tmp_path / "good", step(20), evaluation(20, 0.5))
    bad = write_run(tmp_path / "bad")
    (bad / "checkpoints").mkdir()
    (bad / ("run.yaml" if damage == "run.yaml" else "checkpoints/step-00000001.json")).write_bytes(content)
    rows = {row.name: row for row in list_runs(str(tmp_path))}
    assert rows["good"].state == "finished"
    assert rows["bad"].state == "broken"
    assert rows["bad"].because


@pytest.mark.parametrize("line", ["null", "3", '{"kind": "step"}', '{"kind": ', '{"step": "x", "kind": "step"}', "[" * 50_000])
def test_a_damaged_line_of_a_history_is_left_out(tmp_path: Path, line: str) -> None:
    folder = write_run(tmp_path / "one", step(10))
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(f"{line}\n{json.dumps(step(20))}\n")
    assert only(folder).done == 10


def test_trials_are_listed_on_request_and_for_their_own_sweep(tmp_path: Path) -> None:
    sweep = tmp_path / "sweeps" / "lr"
    write_run(sweep / "trials" / "000")
    (sweep / "sweep.yaml").write_text(yaml.safe_dump({"name": "lr", **RUN, "search": {"metric": "mAP", "trials": 4}}))
    asks = [{"kind": "ask", "number": number} for number in range(3)]
    (sweep / "ledger.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*asks, {"kind": "end", "number": 0}]))
    trials = [{"number": 0, "values": {"mAP": 0.4}, "images_per_s": 50.0}]
    (sweep / "summary.json").write_text(json.dumps({"trials": trials, "best": 0, "split": "holdout"}))
    row = only(tmp_path)
    assert (row.kind, row.state, row.done, row.total, row.best, row.images_per_s) == ("sweep", "stopped", 1, 4, 0.4, 50)
    assert {row.kind for row in list_runs(str(tmp_path), every=True)} == {"sweep", "run"}
    assert {row.kind for row in list_runs(str(sweep))} == {"sweep", "run"}


def test_a_sweep_and_systems_run_while_a_process_holds_their_lock(tmp_path: Path) -> None:
    (tmp_path / "systems.json").write_text("{}")
    (tmp_path / "sweep.lock").touch()
    assert only(tmp_path).state == "stopped"
    with (tmp_path / "sweep.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert (only(tmp_path).kind, only(tmp_path).state) == ("systems", "running")
    cells = {"cells": {"mAP": {"value": 0.5}}}
    (tmp_path / "results.json").write_text(json.dumps({"name": "all", "rows": [cells], "systems": {"split": "val"}}))
    row = only(tmp_path)
    assert (row.name, row.state, row.best, row.split) == ("all", "finished", 0.5, "val")


def test_the_inside_of_datasets_and_runs_is_not_looked_at_and_links_not_twice(tmp_path: Path) -> None:
    run = write_run(tmp_path / "one")
    write_run(run / "bundle" / "inner")
    dataset = write_run(tmp_path / "shards" / "deep").parent
    (dataset / "dataset.json").write_text("{}")
    (tmp_path / "again").symlink_to(run, target_is_directory=True)
    (tmp_path / "circle").symlink_to(tmp_path, target_is_directory=True)
    assert len(list_runs(str(tmp_path))) == 1


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="does not exist; give the folder that contains runs"):
        list_runs(str(tmp_path / "nowhere"))


def test_runs_in_an_object_store_are_listed_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path / "listed" / "one", step(10), evaluation(10, 0.7))
    with serve(tmp_path, monkeypatch):  # whose store may have a dataset of an earlier test at s3://shards/data
        row = only("s3://shards/data/listed")
    assert (row.name, row.state, row.best, row.done) == ("one", "finished", 0.7, 5)
    assert abs(row.written_s - time.time()) < 3600


def shown(*arguments: str) -> str:
    return CliRunner().invoke(app, ["runs", *arguments], env={"COLUMNS": "80"}, catch_exceptions=False).output


def test_the_table_fits_80_columns_and_is_sorted(tmp_path: Path) -> None:
    write_run(tmp_path / "a-run-with-a-long-name-that-is-cut-in-the-middle-[red]", step(20), evaluation(20, 0.5))
    write_run(tmp_path / "b", step(20, 12_345.0), evaluation(20, 0.9), data={"root": "/mnt/a-dataset-with-a-long-name"})
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "run.yaml").write_text("3")
    (tmp_path / "c" / "run.json").write_text("{}")
    text = shown(str(tmp_path), "--sort", "best")
    assert [line.split()[0][:1] for line in text.splitlines()[1:4]] == ["b", "a", "c"]
    assert max(len(line) for line in text.splitlines()[:4]) <= 80
    assert "12,345" in text
    assert f"broken: {tmp_path}/c: " in text
    told = json.loads(shown(str(tmp_path), "--sort", "name", "--json"))
    assert [row["name"][0] for row in told["runs"]] == ["a", "b", "c"]
    assert told["runs"][1]["written"].endswith("+00:00")


def test_the_table_has_the_folder_that_other_commands_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "demo" / "run", name="demo")
    write_run(tmp_path / "runs" / "birds")
    heading, *lines = shown("--sort", "name").splitlines()
    assert heading.split()[:2] == ["folder", "kind"]
    assert [line.partition(" run ")[0].strip() for line in lines[:2]] == ["runs/birds", "demo/run (demo)"]
    below = shown("runs")
    assert below.splitlines()[1].startswith("birds  run ")
    assert "folders are below runs; best: mAP" in below
    assert shown("demo/run").splitlines()[1].startswith(". (demo) run ")


def test_nothing_to_list_tells_what_to_do(tmp_path: Path) -> None:
    assert "next: rayprob train RUN.yaml" in shown(str(tmp_path))
    assert json.loads(shown(str(tmp_path), "--json")) == {"folder": str(tmp_path), "runs": []}


def test_an_unknown_order_is_refused(tmp_path: Path) -> None:
    assert "--sort takes when, name, best, speed or state; got 'age'" in shown(str(tmp_path), "--sort", "age").replace(
        "\n", " "
    )
