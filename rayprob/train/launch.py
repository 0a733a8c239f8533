"""From a run file to the processes that train it: claim the folder, place the workers, follow the run, stop it on Ctrl-C.

One worker on this machine is a process of its own (`here.py`); everything else is Ray's (`on_ray.py`).
"""

import math
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from rayprob.cluster import require_cluster
from rayprob.errors import RunError
from rayprob.files import patience, storage
from rayprob.runs import folder
from rayprob.runs.history import HistoryTail
from rayprob.runs.rules import check
from rayprob.runs.spec import Run, absolute
from rayprob.signals import signals_call
from rayprob.train.here import TrainingHere
from rayprob.train.loop import Outcome, finished_outcome
from rayprob.train.on_ray import ELASTIC_SETTINGS, RayTraining, ray_cluster
from rayprob.train.placing import place_workers, resources_here
from rayprob.train.ready import drop_worker, needs_no_ray, worker_ready
from rayprob.train.training import Tell, Training

WAITING_S = 120.0  # after this long without a worker, a message tells the user


def launch(run: Run, tell: Tell = lambda event: None, fresh: bool = False) -> Outcome:
    """Train `run` and return how it ended; `tell` gets each row of its history, and events of the driver.

    SIGINT or SIGTERM asks the workers to save and stop; a second one abandons them. A run that cannot start, or that a signal
    ends before it starts, does not keep its folder claimed. Raises RunError and related errors.
    """
    check_folder(run)
    run = absolute(run)
    with worker_ready(run.placement.num_workers), signals_call(_interrupt):
        dataset = (run.data if fresh else folder.recorded_data(run)).open()
        if fresh or not folder.is_claimed(run.run_folder):
            require_cluster()
        if fresh:
            folder.clear(run)
        claim = folder.claim(run, dataset)
        if claim.is_finished:
            tell({"kind": "finished", "step": claim.step, "folder": claim.folder})
            return finished_outcome(run)
        with ExitStack() as stack:
            with folder.kept_once_started(claim):
                training = stack.enter_context(_placed(run, tell))
                check(run, dataset, training.workers.num_workers)
            tell({"kind": "launch", "step": claim.step, "folder": claim.folder, **vars(training.workers)})
            stack.enter_context(patience.patient(run.placement.storage_patience_s))
            return _follow(run, training, HistoryTail(run.run_folder), tell)


def _interrupt() -> None:
    """Stop before the run starts, so that its folder is released: SIGTERM would otherwise end the process at once."""
    raise KeyboardInterrupt


@contextmanager
def _placed(run: Run, tell: Tell) -> Iterator[Training]:
    """Yield the run's training with its workers placed but not yet started; end any remaining workers afterwards."""
    if needs_no_ray(run.placement.num_workers):
        workers = place_workers(run, resources_here())
        if workers.num_workers == 1:
            training = TrainingHere(run, workers, tell)
            try:
                yield training
            finally:
                training.abandon()
            return
    drop_worker()
    with ray_cluster(ELASTIC_SETTINGS if run.placement.is_elastic else {}) as resources:
        yield RayTraining(run, place_workers(run, resources))


def _follow(run: Run, training: Training, tail: HistoryTail, tell: Tell) -> Outcome:
    signals = 0

    def stop() -> None:
        # Nothing else here: a remote folder may be slow, and the next signal must not wait for it.
        nonlocal signals
        signals += 1
        if signals > 1:
            raise KeyboardInterrupt
        tell({"kind": "stopping"})

    with signals_call(stop):
        training.start()
        stop_is_noted, patient_until_s = False, time.monotonic() + WAITING_S
        while training.is_alive():
            training.join(timeout=0.3)
            if signals and not stop_is_noted:
                folder.ask_to_stop(run.run_folder)
                stop_is_noted = True
            for row in tail.new_rows():
                patient_until_s = math.inf
                tell(row)
            if time.monotonic() > patient_until_s:
                patient_until_s = math.inf
                tell({"kind": "waiting", **vars(training.workers), **training.waits_for()})
    for row in tail.new_rows():
        tell(row)
    return training.outcome()


def check_folder(run: Run) -> None:
    """Refuse a relative folder inside a submitted job. Raises RunError."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        require_absolute_folder(run)


def require_absolute_folder(run: Run) -> None:
    """Refuse a relative folder: in a job it would be in Ray's copy of the working directory, on one node. Raises RunError."""
    if storage.is_local(run.run_folder) and not storage.local_path(run.run_folder).is_absolute():
        raise RunError(
            f"folder {run.run_folder} is relative, but a job runs in a temporary copy of the working folder; set a path that "
            "every node sees, or a URI: --set folder=/mnt/shared/runs/" + run.name
        )
