"""From a run file to Ray Train workers: start or join Ray, place the workers, follow the run, stop it on Ctrl-C."""

import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType, MappingProxyType
from typing import Any

from rayprob import errors, storage
from rayprob.data.build import import_ray, start_ray
from rayprob.data.manifest import Dataset
from rayprob.errors import RayprobError, RunError
from rayprob.train import folder
from rayprob.train.history import HistoryTail
from rayprob.train.loop import Outcome, finished_outcome
from rayprob.train.run import Run, absolute, check

log = logging.getLogger(__name__)

# How Ray should behave under a run; a user's own setting comes first. The reasons are those of Ray 2.60:
RAY_SETTINGS = {
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # else every line of a worker is printed twice
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",  # a report waits for a health check; the default is 2 s
    "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "30",  # a frozen worker is noticed after Ray's ten minutes otherwise
    "TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S": "5",  # 30 s otherwise, for which nobody but a worker that is lost makes it wait
    "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": "1800",  # without it, ranks wait for a hanging one for ever
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
JOINED_SETTINGS = {
    # A cluster that adds nodes for a run needs minutes for it; Ray's default of 60 s gives up ten times in as many.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "1800",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "1",  # one more process, which tells a run that a node will go
}
# For a while Ray counts on a node that is lost, and waits so long for it before it goes on with what is left.
ELASTIC_SETTINGS = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60"}

WAITING_S = 120.0  # after so long without a worker, its user is told
Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Workers:
    """How many Ray workers train, what each one holds, and with how few of them an elastic run goes on."""

    num_workers: int
    use_gpu: bool
    cpus_per_worker: int
    least: int | None = None


def launch(run: Run, tell: Tell = lambda event: None, fresh: bool = False) -> Outcome:
    """Train `run` on Ray and return how it ended; `tell` gets each row of its history, and what the driver has to say.

    SIGINT or SIGTERM asks the workers to save and stop; a second one abandons them. Raises RunError and its kin.
    """
    check_folder(run)
    run = absolute(run)
    dataset = Dataset.open(run.data.root)
    if fresh:
        folder.clear(run)
    claim = folder.claim(run, dataset)
    if claim.is_finished:
        tell({"kind": "finished", "step": claim.step, "folder": claim.folder})
        return finished_outcome(run)
    with ray_cluster(ELASTIC_SETTINGS if run.placement.is_elastic else {}) as resources:
        try:
            workers = place_workers(run, resources)
            check(run, dataset, workers.num_workers)
        except RayprobError:
            folder.let_go(claim)
            raise
        tell({"kind": "launch", "step": claim.step, "folder": claim.folder, **vars(workers)})
        with storage.patient(run.placement.storage_patience_s):
            return _follow(run, workers, HistoryTail(run.run_folder), tell)


@contextmanager
def ray_cluster(settings: Mapping[str, str] = MappingProxyType({}), **init: Any) -> Iterator[dict[str, float]]:
    """Join the cluster that RAY_ADDRESS or a submitted job names, or start one on this machine with the arguments `init`; yield
    its resources. `settings` come before those of this module, and what the user has set before both.
    """
    for name, value in {**RAY_SETTINGS, **(JOINED_SETTINGS if _is_joined() else {}), **settings}.items():
        os.environ.setdefault(name, value)
    ray = import_ray()
    started_here = not ray.is_initialized()
    if started_here:
        start_ray(**init)
    try:
        yield ray.cluster_resources()
    finally:
        if started_here:
            ray.shutdown()


def place_workers(run: Run, resources: dict[str, float]) -> Workers:
    """Resolve every `auto` of the placement against the cluster's resources. Raises RunError for more than there is."""
    spec = run.placement
    gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 0))
    if _is_joined() and gpus == 0 and spec.use_gpu == "auto" and spec.num_workers == "auto":
        raise RunError(
            f"the cluster has no GPU now ({cpus} CPUs), so auto cannot say how many workers to start; say it: "
            "--set placement.num_workers=N --set placement.use_gpu=true (or false)"
        )
    use_gpu = gpus > 0 if spec.use_gpu == "auto" else spec.use_gpu
    num_workers = (gpus if use_gpu else 1) if spec.most_workers == "auto" else spec.most_workers
    least = spec.num_workers[0] if isinstance(spec.num_workers, tuple) else None
    share = max(1, cpus // max(1, num_workers))
    # A GPU's worker needs cores for its loader; a CPU's worker computes with all that it gets.
    wanted = min(share, 1 + run.stream.loader_workers) if use_gpu else share
    cpus_per_worker = wanted if spec.cpus_per_worker == "auto" else spec.cpus_per_worker
    kind, available = ("GPU", gpus) if use_gpu else ("CPU", cpus // cpus_per_worker)
    needed = least or num_workers
    if not 0 < needed <= available and not _is_joined():
        raise RunError(
            f"placement asks for {needed} worker(s) with {cpus_per_worker} CPU(s)"
            f"{' and 1 GPU' if use_gpu else ''} each; this Ray has {cpus} CPU(s) and {gpus} GPU(s), "
            f"enough for {available}; lower placement.num_workers, or join a larger cluster through RAY_ADDRESS"
        )
    log.info("placing %d worker(s) on %s", num_workers, kind)
    return Workers(num_workers, use_gpu, cpus_per_worker, least)


class _Fit(threading.Thread):
    """`TorchTrainer.fit` in a thread, so that the main thread can follow the run and hear Ctrl-C."""

    def __init__(self, run: Run, workers: Workers) -> None:
        super().__init__(name="ray-train", daemon=True)
        self._run, self._workers = run, workers
        self.value: dict[str, Any] = {}
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.value = _trainer(self._run, self._workers).fit().return_value or {}
        except BaseException as error:  # carried to the main thread, whatever it is
            self.error = error


def _trainer(run: Run, workers: Workers) -> Any:
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from rayprob.train.worker import work

    placement = run.placement
    return TorchTrainer(
        work,
        train_loop_config={"run": run.model_dump(mode="json")},
        torch_config=TorchConfig(timeout_s=placement.collective_timeout_s),
        scaling_config=ScalingConfig(
            num_workers=workers.num_workers if workers.least is None else (workers.least, workers.num_workers),
            elastic_resize_monitor_interval_s=placement.resize_every_s,
            use_gpu=workers.use_gpu,
            resources_per_worker={"CPU": workers.cpus_per_worker, **({"GPU": 1} if workers.use_gpu else {})},
        ),
        run_config=RunConfig(
            name="ray",
            storage_path=run.run_folder,
            failure_config=FailureConfig(max_failures=placement.max_failures, controller_failure_limit=10),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )


def _follow(run: Run, workers: Workers, tail: HistoryTail, tell: Tell) -> Outcome:
    fitting, signals = _Fit(run, workers), 0

    def stop() -> None:
        # No more than this: a remote folder may be long in answering, and the next signal must not wait for it.
        nonlocal signals
        signals += 1
        if signals > 1:
            raise KeyboardInterrupt
        tell({"kind": "stopping"})

    with signals_call(stop):
        fitting.start()
        stop_is_noted, patient_until_s = False, time.monotonic() + WAITING_S
        while fitting.is_alive():
            fitting.join(timeout=0.3)
            if signals and not stop_is_noted:
                folder.ask_to_stop(run.run_folder)
                stop_is_noted = True
            for row in tail.new_rows():
                patient_until_s = math.inf
                tell(row)
            if time.monotonic() > patient_until_s:
                patient_until_s = math.inf
                tell({"kind": "waiting", **vars(workers), "resources": import_ray().cluster_resources()})
    for row in tail.new_rows():
        tell(row)
    return _outcome(run, fitting)


def _outcome(run: Run, fitting: _Fit) -> Outcome:
    failure = fitting.value.get("failure") or folder.read_failure(run.run_folder)
    if failure:
        kind = getattr(errors, failure["kind"], RunError)
        is_ours = isinstance(kind, type) and issubclass(kind, RayprobError)
        raise (kind if is_ours else RunError)(failure["message"])
    if fitting.error is not None:
        logs = "/tmp/ray/session_latest/logs/train"
        raise RunError(
            f"the run failed and its {run.placement.max_failures} restart(s) did not help: {_root_cause(fitting.error)}\n"
            f"the workers' logs are in {logs}; the same command goes on from the last checkpoint"
        ) from fitting.error
    return Outcome(**fitting.value["outcome"])


def _root_cause(error: BaseException) -> str:
    failures = getattr(error, "worker_failures", None) or {}
    first = next(iter(failures.values()), error)
    lines = [line for line in str(first).strip().splitlines() if line.strip()]
    return f"{type(first).__name__}: {lines[-1].strip() if lines else 'no message'}"


@contextmanager
def signals_call(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` at SIGINT and SIGTERM instead of what they do; in the main thread only, for no other gets signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        stop()

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def check_folder(run: Run) -> None:
    """Refuse a relative folder inside a submitted job. Raises RunError."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        require_absolute_folder(run)


def require_absolute_folder(run: Run) -> None:
    """Refuse a relative folder: in a job it would lie in Ray's copy of the working directory, on one node. Raises RunError."""
    if storage.is_local(run.run_folder) and not storage.local_path(run.run_folder).is_absolute():
        raise RunError(
            f"folder {run.run_folder} is relative, and a job runs in a copy that is thrown away; set a path that every node "
            "sees, or a URI: --set folder=/mnt/shared/runs/" + run.name
        )


def _is_joined() -> bool:
    """Return whether the cluster is one that we join, which may grow, and not one of our own on this machine."""
    return "RAY_ADDRESS" in os.environ
