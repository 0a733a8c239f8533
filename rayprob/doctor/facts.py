"""The facts of one node: versions, GPUs, memory, limits, and the disk of its shard cache. Leaves nothing changed."""

import csv
import hashlib
import importlib.metadata
import os
import platform
import resource
import shutil
import socket
import subprocess
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from rayprob import __version__
from rayprob.files import storage

SHM = "/dev/shm"
DISK_PROBE_BYTES = 64 * 2**20
CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
    ),
)


@dataclass(frozen=True)
class Versions:
    """Versions that must match on all nodes; `code` is a fingerprint of the package's files, `cuda` torch's CUDA version."""

    python: str
    ray: str
    torch: str
    rayprob: str
    code: str
    cuda: str | None = None
    driver: str | None = None


@dataclass(frozen=True)
class Disk:
    """The disk of the shard cache; `error` is why it could not be written, or ""."""

    folder: str
    free_bytes: int = 0
    write_bytes_per_s: float = 0.0
    error: str = ""


@dataclass(frozen=True)
class NodeFacts:
    """One node: `gpus` are the names that the driver lists, `torch_gpus` the number that torch can use."""

    host: str
    versions: Versions
    gpus: tuple[str, ...]
    torch_gpus: int
    memory_bytes: int
    shm_bytes: int
    open_files: int
    cache: Disk


def gather(cache_folder: str) -> NodeFacts:
    """Return the facts of this machine; `cache_folder` is the location of its shard cache."""
    import torch

    driver, gpus = read_gpus()
    return NodeFacts(
        host=socket.gethostname(),
        versions=Versions(
            python=platform.python_version(),
            ray=_installed("ray"),
            torch=torch.__version__,
            rayprob=__version__,
            code=code_fingerprint(Path(__file__).parents[1]),
            cuda=torch.version.cuda,
            driver=driver,
        ),
        gpus=gpus,
        torch_gpus=torch.cuda.device_count(),
        memory_bytes=available_memory_bytes(),
        shm_bytes=shutil.disk_usage(SHM).free if os.path.isdir(SHM) else 0,
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        cache=measure_disk(cache_folder, DISK_PROBE_BYTES),
    )


def read_gpus() -> tuple[str | None, tuple[str, ...]]:
    """Return the version of NVIDIA's driver and the names of the GPUs that it lists; None without a driver."""
    query = ["nvidia-smi", "--query-gpu=driver_version,name", "--format=csv,noheader"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None, ()
    rows = [[cell.strip() for cell in row] for row in csv.reader(listed.splitlines()) if len(row) == 2]
    return (rows[0][0] if rows else None), tuple(name for _, name in rows)


def code_fingerprint(package: Path) -> str:
    """Return 8 hex digits that change with any source file of a package, because two checkouts of one version may differ."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:8]


def available_memory_bytes(meminfo: str = "/proc/meminfo", cgroups: tuple[tuple[str, str, str], ...] = CGROUPS) -> int:
    """Return the bytes available to new processes: the machine's, or the rest of the container's limit."""
    kib = {name: int(rest.split()[0]) for name, _, rest in _split_lines(meminfo, ":")}
    return min(kib["MemAvailable"] * 1024, *(_left_in_cgroup(*paths) for paths in cgroups), 2**62)


def _left_in_cgroup(limit: str, usage: str, stat: str) -> int:
    try:
        allowed, used = (Path(path).read_text().strip() for path in (limit, usage))
        droppable = {name: int(rest) for name, _, rest in _split_lines(stat, " ")}.get("inactive_file", 0)
    except OSError:
        return 2**62
    return 2**62 if allowed == "max" else int(allowed) - int(used) + droppable


def _split_lines(path: str, by: str) -> list[tuple[str, str, str]]:
    return [line.partition(by) for line in Path(path).read_text().splitlines()]


def measure_disk(folder: str, size_bytes: int) -> Disk:
    """Write `size_bytes` to disk in a folder (created if missing), and remove them again."""
    path = storage.local_path(folder)
    probe = path / f".doctor-{uuid.uuid4().hex[:8]}"
    block = os.urandom(2**20)
    try:
        path.mkdir(parents=True, exist_ok=True)
        started_at_s = time.monotonic()
        with open(probe, "wb") as file:
            for _ in range(max(1, size_bytes // len(block))):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        elapsed_s = time.monotonic() - started_at_s
        return Disk(str(path), shutil.disk_usage(path).free, size_bytes / elapsed_s)
    except OSError as error:
        return Disk(str(path), error=error.strerror or str(error))
    finally:
        if probe.exists():
            probe.unlink()


def _installed(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"
