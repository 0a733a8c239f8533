"""A run on Ray Train workers: join or start Ray, hand the run over, and say what ended it."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

from rayprob import plugins
from rayprob.cluster import cluster_address, import_ray, is_running, start_ray
from rayprob.errors import RunError, as_error
from rayprob.files.uris import canonical
from rayprob.runs import folder
from rayprob.runs.spec import Run
from rayprob.train.loop import Outcome
from rayprob.train.placing import Workers
from rayprob.train.training import Training

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
LOGS = "/tmp/ray/session_latest/logs/train"


@contextmanager
def ray_cluster(settings: Mapping[str, str] = MappingProxyType({}), **init: Any) -> Iterator[dict[str, float]]:
    """Join the cluster that RAY_ADDRESS or a submitted job names, or start one on this machine with the arguments `init`; yield
    its resources. `settings` come before those of this module, and what the user has set before both.
    """
    joined = JOINED_SETTINGS if cluster_address() else {}
    for name, value in {**RAY_SETTINGS, **joined, **settings}.items():
        os.environ.setdefault(name, value)
    started_here = not is_running()
    if started_here:
        start_ray(**init)
    ray = import_ray()
    try:
        yield ray.cluster_resources()
    finally:
        if started_here:
            ray.shutdown()


class RayTraining(Training):
    """`TorchTrainer.fit` in a thread."""

    def __init__(self, run: Run, workers: Workers) -> None:
        super().__init__(workers)
        self._run = run

    def train(self) -> Outcome:
        """Train on Ray. Raises the failure that a worker noted, or what ended Ray Train."""
        value: dict[str, Any] = {}
        ended: BaseException | None = None
        try:
            value = _trainer(self._run, self.workers).fit().return_value or {}
        except BaseException as error:  # a note in the folder says more
            ended = error
        failure = value.get("failure") or folder.read_failure(self._run.run_folder)
        if failure:
            raise as_error(failure)
        if ended is not None:
            raise RunError(
                f"the run failed and its {self._run.placement.max_failures} restart(s) did not help: {_root_cause(ended)}\n"
                f"the workers' logs are in {LOGS}; the same command resumes from the last checkpoint"
            ) from ended
        return Outcome(**value["outcome"])

    def waits_for(self) -> dict[str, Any]:
        """Return the resources of the cluster."""
        return {"resources": import_ray().cluster_resources()}

    def abandon(self) -> None:
        """Leave the workers to Ray, which ends them with this process's part in the cluster."""


def _trainer(run: Run, workers: Workers) -> Any:
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from rayprob.train.worker import work

    placement = run.placement
    return TorchTrainer(
        work,
        train_loop_config={"run": run.model_dump(mode="json"), "plugin_folders": plugins.folders()},
        torch_config=TorchConfig(timeout_s=placement.collective_timeout_s),
        scaling_config=ScalingConfig(
            num_workers=workers.num_workers if workers.least is None else (workers.least, workers.num_workers),
            elastic_resize_monitor_interval_s=placement.resize_every_s,
            use_gpu=workers.use_gpu,
            resources_per_worker={"CPU": workers.cpus_per_worker, **({"GPU": 1} if workers.use_gpu else {})},
        ),
        run_config=RunConfig(
            name="ray",
            storage_path=canonical(run.run_folder),
            failure_config=FailureConfig(max_failures=placement.max_failures, controller_failure_limit=10),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )


def _root_cause(error: BaseException) -> str:
    failures = getattr(error, "worker_failures", None) or {}
    first = next(iter(failures.values()), error)
    lines = [line for line in str(first).strip().splitlines() if line.strip()]
    return f"{type(first).__name__}: {lines[-1].strip() if lines else 'no message'}"
