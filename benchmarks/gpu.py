"""How fast training is on one GPU, and which settings make it so: at most --minutes, the most important measurements first.

    python benchmarks/gpu.py [--out gpu-benchmark] [--minutes 7.5] [--seconds 3]
    python benchmarks/gpu.py --tiny                                   # on a CPU, in about a minute: a test of this script

Measured are images/s, the share of the chip's dense bf16 peak that forward and backward reach (MFU, with the operations that
PyTorch counts: 186 GFLOP an image for ResNet-101 at 448 px), peak memory, and the share of time spent waiting for data:
    paper     the network of tune_configs/paper.yaml: every switch alone and all together, micro batches of 32 to 256
    others    csra, decoder and mixture heads on ResNet-101, ConvNeXt-S and ViT-B/16; a head that is not registered is skipped
    rayprob   our loop on a batch in memory; bare: a hand-written one with the same settings; stream: ours on drawn scenes,
              stored as shards, read and augmented as in training

Switches: bf16, tf32, cudnn_benchmark, channels_last, fused (optimizer), compile. `off` has none of them, `together` all but
compile, `default` those of a run file. Each line is printed when it is known, and OUT/gpu.json and OUT/gpu.md are rewritten.
Measurements run in a process of their own, which is ended when it exceeds its limit; too little memory is a result too.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gpu_measure import SWITCHES, Conditions, Measurement, System, serve
from gpu_results import Results

from rayprob.data.building.build import build, in_process
from rayprob.data.building.recipe import Recipe
from rayprob.models.heads import HEADS
from rayprob.runs.spec import Run
from rayprob.scenes.generate import ScenesSpec, generate_scenes

ROOT = Path(__file__).resolve().parents[1]
SYSTEMS = {
    "paper": System("resnet101", {"name": "bernoulli"}),
    "csra": System("resnet101", {"name": "csra"}),
    "decoder": System("resnet101", {"name": "decoder"}),
    "mixture": System("resnet101", {"name": "mixture", "components": 32}),
    "convnext": System("convnext_small", {"name": "bernoulli"}),
    "vit": System("vit_b_16", {"name": "bernoulli"}, fixed_size=True),
}
MICRO_BATCHES = (128, 64, 256, 32)
LIMIT_S, COMPILING_S = 45.0, 180.0  # longest of one measurement
LEAST_S, LEAST_COMPILING_S = 6.0, 40.0  # below which none is started
Serve = Callable[[Any, Conditions], None]


def main() -> None:
    """Measure what time allows, and write the tables."""
    options = parse()
    if not torch.cuda.is_available() and not options.tiny:
        print("skipped: no GPU; --tiny tests this script on a CPU")
        return
    until_s = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory(prefix="rayprob-gpu-") as folder:
        conditions = conditions_in(Path(folder), tiny=options.tiny, seconds=options.seconds)
        results = Results(Path(options.out))
        for one, found in measurements(plan(tiny=options.tiny), conditions, until_s, serve, results.machine):
            results.add(one, found)
    results.finish()


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="gpu-benchmark", help="folder of gpu.json and gpu.md")
    parser.add_argument("--minutes", type=float, default=7.5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement, after its warm-up")
    parser.add_argument("--tiny", action="store_true", help="tiny networks and images, without compile")
    return parser.parse_args()


def plan(*, tiny: bool) -> list[Measurement]:
    """Return all measurements, the most important first; heads that are not registered are left out, and said to be."""
    micro_batches = (4, 2) if tiny else MICRO_BATCHES
    most = micro_batches[0]
    systems = {name: System("squeezenet1_1", system.head) if tiny else system for name, system in known().items()}
    paper = systems.pop("paper")

    def of_paper(settings: str, loop: Any = "rayprob", micro_batch: int = most) -> Measurement:
        return Measurement("paper", paper, settings, micro_batch, loop)

    chosen = [of_paper(settings, loop) for settings in ("default", "together") for loop in ("rayprob", "bare")]
    chosen += [of_paper("default", "stream")]
    chosen += [of_paper("together + compile", loop) for loop in ("rayprob", "bare")]
    chosen += [of_paper(settings, micro_batch=micro_batches[1]) for settings in ("off", *SWITCHES)]
    chosen += [Measurement(name, system, "together", most) for name, system in systems.items()]
    chosen += [of_paper("together", "stream")]
    chosen += [of_paper("together", micro_batch=micro_batch) for micro_batch in micro_batches[1:]]
    chosen += [of_paper(f"default + {switch}") for switch in ("cudnn_benchmark", "tf32", "compile")]
    chosen += [Measurement(name, system, "together", micro_batches[1]) for name, system in systems.items()]
    return [one for one in chosen if not (tiny and "compile" in one.settings)]


def known() -> dict[str, System]:
    """Return the systems whose heads are registered; print the others."""
    for name, system in SYSTEMS.items():
        if system.head["name"] not in HEADS:
            print(f"{name}: skipped, because no head {system.head['name']} is registered")
    return {name: system for name, system in SYSTEMS.items() if system.head["name"] in HEADS}


def conditions_in(folder: Path, *, tiny: bool, seconds: float) -> Conditions:
    """Draw scenes into a folder, build their dataset, and return what all measurements share."""
    size_px, num_train, processes = (64, 40, 1) if tiny else (448, 768, os.cpu_count() or 1)
    spec = ScenesSpec(num_train=num_train, num_val=8, size_px=size_px)
    generate_scenes(str(folder / "scenes"), spec, num_processes=processes)
    scenes = folder / "scenes"
    splits = {
        split: {"images": str(scenes / f"{split}2014"), "annotations": str(scenes / f"annotations/instances_{split}2014.json")}
        for split in ("train", "val")
    }
    recipe = {"name": "scenes", "splits": splits, "target": str(folder / "shards"), "keep_unlabelled": True}
    root = build(Recipe.parse({**recipe, "max_shard_samples": 64}), run_tasks=in_process).root
    run = Run.read(ROOT / "tune_configs" / "paper.yaml").model_dump(mode="json")
    run["stream"]["loader_workers"] = 0 if tiny else min(run["stream"]["loader_workers"], os.cpu_count() or 1)
    return Conditions(run, size_px, root, str(folder / "run"), seconds)


def measurements(
    chosen: list[Measurement],
    conditions: Conditions,
    until_s: float,
    target: Serve,
    told: Callable[[dict[str, Any]], None],
) -> Iterator[tuple[Measurement, dict[str, Any]]]:
    """Yield each measurement with its numbers, or the `error` that it ended with; `told` gets the machine's facts."""
    worker: Worker | None = None
    try:
        for one in chosen:
            is_compiling = "compile" in one.settings
            left_s = until_s - time.monotonic()
            if left_s < (LEAST_COMPILING_S if is_compiling else LEAST_S):
                yield one, {"error": "no time left"}
                continue
            if worker is None:
                worker = Worker.start(target, conditions)
                told(worker.answer(left_s) or {})
            found = worker.ask(one, min(until_s - time.monotonic(), COMPILING_S if is_compiling else LIMIT_S))
            if found is None:
                worker.end(patience_s=0)
                worker = None
            yield one, found or {"error": "exceeded its time, or its process died"}
    finally:
        if worker:
            worker.end()


@dataclass
class Worker:
    """A process that measures."""

    process: Any
    connection: Any

    @classmethod
    def start(cls, target: Serve, conditions: Conditions) -> "Worker":
        context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        here, there = context.Pipe()
        process = context.Process(target=target, args=(there, conditions), daemon=False)
        process.start()
        there.close()
        return cls(process, here)

    def ask(self, one: Measurement, limit_s: float) -> dict[str, Any] | None:
        """Return what a measurement found; None if it took longer than its limit, or the process died."""
        try:
            self.connection.send(one)
        except OSError:
            return None
        return self.answer(limit_s)

    def answer(self, limit_s: float) -> dict[str, Any] | None:
        """Return the next answer, within the limit."""
        try:
            return self.connection.recv() if self.connection.poll(max(limit_s, 0)) else None
        except (EOFError, OSError):
            return None

    def end(self, patience_s: float = 2.0) -> None:
        """End the process; without patience at once."""
        self.connection.close()
        self.process.join(timeout=patience_s)
        self.process.kill()
        self.process.join()


if __name__ == "__main__":
    main()
