"""Ray Tune places and runs the trials of a sweep, restarts those whose process died, and passes on their reports.

The study decides what is tried and what is stopped. Tune's own searchers, schedulers and restore are deliberately not used:
they are pickled at intervals, so a killed driver loses what came after the last pickle; a ledger loses nothing.
"""

import json
import os
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from rayprob import plugins
from rayprob.cluster import told_when_long
from rayprob.errors import RayprobError, RunError
from rayprob.files import storage
from rayprob.files.uris import canonical
from rayprob.runs import folder
from rayprob.runs.history_rows import read_history
from rayprob.runs.paths import TUNES_OWN, SweepFolder
from rayprob.runs.spec import Run, received
from rayprob.sweep.study import DONE, WAIT, Study, Trial
from rayprob.sweep.work import as_report, costs, train_here, train_trial
from rayprob.text import counted
from rayprob.train.faults import fault_text, last_frame, repeated
from rayprob.train.launch import launch
from rayprob.train.loop import Outcome
from rayprob.train.on_ray import RAY_SETTINGS
from rayprob.train.placing import Workers
from rayprob.train.training import Tell

TUNE_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # trials write their own histories, which survive restarts
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output prints its banner at any verbosity
}
MakeRun = Callable[[Trial], Run]


@dataclass(frozen=True)
class Room:
    """The resources of each trial, and how many trials run at a time."""

    workers: Workers
    max_concurrent: int

    @property
    def needs(self) -> str:
        """The resources a trial needs, as text."""
        each = f"{counted(self.workers.cpus_per_worker, 'CPU')}{' and 1 GPU' if self.workers.use_gpu else ''}"
        return each if self.workers.num_workers == 1 else f"{self.workers.num_workers} workers with {each} each"


class Director(Searcher):  # type: ignore[misc]
    """Tune's searcher: starts the study's trials, reports their results to it, and asks unpromising trials to stop.

    A trial is stopped by a note in its folder: it saves after its current step, so no process is killed, no placement
    group leaks, and `rayprob train` on its run file continues from there.
    """

    def __init__(self, study: Study, make_run: MakeRun, tell: Tell) -> None:
        super().__init__()
        self._study, self._make_run, self._tell = study, make_run, tell
        self._runs: dict[str, tuple[Trial, Run]] = {}
        self._lock = threading.Lock()
        self.is_stopping = False

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the run of the next trial, None to ask again later, or FINISHED."""
        with self._lock:
            while isinstance(chosen := DONE if self.is_stopping else self._study.next(), Trial):
                try:
                    run = self._make_run(chosen)
                except RayprobError as error:  # incompatible parameters fail their trial, not the sweep
                    self._study.end(chosen.number, "failed", f"{type(error).__name__}: {error}")
                    self._tell({"kind": "end", "trial": chosen})
                    continue
                self._runs[trial_id] = (chosen, run)
                self._tell({"kind": "trial", "trial": chosen})
                return {"number": chosen.number, "run": run.model_dump(mode="json")}
            return None if chosen == WAIT else str(Searcher.FINISHED)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Record an evaluation, ask the trial to stop if it is pruned, and pass on its other messages."""
        with self._lock:
            trial, run = self._runs[trial_id]
            if "event" in result:
                self._tell({**json.loads(result["event"]), "trial": trial})
            if "epoch" not in result:
                return
            # Tune flattens the trial's report.
            values = {name: result[f"values/{name}"] for name in self._study.metrics}
            goes_on = self._study.result(trial.number, result["epoch"], values)
            if not goes_on:
                folder.ask_to_stop(run.run_folder)
            self._tell({"kind": "result", "trial": trial})

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Record how a trial ended; a trial that was stopped from outside has not ended yet."""
        with self._lock:
            trial, run = self._runs.pop(trial_id)
            if error:
                self._study.end(trial.number, "failed", _why(run))
            elif result and result.get("reason"):
                self._study.end(trial.number, "failed", result["reason"])
            elif result and result.get("ending") == "stopped":
                if trial.is_to_stop:
                    self._study.end(trial.number, "pruned")
            elif result:
                self._study.end(trial.number, "finished")
            self._tell({"kind": "end", "trial": trial})

    def stop(self) -> None:
        """Start no more trials, and ask the running ones to save and stop."""
        with self._lock:
            self.is_stopping = True
            for _, run in self._runs.values():
                # A trial that has just started would remove an earlier note.
                if folder.is_claimed(run.run_folder) and not folder.stop_is_asked(run.run_folder):
                    folder.ask_to_stop(run.run_folder)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its searcher to restore it; a sweep resumes from its ledger

    def save(self, checkpoint_path: str) -> None:
        """Write nothing: a sweep resumes from its ledger."""

    def restore(self, checkpoint_path: str) -> None:
        """Read nothing: a sweep resumes from its ledger."""


def _why(run: Run) -> str:
    """Return why a trial did not finish."""
    fault = folder.known_fault(run.run_folder, rank=0).get("fault")
    if fault:
        return f"it failed more often than placement.max_failures allows: {fault}"
    return "its process died, and its restarts died too; its log is under /tmp/ray"


class _Started(tune.Callback):  # type: ignore[misc]
    """Ends the wait for the first trial once Tune has started one."""

    def __init__(self, waiting: ExitStack) -> None:
        self._waiting = waiting

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._waiting.close()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks to restore them


class TrialsThread(threading.Thread):
    """Tune in its own thread, so that the main thread can show the sweep and handle Ctrl-C."""

    def __init__(self, director: Director, room: Room, metrics: tuple[str, ...], *, sweep_folder: str, restarts: int) -> None:
        super().__init__(name="ray-tune", daemon=True)
        self._director, self._room, self._metrics = director, room, metrics
        self._sweep_folder, self._restarts = sweep_folder, restarts
        self.error: BaseException | None = None

    def run(self) -> None:
        # Tune's own files are only for restoring it; the ledger does that here.
        tunes_own = SweepFolder(self._sweep_folder).tunes_own
        try:
            storage.remove_folder(tunes_own)
            with ExitStack() as waiting:
                what = f"the first trial: it needs {self._room.needs}; `ray status` shows what is free"
                waiting.enter_context(told_when_long(what))
                self._tuner(_Started(waiting)).fit()
            storage.remove_folder(tunes_own)
        except BaseException as error:  # any error is raised again in the main thread
            self.error = error

    def _tuner(self, started: _Started) -> Any:
        for name, value in TUNE_SETTINGS.items():
            os.environ.setdefault(name, value)
        metrics = self._metrics

        plugin_folders = plugins.folders()

        def trial(config: dict[str, Any]) -> None:
            plugins.look_in(plugin_folders)
            work(config, metrics)

        return tune.Tuner(
            tune.with_resources(trial, self._resources()),
            tune_config=tune.TuneConfig(
                search_alg=self._director,
                num_samples=-1,
                max_concurrent_trials=self._room.max_concurrent,
                reuse_actors=True,
                trial_name_creator=_name,
                trial_dirname_creator=_name,
            ),
            run_config=tune.RunConfig(
                name=TUNES_OWN,
                storage_path=canonical(self._sweep_folder),
                failure_config=tune.FailureConfig(max_failures=self._restarts),
                callbacks=[started],
                verbose=0,
            ),
        )

    def _resources(self) -> dict[str, float]:
        workers = self._room.workers
        if workers.num_workers > 1:
            # The trial itself only waits for its workers, so it needs no CPU and stays on the head node.
            return {"node:__internal_head__": 0.001}
        return {"cpu": workers.cpus_per_worker, **({"gpu": 1} if workers.use_gpu else {})}


def _name(trial: Any) -> str:
    return f"{trial.config['number']:03d}"


def work(config: dict[str, Any], metrics: tuple[str, ...]) -> None:
    """Train the run of one trial and report each evaluation, then how it ended, to Tune. Runs in a Tune actor.

    An error that is not a RayprobError is raised, so that Tune restarts the trial; if it occurs again, the trial has failed.
    """
    try:
        run = received(config["run"])
    except RayprobError as error:
        tune.report({"reason": f"{type(error).__name__}: {error}"})
        return
    train = train_here if run.placement.num_workers == 1 else partial(_train_on_ray, say=_say)
    known = folder.known_fault(run.run_folder, rank=0).get("fault")  # read first: training clears it when it starts

    def report(numbers: dict[str, Any]) -> None:
        known = {**costs(read_history(run.run_folder), run.stream.global_batch), **numbers}
        tune.report({"epoch": numbers["epoch"], "values": {name: known[name] for name in metrics}})

    try:
        outcome = train_trial(run, train, report)
    except RayprobError as error:
        tune.report({"reason": f"{type(error).__name__}: {error}"})
        return
    except Exception as error:
        traceback.print_exc()
        fault = fault_text(error)
        if fault != known:
            folder.note_fault(run.run_folder, rank=0, attempt="", fault=fault)
            raise
        tune.report({"reason": f"{repeated(fault)} ({last_frame(error)})"})
        return
    tune.report({"ending": outcome.ending})


def _say(event: dict[str, Any]) -> None:
    tune.report({"event": json.dumps(event)})  # as text, because Tune flattens dictionaries


def _train_on_ray(run: Run, report: Callable[[dict[str, Any]], None], say: Tell) -> Outcome:
    """Train a run of several workers under Ray Train, from within a trial; `say` passes on events for the user."""
    for name, value in RAY_SETTINGS.items():
        os.environ.setdefault(name, value)
    steps_per_epoch = 1

    def tell(event: dict[str, Any]) -> None:
        nonlocal steps_per_epoch
        if event["kind"] == "start":
            steps_per_epoch = event["steps_per_epoch"]
        elif event["kind"] == "evaluation":
            report(as_report(event, steps_per_epoch))
        elif event["kind"] in ("waiting", "notice"):
            say(event)

    return launch(run, tell)


def room_for(run: Run, resources: Mapping[str, float], max_concurrent: int | str) -> Room:
    """Return a trial's resources and how many trials fit. Raises RunError if the cluster is too small for one.

    By default a trial has one worker. With GPUs as many trials run as fit; with CPUs at most four, which share the cores.
    """
    placement = run.placement
    gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 0))
    use_gpu = gpus > 0 if placement.use_gpu == "auto" else placement.use_gpu
    num_workers = 1 if placement.most_workers == "auto" else placement.most_workers
    if use_gpu and num_workers > gpus:
        raise RunError(
            f"a trial takes {counted(num_workers, 'GPU')}, one per worker (placement.num_workers), and this cluster has "
            f"{gpus}; lower placement.num_workers, or join a larger cluster through RAY_ADDRESS"
        )
    fitting = gpus // num_workers if use_gpu else min(4, cpus // num_workers)
    if max_concurrent == "auto":
        concurrent = max(1, fitting)
    else:
        concurrent = min(int(max_concurrent), max(1, gpus // num_workers)) if use_gpu else int(max_concurrent)
    share = max(1, cpus // (num_workers * concurrent))
    wanted = min(share, 1 + run.stream.loader_workers) if use_gpu else share
    each = wanted if placement.cpus_per_worker == "auto" else placement.cpus_per_worker
    if each * num_workers > cpus:
        raise RunError(
            f"a trial takes {counted(each * num_workers, 'CPU')}, {each} for each of {counted(num_workers, 'worker')}, and "
            f"this cluster has {cpus}; lower placement.num_workers or placement.cpus_per_worker"
        )
    return Room(Workers(num_workers, use_gpu, each), max(1, min(concurrent, cpus // (each * num_workers))))


def error_of(thread: TrialsThread) -> RayprobError | None:
    """Return the error that ended Tune before the sweep was over, as an error for the user."""
    if thread.error is None:
        return None
    if isinstance(thread.error, RayprobError):
        return thread.error
    text = str(thread.error).strip().splitlines() or ["no message"]
    return RunError(f"Ray Tune failed: {type(thread.error).__name__}: {text[-1]}; the same command continues")
