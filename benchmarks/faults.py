"""The cost of faults: time until noticed and until training again, steps lost, and whether the result is bit for bit the same.

    make demo
    python benchmarks/faults.py
    python benchmarks/faults.py --faults --random-kills 20 --steps 800

A run of two Ray workers on generated scenes is disturbed in its middle, and compared with an undisturbed one: the loss of every
logged step, every evaluation, and all tensors of the last checkpoint. Checkpoints are written every 5 steps. Seconds are from
the fault to the start of new workers ("noticed and restarted") and to the step at which it came ("made up").
After a fault of the driver the same command is run again, which is part of the time.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from rayprob.runs.checkpoints import latest, list_checkpoints
from rayprob.runs.history_rows import read_history
from rayprob.text import counted

ROOT = Path(__file__).resolve().parents[1]
LIMIT_S = 300
EVERY_STEPS = 5
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "disabled"),
    "OMP_NUM_THREADS": "1",
}


@dataclass
class Disturbed:
    """A running run: its folder, its settings, and the process of its driver."""

    folder: Path
    settings: list[str]
    child: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> None:
        """Start the driver, or start it again."""
        command = [sys.executable, "-m", "rayprob", "train", str(ROOT / "tune_configs" / "demo.yaml"), *self.settings]
        with open(self.folder.with_suffix(".log"), "ab") as log:
            self.child = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **ENVIRONMENT}, cwd=ROOT)

    @property
    def rows(self) -> list[dict[str, Any]]:
        return read_history(str(self.folder))

    @property
    def step(self) -> int:
        """The last logged step."""
        return max((row["step"] for row in self.rows if row["kind"] == "step"), default=0)

    @property
    def starts(self) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["kind"] == "start"]

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Wait while the driver is alive. Raises RuntimeError with its log if it ends or nothing happens."""
        assert self.child is not None
        until_s = time.monotonic() + LIMIT_S
        while not is_so():
            if self.child.poll() is not None or time.monotonic() > until_s:
                raise RuntimeError(self.folder.with_suffix(".log").read_text()[-2000:])
            time.sleep(0.05)

    def finish(self) -> None:
        """Wait for the end of the run. Raises RuntimeError if it failed."""
        assert self.child is not None
        if self.child.wait(timeout=LIMIT_S):
            raise RuntimeError(self.folder.with_suffix(".log").read_text()[-2000:])


def worker_killed(run: Disturbed) -> None:
    """SIGKILL of rank 0."""
    os.kill(run.starts[-1]["pid"], signal.SIGKILL)


def worker_frozen(run: Disturbed) -> None:
    """SIGSTOP of rank 0."""
    os.kill(run.starts[-1]["pid"], signal.SIGSTOP)


def driver_killed(run: Disturbed) -> None:
    """SIGKILL of the driver, then the same command."""
    assert run.child is not None
    run.child.kill()
    run.child.wait()
    time.sleep(2)
    run.start()


def newest_damaged(run: Disturbed) -> None:
    """SIGKILL of the driver, the newest checkpoint cut, then the same command."""
    assert run.child is not None
    run.child.kill()
    run.child.wait()
    time.sleep(2)
    newest = max((run.folder / "checkpoints").glob("*.pt"))
    newest.write_bytes(newest.read_bytes()[:-1000])
    run.start()


def killed_while_saving(run: Disturbed) -> None:
    """SIGKILL of rank 0 while a checkpoint is half-written."""
    before = {path.name for path in (run.folder / "checkpoints").iterdir()}

    def is_half_written() -> bool:
        new = {path.name for path in (run.folder / "checkpoints").iterdir()} - before
        return any(not name.endswith((".pt", ".json")) for name in new)

    until_s = time.monotonic() + 60
    while not is_half_written():
        if time.monotonic() > until_s:
            raise RuntimeError("no checkpoint was seen half-written within a minute")
    os.kill(run.starts[-1]["pid"], signal.SIGKILL)


FAULTS: dict[str, Callable[[Disturbed], None]] = {
    "worker killed": worker_killed,
    "worker frozen": worker_frozen,
    "driver killed": driver_killed,
    "newest checkpoint damaged": newest_damaged,
    "killed while saving": killed_while_saving,
}


def main() -> None:
    """Train undisturbed, then once for each fault, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="demo/shards")
    parser.add_argument("--faults", nargs="*", default=list(FAULTS), choices=list(FAULTS))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--random-kills", type=int, default=0, help="number of random kills of rank 0 or the driver in one run")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        undisturbed = new_run(base, "undisturbed", arguments)
        undisturbed.start()
        undisturbed.finish()
        print(f"undisturbed: {arguments.steps} steps", flush=True)
        for name in arguments.faults:
            run = new_run(base, name.replace(" ", "-"), arguments)
            print(f"{name:>26}: {line_of(run, FAULTS[name], undisturbed)}", flush=True)
        if num_kills := arguments.random_kills:
            run = new_run(base, "random", arguments)
            print(f"{num_kills:>13} random kills: {kill_at_random(run, num_kills, undisturbed)}", flush=True)


def new_run(base: Path, name: str, arguments: argparse.Namespace) -> Disturbed:
    """Return a run of the demo's network in its own folder."""
    values = {
        "name": "faults",
        "folder": base / name,
        "data.root": Path(arguments.data).absolute(),
        "transforms.train.size_px": 64,
        "transforms.evaluate.size_px": 64,
        "duration": f"{{steps: {arguments.steps}}}",
        "evaluation.every": f"{{steps: {arguments.steps // 2}}}",
        "checkpoint.every_steps": EVERY_STEPS,
        "log_every_steps": 1,
        "placement.max_failures": -1,
    }
    return Disturbed(base / name, [word for key, value in values.items() for word in ("--set", f"{key}={value}")])


def line_of(run: Disturbed, inject: Callable[[Disturbed], None], undisturbed: Disturbed) -> str:
    """Disturb a run in its middle; return the cost."""
    run.start()
    run.wait_until(lambda: run.step >= 33)
    step, num_starts = run.step, len(run.starts)
    began_s = time.monotonic()
    inject(run)
    # A restarted worker first drops the rows after its checkpoint, then writes its start.
    run.wait_until(lambda: len(run.starts) > num_starts)
    noticed_s = time.monotonic() - began_s
    resumed = run.starts[-1]["step"]
    run.wait_until(lambda: run.step >= step)
    made_up_s = time.monotonic() - began_s
    run.finish()
    repeated = max(0, step - resumed)  # workers may continue for a while after their driver
    return (
        f"noticed and restarted after {noticed_s:5.1f} s, made up after {made_up_s:5.1f} s, {counted(repeated, 'step')} "
        f"repeated, {verdict(str(run.folder), str(undisturbed.folder))}"
    )


def kill_at_random(run: Disturbed, num_kills: int, undisturbed: Disturbed) -> str:
    """Kill rank 0 or the driver a few steps after each start, `num_kills` times; return the outcome."""
    draw = random.Random(0)
    kills = dict.fromkeys(("worker killed", "driver killed"), 0)
    run.start()
    for _ in range(num_kills):
        num_starts, num_steps = len(run.starts), draw.randint(3, 12)
        run.wait_until(lambda steps=num_steps: bool(run.starts) and run.step >= run.starts[-1]["step"] + steps)  # type: ignore[misc]
        name = draw.choice(list(kills))
        kills[name] += 1
        FAULTS[name](run)
        run.wait_until(lambda n=num_starts: len(run.starts) > n)  # type: ignore[misc]
    run.finish()
    counts = f"{kills['worker killed']} of rank 0, {kills['driver killed']} of the driver"
    return f"{counts}; {verdict(str(run.folder), str(undisturbed.folder))}"


def verdict(left: str, right: str) -> str:
    """Return whether two run folders are equal in every loss, every evaluation and every tensor of the last checkpoint."""
    same_history = story(left) == story(right)
    tensors = [latest(list_checkpoints(folder)) for folder in (left, right)]
    assert all(tensors)
    same_tensors = equal(*(checkpoint.load() for checkpoint in tensors if checkpoint))
    return "bit-equal" if same_history and same_tensors else f"NOT equal (history {same_history}, tensors {same_tensors})"


def story(folder: str) -> list[str]:
    """Return losses and evaluations in order, without timings."""
    timed = ("images_per_s", "data_wait", "elapsed_s")
    rows = [row for row in read_history(folder) if row["kind"] not in ("start", "notice")]
    return [json.dumps({key: value for key, value in row.items() if key not in timed}) for row in rows]


def equal(left: Any, right: Any) -> bool:
    """Return whether two nested values are equal, tensors bit for bit."""
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(equal(a, b) for a, b in zip(left, right, strict=True))
    return bool(left == right)


if __name__ == "__main__":
    main()
