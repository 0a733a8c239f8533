"""The number of workers of a run and their resources: resolves every `auto` of its placement against what is available."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from rayprob.cluster import cluster_address
from rayprob.errors import RunError
from rayprob.runs.spec import Run
from rayprob.text import counted

log = logging.getLogger(__name__)
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Workers:
    """How many workers train, the resources of each, and the fewest with which an elastic run continues."""

    num_workers: int
    use_gpu: bool
    cpus_per_worker: int
    least: int | None = None


def place_workers(run: Run, resources: dict[str, float]) -> Workers:
    """Resolve every `auto` of the placement against `resources`. Raises RunError if they do not suffice."""
    spec = run.placement
    is_joined = cluster_address() is not None
    gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 0))
    if is_joined and gpus == 0 and spec.use_gpu is not False and spec.num_workers == "auto":
        raise RunError(
            f"the cluster has no GPU now ({cpus} CPUs), so auto cannot choose the number of workers; set it: "
            "--set placement.num_workers=N --set placement.use_gpu=true (or false)"
        )
    use_gpu = gpus > 0 if spec.use_gpu == "auto" else spec.use_gpu
    num_workers = (gpus if use_gpu else 1) if spec.most_workers == "auto" else spec.most_workers
    least = spec.num_workers[0] if isinstance(spec.num_workers, tuple) else None
    share = max(1, cpus // max(1, num_workers))
    # A GPU worker needs cores for its loader; a CPU worker computes with all its cores.
    wanted = min(share, 1 + run.stream.loader_workers) if use_gpu else share
    cpus_per_worker = wanted if spec.cpus_per_worker == "auto" else spec.cpus_per_worker
    kind, available = ("GPU", gpus) if use_gpu else ("CPU", cpus // cpus_per_worker)
    needed = least or num_workers
    if not 0 < needed <= available and not is_joined:
        raise RunError(
            f"placement asks for {counted(needed, 'worker')} with {counted(cpus_per_worker, 'CPU')}"
            f"{' and 1 GPU' if use_gpu else ''} each, but this Ray has {counted(cpus, 'CPU')} and {counted(gpus, 'GPU')}, "
            f"enough for {available}; lower placement.num_workers, or join a larger cluster through RAY_ADDRESS"
        )
    log.info("placing %s on %s", counted(num_workers, "worker"), kind)
    return Workers(num_workers, use_gpu, cpus_per_worker, least)


def resources_here() -> dict[str, float]:
    """Return the CPUs and GPUs of this machine as Ray would count them if it started here, without starting it."""
    return {"CPU": float(count_cpus()), "GPU": float(torch.cuda.device_count())}


def count_cpus(cgroup: Path = CGROUP) -> int:
    """Return the cores of this machine, or of the container: its CPU quota or its CPU set, whichever is smaller."""
    cores = os.cpu_count() or 1
    if os.environ.get("RAY_USE_MULTIPROCESSING_CPU_COUNT"):
        return cores
    limits = [limit for limit in (_quota(cgroup), _core_set(cgroup)) if limit]
    return int(min(limits)) if limits else cores


def _quota(cgroup: Path) -> float | None:
    """Return the CPU quota of a container in cores, from either version of cgroups; None without a limit."""
    old = [cgroup / "cpu" / name for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]
    try:
        if all(path.exists() for path in old):
            quota, period = (float(path.read_text()) for path in old)
        else:
            quota, period = map(float, (cgroup / "cpu.max").read_text().split())
    except (OSError, ValueError):  # "max": no limit
        return None
    return quota / period if quota > 0 else None


def _core_set(cgroup: Path) -> int | None:
    try:
        parts = (cgroup / "cpuset" / "cpuset.cpus").read_text().strip().split(",")
        ranges = [(int(first), int(last or first)) for first, _, last in (part.partition("-") for part in parts)]
    except (OSError, ValueError):
        return None
    return sum(last - first + 1 for first, last in ranges)
