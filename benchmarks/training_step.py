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
from functools import partial

import torch
from steps import bare, batch_of, job_of, ours, peak_flops, training_flops

from rayprob.runs.spec import Run


def run_of(args: argparse.Namespace, folder: str) -> Run:
    transform = {"name": "resize", "size_px": args.size}
    return Run.parse(
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


def seconds(step: Callable[[], object], num_steps: int, device: torch.device) -> float:
    started_at_s = time.perf_counter()
    for _ in range(num_steps):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - started_at_s) / num_steps


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
        run = run_of(args, folder)
        batches = [batch_of(run, device)]
        loops = {"rayprob": ours(job_of(run, device)), "bare": bare(job_of(run, device))}
        steps = {name: partial(loop, batches) for name, loop in loops.items()}
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
        peak = peak_flops(name)
        share = f", {images_per_s * training_flops(run.model, args.size) / peak:.1%} of the dense bf16 peak" if peak else ""
        gib = torch.cuda.max_memory_allocated() / 2**30
        print(f"{name}: {images_per_s:.0f} images/s{share}; peak memory of both networks {gib:.1f} GiB")


if __name__ == "__main__":
    main()
