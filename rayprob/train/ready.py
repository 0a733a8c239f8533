"""The training process of a single-worker run, started early, because its imports take seconds, as do the driver's.

Imports nothing heavy, so that `rayprob train` can start the process before its own imports.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rayprob.cluster import is_running

ANSWER, PULSE = "answer.json", "pulse"
# With -P neither the process nor its children look for modules in the working folder, where a file may be called queue.py;
# it gets the path of this process. With `-m` it would have a named __main__, which each loader worker would import.
CHILD = ("-P", "-c", "import sys; sys.path[:] = sys.argv[1:]; from rayprob.train.child import main; main()")
LOOK_EVERY_S = 1.0
MOST_LOOKS = 30  # without a sign of life; counted in looks, so that a worker does not count as frozen after the machine slept
_waiting: list["WorkerProcess"] = []


class WorkerProcess:
    """Runs `child.main`: imports what training needs, waits for its one job, and ends with it.

    It ignores Ctrl-C in the terminal, and ends when this process does, however that ends.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="rayprob-worker-")
        self._early_log = Path(self._folder.name, "log")
        with self._early_log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, *CHILD, *sys.path],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def give(self, job: Mapping[str, Any]) -> None:
        """Hand over the job; if the process has already died, `wait` reports it."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            paths = {"answer": self._path(ANSWER), "pulse": self._path(PULSE)}
            self._process.stdin.write(json.dumps({**job, **paths}).encode() + b"\n")
            self._process.stdin.flush()

    def wait(self) -> dict[str, Any]:
        """Return the answer once the process has ended, or under `died` how it ended without one; kills a frozen process."""
        seen, looks = 0, 0
        while (code := self._ended_within(LOOK_EVERY_S)) is None and looks < MOST_LOOKS:
            pulse = self._pulse()
            looks = looks + 1 if pulse and pulse == seen else 0
            seen = pulse
        if code is None:
            self._process.kill()
            return {"frozen": MOST_LOOKS * LOOK_EVERY_S}
        answer = Path(self._path(ANSWER))
        if answer.exists():
            return dict(json.loads(answer.read_text()))
        return {"died": code, "said": self._early_log.read_text(errors="replace")}

    def end(self) -> None:
        """Kill the process if it is still running, and remove its files."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._folder.cleanup()

    def _path(self, name: str) -> str:
        return os.path.join(self._folder.name, name)

    def _ended_within(self, seconds: float) -> int | None:
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def _pulse(self) -> int:
        """Return when the process last touched its file, in nanoseconds; 0 if it never has."""
        try:
            return os.stat(self._path(PULSE)).st_mtime_ns
        except FileNotFoundError:
            return 0


def num_workers_of(run_file: Mapping[str, Any]) -> object:
    """Return placement.num_workers of a run file that has not been validated yet."""
    placement = run_file.get("placement")
    return placement.get("num_workers", "auto") if isinstance(placement, Mapping) else "auto"


def needs_no_ray(num_workers: object) -> bool:
    """Return whether a run with this placement.num_workers may train without Ray: with one worker and without RAY_ADDRESS."""
    return num_workers in ("auto", 1) and not os.environ.get("RAY_ADDRESS") and not is_running()


@contextmanager
def worker_ready(num_workers: object) -> Iterator[None]:
    """Have a process ready within the block, for a run with this placement.num_workers; end it if it is not used."""
    if needs_no_ray(num_workers) and not _waiting:
        _waiting.append(WorkerProcess())
    try:
        yield
    finally:
        drop_worker()


def take_worker() -> WorkerProcess:
    """Return the ready process, or a new one."""
    return _waiting.pop() if _waiting else WorkerProcess()


def drop_worker() -> None:
    """End the ready process, if any: the run needs other workers."""
    while _waiting:
        _waiting.pop().end()
