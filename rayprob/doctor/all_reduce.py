"""One all-reduce over all nodes, like that of a training step, checked and timed."""

import socket
import time
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from rayprob.errors import one_line

TIMEOUT_S = 60
SIZE_BYTES = {"nccl": 128 * 2**20, "gloo": 16 * 2**20}
REPEATS = 5


@dataclass(frozen=True)
class AllReduce:
    """The outcome: seconds of one all-reduce of `size_bytes`, and the error of each rank that could not take part."""

    backend: str
    ranks: tuple[str, ...]  # the node of each
    size_bytes: int = 0
    elapsed_s: float = 0.0
    errors: tuple[tuple[str, str], ...] = ()
    not_run: str = ""

    @property
    def bus_bytes_per_s(self) -> float:
        """The bus bandwidth per rank, 2 (n - 1) / n of the bytes per reduction, as nccl-tests computes it."""
        num_ranks = len(self.ranks)
        return 2 * (num_ranks - 1) / num_ranks * self.size_bytes / self.elapsed_s if self.elapsed_s else 0.0


def free_address(host: str) -> str:
    """Return `tcp://host:port` with a port that is free on this machine now."""
    with socket.socket() as listener:
        listener.bind(("", 0))
        return f"tcp://{host}:{listener.getsockname()[1]}"


def all_reduce(address: str, rank: int, world_size: int, backend: str) -> tuple[str, float]:
    """Take part as one rank; return the error, or "", and the median seconds of one reduction."""
    device = torch.device("cuda" if backend == "nccl" else "cpu")
    try:
        dist.init_process_group(
            backend, init_method=address, rank=rank, world_size=world_size, timeout=timedelta(seconds=TIMEOUT_S)
        )
        elapsed_s = sorted(_timed(rank, world_size, device, SIZE_BYTES[backend] // 4) for _ in range(1 + REPEATS))
    except (RuntimeError, ValueError) as error:  # torch's DistError and its subclasses are RuntimeErrors
        return one_line(error), 0.0
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    return "", elapsed_s[len(elapsed_s) // 2]


def _timed(rank: int, world_size: int, device: torch.device, num_floats: int) -> float:
    tensor = torch.full((num_floats,), float(rank + 1), device=device)
    started_at_s = time.monotonic()
    dist.all_reduce(tensor)
    total = float(tensor.max())  # waits for the device
    elapsed_s = time.monotonic() - started_at_s
    wanted = world_size * (world_size + 1) / 2
    if total != wanted or float(tensor.min()) != wanted:
        raise RuntimeError(f"the sum over {world_size} ranks is {total} instead of {wanted}")
    return elapsed_s
