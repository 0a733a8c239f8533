"""What `gpu.py` measures, in a process that it can end: a step that hangs must not take the other measurements along."""

import gc
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import repeat
from multiprocessing.connection import Connection
from typing import Any, Literal

import torch
from steps import Step, bare, batch_of, job_of, loss_of, ours, peak_flops, training_flops

from rayprob.errors import OutOfMemory, one_line
from rayprob.loader.batch import Batch
from rayprob.loader.order import Place
from rayprob.models.heads import HeadSpec
from rayprob.runs.spec import Run
from rayprob.train.job import RankJob, prepare

WARM_UP, FEWEST, MOST = 3, 3, 300  # steps
STREAM_TIMES = 4  # as long, because a stream starts with batches that its workers have ready
LANES = 32

# Every switch off; each alone; those of a run file by default; and all, without and with the compiler.
OFF = {"autocast": "float32", "channels_last": False, "compile": False, "tf32": False, "cudnn_benchmark": False, "fused": False}
SWITCHES: dict[str, dict[str, Any]] = {"bf16": {"autocast": "bf16"}} | {
    name: {name: True} for name in ("tf32", "cudnn_benchmark", "channels_last", "fused", "compile")
}
TOGETHER = {key: value for name, switch in SWITCHES.items() if name != "compile" for key, value in switch.items()}
SETTINGS: dict[str, dict[str, Any]] = {
    "off": OFF,
    **{name: OFF | switch for name, switch in SWITCHES.items()},
    "default": {},
    **{f"default + {name}": SWITCHES[name] for name in ("tf32", "cudnn_benchmark", "compile")},
    "together": OFF | TOGETHER,
    "together + compile": OFF | TOGETHER | {"compile": True},
}


@dataclass(frozen=True)
class System:
    """A backbone and a head; its loss is the head's default one."""

    backbone: str
    head: dict[str, Any]
    fixed_size: bool = False

    def changes(self, size_px: int) -> dict[str, Any]:
        """Return the keys of a run file that differ from those of the paper's."""
        head = HeadSpec(**self.head)
        model = {
            "backbone": self.backbone,
            "weights": None,
            "image_size_px": size_px if self.fixed_size else None,
            "pooling": "places" if head.why_places else "gap",
            "head": head.model_dump(),
        }
        return {"model": model, "loss": loss_of(head).model_dump()}


@dataclass(frozen=True)
class Measurement:
    """One thing to measure. `loop` is ours or a bare one on a batch in memory, or ours on the stream of generated scenes."""

    name: str
    system: System
    settings: str
    micro_batch: int
    loop: Literal["rayprob", "bare", "stream"] = "rayprob"

    def __str__(self) -> str:
        return f"{self.name}, {self.system.backbone}, {self.settings}, micro batch {self.micro_batch}, {self.loop}"


@dataclass(frozen=True)
class Conditions:
    """What holds for all measurements: the run file whose keys they change, image size, data, and seconds of each."""

    run: dict[str, Any]
    size_px: int
    dataset: str
    folder: str
    seconds: float

    def run_of(self, one: Measurement) -> Run:
        """Return the run of a measurement."""
        precision = dict(SETTINGS[one.settings])
        fused = {"fused": precision.pop("fused")} if "fused" in precision else {}
        changes = {
            "name": "gpu",
            "folder": self.folder,
            "data": {"root": self.dataset},
            "stream": {**self.run["stream"], "global_batch": one.micro_batch, "lanes": math.gcd(LANES, one.micro_batch)},
            "transforms": {name: {**spec, "size_px": self.size_px} for name, spec in self.run["transforms"].items()},
            "precision": {**self.run["precision"], **precision},
            "optimizer": {**self.run["optimizer"], **fused},
            "duration": {"steps": 10**6},
            **one.system.changes(self.size_px),
        }
        return Run.parse({**self.run, **changes}, where=str(one))


def serve(connection: Connection, conditions: Conditions) -> None:
    """Measure what arrives until the other end closes; first state the machine."""
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    connection.send(machine(device))
    while True:
        try:
            one = connection.recv()
        except EOFError:
            return
        connection.send(outcome(lambda one=one: measured(conditions.run_of(one), one.loop, device, conditions.seconds)))


def machine(device: torch.device) -> dict[str, Any]:
    """Return what the numbers depend on besides the code."""
    is_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if is_gpu else f"CPU, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "cuda": torch.version.cuda if is_gpu else None,
        "cudnn": torch.backends.cudnn.version() if is_gpu else None,
    }


def outcome(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the numbers of a measurement, or its error; a lack of memory is expected, and ends nothing else."""
    try:
        return measure()
    except (torch.OutOfMemoryError, OutOfMemory):
        return {"error": "out of memory"}
    except Exception as error:  # a compiler, a driver and PyTorch have no common one
        return {"error": f"{type(error).__name__}: {one_line(error)[:200]}"}
    finally:
        if "torch._dynamo" in sys.modules:
            torch._dynamo.reset()  # it compiles a function a few times only, and then leaves it as it is
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def measured(run: Run, loop: str, device: torch.device, seconds: float) -> dict[str, Any]:
    """Return images/s, milliseconds per step, share of the peak, memory and share of time spent waiting for data."""
    with prepared(run, loop, device) as (step, batches, job), job.compute.settings():
        step_s, wait_s = timed(step, batches, device, seconds * (STREAM_TIMES if loop == "stream" else 1))
    images_per_s = run.stream.global_batch / step_s
    peak = peak_flops(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    flops = training_flops(run.model, run.transforms.train.size_px)
    return {
        "images_per_s": images_per_s,
        "step_ms": 1e3 * step_s,
        "gflop_per_image": flops / 1e9,
        "mfu": images_per_s * flops / peak if peak else None,
        "memory_gib": torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None,
        "data_wait": wait_s / step_s,
        "run": run.model_dump(mode="json", include={"model", "loss", "precision", "optimizer"}),
    }


@contextmanager
def prepared(run: Run, loop: str, device: torch.device) -> Iterator[tuple[Step, Iterator[list[Batch]], RankJob]]:
    """Yield the step, its batches and the job."""
    if loop == "stream":
        job = prepare(run, Place(), device)
        assert job.history
        job.history.close()
        job.history = None
        with closing(job.stream.iterate(job.state.progress.cursor)) as batches:
            yield ours(job), ([batch] for batch in batches), job
    else:
        job = job_of(run, device)
        yield (bare if loop == "bare" else ours)(job), repeat([batch_of(run, device)]), job


def timed(step: Step, batches: Iterator[list[Batch]], device: torch.device, seconds: float) -> tuple[float, float]:
    """Return the seconds per step, and those of them that it waits for data; measure for about `seconds`, after a warm-up."""
    for _ in range(WARM_UP):
        step(next(batches))
    once_s, _ = _rate(step, batches, device, 1)
    return _rate(step, batches, device, min(MOST, max(FEWEST, round(seconds / once_s))))


def _rate(step: Step, batches: Iterator[list[Batch]], device: torch.device, num_steps: int) -> tuple[float, float]:
    synchronize(device)
    waited_s, began_at_s = 0.0, time.perf_counter()
    for _ in range(num_steps):
        asked_at_s = time.perf_counter()
        batch = next(batches)
        waited_s += time.perf_counter() - asked_at_s
        step(batch)
    synchronize(device)
    return (time.perf_counter() - began_at_s) / num_steps, waited_s / num_steps


def synchronize(device: torch.device) -> None:
    """Wait for all that a GPU has been given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
