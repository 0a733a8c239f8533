"""The cost of heads with many labels: one training step of head and loss at L = 9,600, against independent labels.

    python benchmarks/large_label_space.py [--labels 9600] [--features 2048] [--batch 32] [--components 8 32] [--ranks 0 8]
    python benchmarks/large_label_space.py --labels 100000 --only compressed

A step is the head's forward, the loss, backward, and AdamW, on given features, those of 7 x 7 places for a head that needs
places; the backbone, which costs the same for every head, is left out. Each head runs in its own process, so that peak memory
is its own. All heads take turns, in `--rounds`; medians are reported. CPU seconds of the process depend less than wall seconds
on other work on the machine.
"""

import argparse
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rayprob.models.heads import HeadSpec, Start, build_head
from rayprob.models.losses import LossSpec, build_loss
from rayprob.probability.families import family_of

STEPS = 3
PLACES = 49
NUM_SETS = 2_000  # of three labels, each of them twice


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, default=9_600)
    parser.add_argument("--features", type=int, default=2_048)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--components", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--ranks", type=int, nargs="+", default=[0, 8])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=[], help="names of heads in the table; independent is always measured")
    options = parser.parse_args()
    heads: dict[str, dict[str, Any]] = {"independent": {"name": "bernoulli"}}
    for rank in options.ranks:
        heads |= {f"mixture K={k} rank={rank}": {"name": "mixture", "components": k, "rank": rank} for k in options.components}
    heads |= {name: {"name": name} for name in ("decoder", "compressed")} | {"powerset": {"name": "powerset", "sets": NUM_SETS}}
    heads = {name: head for name, head in heads.items() if name in ("independent", *(options.only or heads))}
    shape = (options.batch, options.features, options.labels)
    measured: dict[str, list[tuple[float, float, float, int]]] = {name: [] for name in heads}
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for _ in range(options.rounds):
            for name, head in heads.items():
                measured[name].append(pool.apply(measure, (head, shape)))
    print(f"B = {shape[0]}, F = {shape[1]}, L = {shape[2]:,}; medians of {options.rounds} rounds of {STEPS} steps, one thread")
    headings = (
        ("CPU ms/step", 14),
        ("wall ms", 9),
        ("ratio", 7),
        ("peak growth MiB", 17),
        ("ratio", 7),
        ("parameters M", 14),
    )
    print(" " * 24 + "".join(f"{heading:>{width}}" for heading, width in headings))
    base = [statistics.median(column) for column in zip(*measured["independent"], strict=True)]
    for name, rounds in measured.items():
        cpu_s, wall_s, growth, parameters = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(
            f"{name:24}{1e3 * cpu_s:>14.1f}{1e3 * wall_s:>9.1f}{cpu_s / base[0]:>7.2f}{growth:>17.0f}{growth / base[2]:>7.2f}"
            f"{parameters / 1e6:>14.1f}"
        )


def measure(head: dict[str, Any], shape: tuple[int, int, int]) -> tuple[float, float, float, int]:
    """Return CPU and wall seconds of a step, MiB by which the process grew at its peak, and how many parameters are trained."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    batch, num_features, num_labels = shape
    spec = HeadSpec(**head)
    features = torch.randn(batch, num_features, PLACES) if spec.why_places else torch.randn(batch, num_features)
    targets_BL = torch.rand(batch, num_labels) < 3 / num_labels
    label_sets = _drawn_sets(num_labels) if spec.name == "powerset" else None
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    module = build_head(spec, num_features, num_labels, Start(np.full(num_labels, 3 / num_labels), label_sets=label_sets))
    loss = build_loss(LossSpec(name=family_of(module.family).loss))
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(module(features), targets_BL, torch.ones_like(targets_BL)).mean().backward()
        optimizer.step()

    step()
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    for _ in range(STEPS):
        step()
    cpu_s, wall_s = (time.process_time() - cpu_s) / STEPS, (time.perf_counter() - wall_s) / STEPS
    growth_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib) / 1024
    return cpu_s, wall_s, growth_mib, sum(parameter.numel() for parameter in trained)


def _drawn_sets(num_labels: int) -> Callable[[], tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Return a function that returns label sets of a training split, all of them known."""
    sets_NL = np.zeros((2 * NUM_SETS, num_labels), dtype=bool)
    drawn = np.random.default_rng(0).integers(num_labels, size=(NUM_SETS, 3)).repeat(2, axis=0)
    np.put_along_axis(sets_NL, drawn, True, axis=1)
    return lambda: (sets_NL, np.broadcast_to(True, sets_NL.shape))


if __name__ == "__main__":
    main()
