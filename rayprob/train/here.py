"""A single-worker run on this machine, without Ray: one process trains, this one follows it and restarts it if it dies."""

import os
import signal
import tempfile
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from rayprob import plugins
from rayprob.errors import RayprobError, RunError, as_error
from rayprob.files import storage
from rayprob.runs.folder import note_failure
from rayprob.runs.paths import RunFolder
from rayprob.runs.spec import Run
from rayprob.text import counted
from rayprob.train.faults import repeated
from rayprob.train.loop import Outcome
from rayprob.train.placing import Workers
from rayprob.train.ready import WorkerProcess, take_worker
from rayprob.train.training import Tell, Training


class TrainingHere(Training):
    """One worker process at a time, restarted from the last checkpoint up to placement.max_failures times."""

    def __init__(self, run: Run, workers: Workers, tell: Tell) -> None:
        super().__init__(workers)
        self._run, self._tell = run, tell
        self._worker: WorkerProcess | None = None
        self._is_abandoned = False
        self.log = _log_of(run)

    def train(self) -> Outcome:
        """Train until the worker answers. Raises its failure; RunError for a repeated error or too many crashes.

        The folder of the run keeps a note of the error.
        """
        try:
            return self._train()
        except RayprobError as error:
            if not self._is_abandoned:
                with suppress(RayprobError):  # a folder that cannot be written to is perhaps the error itself
                    note_failure(self._run.run_folder, error)
            raise

    def _train(self) -> Outcome:
        failures, known = 0, ""
        while True:
            answer = self._attempt()
            if "outcome" in answer:
                return Outcome(**answer["outcome"])
            if "failure" in answer:
                raise as_error(answer["failure"])
            fault = answer.get("fault", "")
            if fault and fault == known:
                raise RunError(f"{repeated(fault)}\nthe traceback is in {self.log}; earlier checkpoints are kept")
            failures, known = failures + 1, fault
            self._require_restart(failures, reason := fault or _death(answer))
            self._tell({"kind": "restart", "number": failures, "of": self._run.placement.max_failures, "reason": reason})

    def waits_for(self) -> dict[str, Any]:
        """Return the path of the worker's log."""
        return {"log": self.log}

    def abandon(self) -> None:
        """Kill the worker."""
        self._is_abandoned = True
        if self._worker:
            self._worker.end()

    def _attempt(self) -> dict[str, Any]:
        worker = self._worker = take_worker()
        if self._is_abandoned:  # `abandon` was called before this worker existed
            worker.end()
            return {"died": -signal.SIGKILL, "said": ""}
        try:
            worker.give(
                {
                    "run": self._run.model_dump(mode="json"),
                    "plugin_folders": plugins.folders(),
                    "workers": asdict(self.workers),
                    "log": self.log,
                }
            )
            return worker.wait()
        finally:
            worker.end()

    def _require_restart(self, failures: int, reason: str) -> None:
        most = self._run.placement.max_failures
        if self._is_abandoned or 0 <= most < failures:
            raise RunError(
                f"the run failed, and {counted(most, 'restart')} did not help: {reason}\n"
                f"the worker's log is {self.log}; run the same command to resume from the last checkpoint"
            )


def _log_of(run: Run) -> str:
    """Return the local file for the worker's output: in the run's folder, or a temporary one for a remote run."""
    if storage.is_local(run.run_folder):
        return str(storage.local_path(RunFolder(run.run_folder).worker_log))
    descriptor, path = tempfile.mkstemp(prefix=f"rayprob-{run.name}-", suffix=".log")
    os.close(descriptor)
    return path


def _death(answer: dict[str, Any]) -> str:
    """Return how a worker without an answer ended."""
    if "frozen" in answer:
        return f"the worker showed no sign of life for {answer['frozen']:.0f} s"
    code = answer["died"]
    if code >= 0:
        last = answer["said"].strip().splitlines()[-1:]
        return f"the worker ended with exit code {code}{': ' if last else ''}{''.join(last)}"
    hint = "; the kernel does this when memory runs out" if -code == signal.SIGKILL else ""
    return f"the worker was killed by {_signal_name(-code)}{hint}"


def _signal_name(number: int) -> str:
    """Return the name of a signal; real-time signals have numbers only."""
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
