"""`rayprob tune`: claim the sweep's folder, read its ledger, train what is left, confirm the best, write the results."""

import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Annotated, Any

from pydantic import Field

from rayprob import __version__
from rayprob.cluster import require_cluster
from rayprob.config.spec import differing_keys
from rayprob.data.joined.dataset import AnyDataset
from rayprob.errors import RunError
from rayprob.files import storage
from rayprob.files.documents import Shape, read_json
from rayprob.runs.paths import SweepFolder
from rayprob.runs.rules import check
from rayprob.runs.spec import Run, absolute, identity
from rayprob.signals import signals_call
from rayprob.sweep.ledger import Ledger
from rayprob.sweep.results import summarise, write_results
from rayprob.sweep.search import Sweep
from rayprob.sweep.study import Study, Trial
from rayprob.text import counted
from rayprob.train.assess import assess
from rayprob.train.launch import check_folder
from rayprob.train.on_ray import ray_cluster
from rayprob.train.training import Tell

if TYPE_CHECKING:
    from rayprob.sweep.trials import Room

log = logging.getLogger(__name__)

# Keys of `search` that may change between two starts of a sweep: they only add trials or change their placement.
FREE_SEARCH_KEYS = ("trials", "confirm", "max_concurrent")
POLL_S = 0.3
LOCK_ATTEMPTS, LOCK_RETRY_S = 10, 0.05
OVER = "start the sweep over with --fresh, or set another folder"


class _Numbers(Shape):
    mAP: float
    OF1: float


class _OnVal(Shape):
    best: _Numbers
    default: _Numbers | None = None


class _Known(Shape):
    """What a finished sweep reads from its summary."""

    elapsed_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    val: _OnVal | None = None


@dataclass(frozen=True, repr=False)
class Swept:
    """How a sweep ended: whether it is finished, and its summary, as in summary.json."""

    folder: str
    is_finished: bool
    summary: dict[str, Any]

    def __repr__(self) -> str:
        trials, best = self.summary["trials"], self.summary["best"]
        state = "finished" if self.is_finished else "stopped"
        return f"{self.folder}: {state}, {len(trials):,} trials, {'no best yet' if best is None else f'best trial {best}'}"


def run_sweep(sweep: Sweep, tell: Tell = lambda event: None, fresh: bool = False) -> Swept:
    """Train the remaining trials of a sweep, and return the results of all of them.

    `tell` gets events of kinds launch, trial, result, end, stopping and val, and of kinds waiting and notice for trials
    of several workers. SIGINT or SIGTERM saves and stops. Raises RayprobError.
    """
    check_folder(sweep.run.model_copy(update={"folder": sweep.folder}))
    sweep = sweep.model_copy(update={"run": absolute(sweep.run.model_copy(update={"folder": sweep.folder}))})
    if not fresh:
        sweep = on_its_dataset(sweep)
    dataset = sweep.run.data.open()
    if sweep.run.evaluation.split == "val":
        log.warning("trials are chosen on val, so its numbers will be optimistic and no split is left to report on")
    if fresh or not storage.exists(SweepFolder(sweep.folder).identity_file):
        require_cluster()
    if fresh:
        clear(sweep)
    claim(sweep, dataset)
    with alone_in(sweep.folder):
        return _sweep(sweep, dataset, tell)


def _sweep(sweep: Sweep, dataset: AnyDataset, tell: Tell) -> Swept:
    study = Study(sweep, Ledger(sweep.folder))
    started_at_s = time.monotonic()
    known = {} if study.is_open() else _known(sweep)
    finished = True
    if study.is_open():
        with ray_cluster(include_dashboard=True) as resources:
            # Imported only here: when Ray is first imported, it reads settings that ray_cluster makes.
            from rayprob.sweep.trials import room_for

            room = room_for(sweep.run, resources, sweep.search.max_concurrent)
            check(placed(sweep.trial_run(0, {}), room), dataset, room.workers.num_workers)
            tell({"kind": "launch", "study": study, "room": room, "folder": sweep.folder})
            finished = _train(sweep, study, room, tell)
    elapsed_s = _known(sweep).get("elapsed_s", 0.0) + time.monotonic() - started_at_s
    val = (known.get("val") or _on_val(sweep, study, dataset, tell)) if finished else None
    summary = summarise(sweep, study, val, elapsed_s)
    write_results(sweep, study, summary)
    return Swept(sweep.folder, finished, summary)


def placed(run: Run, room: "Room") -> Run:
    """Return the run with its placement resolved to numbers, so that it computes the same on any machine."""
    workers = room.workers
    update = {"num_workers": workers.num_workers, "use_gpu": workers.use_gpu, "cpus_per_worker": workers.cpus_per_worker}
    return run.model_copy(update={"placement": run.placement.model_copy(update=update)})


def on_its_dataset(sweep: Sweep) -> Sweep:
    """Return the sweep on the version of its dataset that its folder records, if the dataset has grown since."""
    uri, run = SweepFolder(sweep.folder).identity_file, sweep.run
    known = read_json(uri, error=RunError, remedy=OVER) if storage.exists(uri) else {}
    data = run.data.at(known.get("dataset_fingerprint"))
    return sweep.model_copy(update={"run": run.model_copy(update={"data": data})})


def claim(sweep: Sweep, dataset: AnyDataset) -> None:
    """Claim the folder for this sweep, or confirm that it already is. Raises RunError if it belongs to another sweep."""
    folder, facts = sweep.folder, _identity(sweep, dataset)
    uri = SweepFolder(folder).identity_file
    if storage.exists(uri):
        known = {key: value for key, value in read_json(uri, error=RunError, remedy=OVER).items() if key != "rayprob"}
        changed = differing_keys(known, facts)
        if changed:
            listed = "\n".join(f"  {line}" for line in changed)
            raise RunError(
                f"{folder} contains another sweep of this name, which differs in {counted(len(changed), 'key')}:\n{listed}\n"
                "set another name (--set name=...), undo the changes, or start over with --fresh, which removes that sweep"
            )
    elif storage.list_names(folder):
        raise RunError(f"{folder} is not empty and is not a sweep folder; set another name or folder, or empty this one")
    storage.write_text(SweepFolder(folder).sweep_file, sweep.to_yaml())
    # A later version may continue the sweep, so the version is recorded but not compared.
    storage.write_text(uri, json.dumps({**facts, "rayprob": __version__}, indent=1))


@contextmanager
def alone_in(folder: str) -> Iterator[None]:
    """Lock a local folder for this process. Raises RunError if another process of this machine holds the lock."""
    if not storage.is_local(folder):
        yield
        return
    with open(storage.local_path(SweepFolder(folder).lock), "a+") as lock:
        if not _locked(lock):
            lock.seek(0)
            raise RunError(
                f"{folder} is in use by process {lock.read().strip() or '?'} on this machine; wait for it, or stop it "
                "with Ctrl-C and run this command again"
            )
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _locked(lock: IO[str]) -> bool:
    """Lock a file until the process ends, however it ends, and return whether no other process has it.

    `rayprob runs` holds it for an instant, to see whether it is free.
    """
    for _ in range(LOCK_ATTEMPTS):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            time.sleep(LOCK_RETRY_S)
    return False


def clear(sweep: Sweep) -> None:
    """Remove a sweep's folder with all of its trials. Raises RunError if it is not a sweep folder, or is remote."""
    clear_folder(sweep.folder, SweepFolder(sweep.folder).identity_file, "sweeps")


def clear_folder(folder: str, identity_file: str, of: str) -> None:
    """Remove a folder, which its identity file shows to be one of sweeps or systems (`of`).

    Raises RunError if it is another folder, is remote, or is used by another process.
    """
    if storage.is_local(folder) and not storage.list_names(folder):
        return
    if not storage.is_local(folder) or not storage.exists(identity_file):
        raise RunError(
            f"--fresh removes local folders of {of} only, and {folder} is not one; remove it yourself, or set another"
        )
    with alone_in(folder):
        pass  # no process uses it
    storage.remove_folder(folder)


def _identity(sweep: Sweep, dataset: AnyDataset) -> dict[str, Any]:
    search = sweep.search.model_dump(mode="json", exclude=set(FREE_SEARCH_KEYS))
    run = {key: value for key, value in identity(sweep.run).items() if key != "name"}
    return {"run": run, "search": search, "dataset_fingerprint": dataset.fingerprint}


def _train(sweep: Sweep, study: Study, room: "Room", tell: Tell) -> bool:
    """Run trials until all are done or the sweep is stopped; return whether all are done."""
    from rayprob.sweep.trials import Director, TrialsThread, error_of

    def make_run(trial: Trial) -> Run:
        return placed(absolute(sweep.trial_run(trial.number, trial.params, trial.seed)), room)

    director = Director(study, make_run, tell)
    thread = TrialsThread(
        director,
        room,
        sweep.search.metric,
        sweep_folder=sweep.folder,
        restarts=sweep.run.placement.max_failures,
    )

    def stop() -> None:
        if director.is_stopping:
            raise KeyboardInterrupt
        director.is_stopping = True
        tell({"kind": "stopping"})

    with signals_call(stop):
        thread.start()
        while thread.is_alive():
            thread.join(timeout=POLL_S)
            tell({"kind": "tick"})
            if director.is_stopping:
                director.stop()
    error = error_of(thread)
    if error is not None:
        raise error
    return not director.is_stopping


def _on_val(sweep: Sweep, study: Study, dataset: AnyDataset, tell: Tell) -> dict[str, Any] | None:
    """Evaluate only the winner on val; None if there is no val or no winner."""
    best = study.best()
    if best is None or "val" not in dataset.splits:
        return None
    tell({"kind": "val", "trial": best})
    assessment = assess(SweepFolder(sweep.folder).trial(best.number), "val", lambda done, total: None)
    at_half = assessment.at_half.to_dict()
    return {"best": {key: float(value) for key, value in at_half.items()}, "default": None}


def _known(sweep: Sweep) -> dict[str, Any]:
    """Return the summary that an earlier start of the sweep wrote, or an empty one."""
    uri = SweepFolder(sweep.folder).summary
    remedy = "remove the file, and the same command writes it again"
    return read_json(uri, _Known, error=RunError, remedy=remedy) if storage.exists(uri) else {}
