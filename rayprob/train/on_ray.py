"""A run on Ray Train workers: join or start Ray, hand over the run, and report what ended it."""

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
from rayprob.runs.paths import RAYS_OWN
from rayprob.runs.spec import Run
from rayprob.text import counted
from rayprob.train.loop import Outcome
from rayprob.train.placing import Workers
from rayprob.train.training import Training

# Settings of Ray for a run; a user's own settings take precedence. The comments describe Ray 2.60:
RAY_SETTINGS = {
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # otherwise every line of a worker is printed twice
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",  # a report waits for a health check; the default is 2 s
    "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "30",  # Ray's default notices a frozen worker after ten minutes
    "TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S": "5",  # 30 s otherwise; only a lost worker makes it wait
    "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": "1800",  # without it, ranks wait forever for a hanging one
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
JOINED_SETTINGS = {
    # A cluster that adds nodes for a run needs minutes; Ray's default gives up after 60 s, ten times in ten minutes.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "1800",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "1",  # one more process, which warns a run that a node will be drained
}
# Ray waits this long for a lost node before it continues with the remaining ones.
ELASTIC_SETTINGS = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60"}
LOGS = "/tmp/ray/session_latest/logs/train"


@contextmanager
def ray_cluster(settings: Mapping[str, str] = MappingProxyType({}), **init: Any) -> Iterator[dict[str, float]]:
    """Join the cluster that RAY_ADDRESS or a submitted job names, or start one on this machine with the arguments `init`; yield
    its resources. `settings` take precedence over those of this module, and the user's over both.
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
        except BaseException as error:  # a note in the folder has more detail
            ended = error
        failure = value.get("failure") or folder.read_failure(self._run.run_folder)
        if failure:
            raise as_error(failure)
        if ended is not None:
            raise RunError(
                f"the run failed, and {counted(self._run.placement.max_failures, 'restart')} did not help: "
                f"{_root_cause(ended)}\nthe workers' logs are in {LOGS}; run the same command to resume from the last "
                "checkpoint"
            ) from ended
        return Outcome(**value["outcome"])

    def waits_for(self) -> dict[str, Any]:
        """Return the resources of the cluster, and whether others may use it too."""
        return {"resources": import_ray().cluster_resources(), "is_shared": cluster_address() is not None}

    def abandon(self) -> None:
        """Do nothing: Ray ends the workers when this process leaves the cluster."""


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
            name=RAYS_OWN,
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
