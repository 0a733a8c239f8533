"""A step of our loop compared with one of a bare PyTorch loop: same network, batch, optimizer and arithmetic, no data loading.

    python benchmarks/training_step.py [--backbone resnet18 --size 128 --batch 16 --rounds 15]

Both work on the same batch in memory, in turns within one process; the ratio is bare seconds / our seconds (goal: >= 0.97).
On a GPU it also prints images/s and the share of the chip's peak that the model's FLOPs reach (MFU).
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.flop_counter import FlopCounterMode

from rayprob.loader.batch import Batch
from rayprob.loader.order import Cursor, Place
from rayprob.models.build import ModelSpec, build_classifier
from rayprob.models.losses import LossSpec, build_loss
from rayprob.runs.optimizers import OptimizerSpec
from rayprob.runs.spec import PrecisionSpec, Run
from rayprob.train.compute import Compute
from rayprob.train.job import RankJob
from rayprob.train.meter import Meter
from rayprob.train.optimizer import build_optimizer
from rayprob.train.state import TrainState
from rayprob.train.step import take_step

NUM_LABELS = 80
PEAK_FLOPS = {"NVIDIA H100": 989e12, "NVIDIA H200": 989e12, "NVIDIA A100": 312e12}  # dense bf16


class OneBatch:
    """Stands in for the stream: the cursor advances, the batch stays the same."""

    micro_batches_per_step = micro_batches_per_share = 1
    shares = (0,)

    def next(self, cursor: Cursor) -> Cursor:
        return Cursor(cursor.epoch, cursor.batch + 1)


def make_job(args: argparse.Namespace, device: torch.device, folder: str) -> RankJob:
    transform = {"name": "resize", "size_px": args.size}
    run = Run.parse(
        {
            "name": "step",
            "folder": folder,
            "data": {"root": folder},
            "stream": {"global_batch": args.batch, "lanes": 1},
            "transforms": {"train": transform, "evaluate": transform},
            "model": {"backbone": args.backbone},
            "duration": {"steps": 10**6},
            "precision": {"compile": args.compile},
        }
    )
    compute = Compute.plan(PrecisionSpec(compile=args.compile), Place(), device)
    classifier = build_classifier(ModelSpec(backbone=args.backbone), NUM_LABELS)
    compute.place_weights(classifier)
    state = TrainState(classifier, build_optimizer(classifier, OptimizerSpec(), device), compute.grad_scaler(), None)
    parts: dict[str, Any] = {"dataset": None, "stream": OneBatch(), "holdout": None, "history": None}
    return RankJob(
        run=run, compute=compute, state=state, parallel=compute.parallel(classifier), loss=build_loss(LossSpec()),
        total_steps=10**6, evaluate_every=10**6, **parts,
    )  # fmt: skip


def make_batch(args: argparse.Namespace) -> Batch:
    rng = np.random.default_rng(0)
    return Batch(
        images_BCHW=torch.from_numpy(rng.integers(0, 256, (args.batch, 3, args.size, args.size), dtype=np.uint8)),
        targets_BL=torch.from_numpy(rng.random((args.batch, NUM_LABELS)) < 0.04),
        known_BL=torch.ones(args.batch, NUM_LABELS, dtype=torch.bool),
        sample_ids_B=torch.arange(args.batch),
        cursor=Cursor(0, 0),
    )


def ours(job: RankJob, batch: Batch) -> Callable[[], object]:
    meter = Meter(None, log_every=10, global_batch=job.run.stream.global_batch)
    return lambda: meter.add(take_step(job, [batch]))


def bare(job: RankJob, batch: Batch) -> Callable[[], object]:
    """A hand-written loop with its own network and optimizer."""
    compute = job.compute
    classifier = build_classifier(job.run.model, NUM_LABELS)
    compute.place_weights(classifier)
    network = compute.parallel(classifier)
    optimizer = build_optimizer(classifier, job.run.optimizer, compute.device)

    def step() -> None:
        images = batch.images_BCHW.to(compute.device).contiguous(memory_format=compute.memory_format)
        with compute.autocast():
            logits = network(images)["logits"]
        loss = binary_cross_entropy_with_logits(logits, batch.targets_BL.to(compute.device).float())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def seconds(step: Callable[[], object], num_steps: int, device: torch.device) -> float:
    started_at_s = time.perf_counter()
    for _ in range(num_steps):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - started_at_s) / num_steps


def training_flops(job: RankJob, batch: Batch) -> int:
    classifier = build_classifier(job.run.model, NUM_LABELS).to(job.compute.device)
    with FlopCounterMode(display=False) as counter:
        classifier(batch.images_BCHW[:1].to(job.compute.device))["logits"].sum().backward()
    return int(counter.get_total_flops())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=3, help="per round")
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as folder:
        job, batch = make_job(args, device, folder), make_batch(args)
        steps = {"rayprob": ours(job, batch), "bare": bare(job, batch)}
        for step in steps.values():
            seconds(step, 2, device)
        found: dict[str, list[float]] = {name: [] for name in steps}
        for number in range(args.rounds):
            order = list(steps) if number % 2 else list(steps)[::-1]
            for name in order:
                found[name].append(seconds(steps[name], args.steps, device))
    ratios = [b / o for b, o in zip(found["bare"], found["rayprob"], strict=True)]
    medians = {name: statistics.median(times) for name, times in found.items()}
    print(f"{args.backbone} at {args.size} px, batch {args.batch}, {device}: " + ", ".join(
        f"{name} {1000 * time:.1f} ms" for name, time in medians.items()
    ))  # fmt: skip
    quartiles = statistics.quantiles(ratios, n=4)
    spread = f"quartiles {quartiles[0]:.3f}, {quartiles[2]:.3f}"
    print(f"bare / rayprob: median of {args.rounds} pairs {statistics.median(ratios):.3f} ({spread})")
    if device.type == "cuda":
        images_per_s = args.batch / medians["rayprob"]
        name = torch.cuda.get_device_name()
        peak = next((flops for chip, flops in PEAK_FLOPS.items() if name.startswith(chip)), None)
        share = f", {images_per_s * training_flops(job, batch) / peak:.1%} of the dense bf16 peak" if peak else ""
        gib = torch.cuda.max_memory_allocated() / 2**30
        print(f"{name}: {images_per_s:.0f} images/s{share}; peak memory of both networks {gib:.1f} GiB")


if __name__ == "__main__":
    main()
