"""The savings of early stopping and the overhead of Ray Tune: the same grid with ASHA, with Hyperband and without.

    make demo
    python benchmarks/sweep_savings.py [--data demo/shards --epochs 3 --grace 1 --reduction 2]

The grid is 3 learning rates x 2 poolings x 2 batch sizes on generated scenes, the same seeds for all. It prints, for each
scheduler, the best holdout mAP, the epochs trained and their share of the full grid's, wall seconds, and the overhead of a
trial besides training and evaluating (from its start in the ledger to its end: process, imports, building, saving, reports).
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import yaml

from rayprob.sweep.search import Sweep
from rayprob.sweep.tune import Swept, run_sweep

ROOT = Path(__file__).resolve().parents[1]
SPACE = {
    "optimizer.lr": {"grid": [1e-3, 3e-3, 9e-3]},
    "model.pooling": {"grid": ["gap", "gmp"]},
    "stream.global_batch": {"grid": [16, 32]},
}


def main() -> None:
    """Run the sweeps one after the other and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="demo/shards")
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--grace", type=float, default=1.0, help="epochs before the first trial is stopped")
    parser.add_argument("--reduction", type=int, default=2, help="one of this many trials continues")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--schedulers", nargs="+", default=["none", "asha", "hyperband"])
    arguments = parser.parse_args()
    full_epochs = 0.0
    for name in arguments.schedulers:
        with tempfile.TemporaryDirectory() as folder:
            began_s = time.perf_counter()
            swept = run_sweep(sweep_of(folder, name, arguments))
            wall_s = time.perf_counter() - began_s
        full_epochs = full_epochs or swept.summary["total_epochs"]
        print(line(name, swept, full_epochs, wall_s), flush=True)


def sweep_of(folder: str, scheduler: str, arguments: argparse.Namespace) -> Sweep:
    """Return the demo's run under a grid and one scheduler."""
    search = {
        "metric": "mAP",
        "default": False,
        "space": SPACE,
        "scheduler": {"name": scheduler, "grace_epochs": arguments.grace, "reduction_factor": arguments.reduction},
    }
    value = {
        "extends": str(ROOT / "tune_configs" / "demo.yaml"),
        "folder": f"{folder}/sweep",
        "data": {"root": arguments.data},
        "transforms": {"train": {"size_px": arguments.size}, "evaluate": {"size_px": arguments.size}},
        "duration": {"epochs": arguments.epochs},
        "evaluation": {"every": {"epochs": arguments.grace}},
        "placement": {"num_workers": 1},
        "search": search,
    }
    file = Path(folder) / "sweep.yaml"
    file.write_text(yaml.safe_dump(value))
    return Sweep.read(file)


def line(name: str, swept: Swept, full_epochs: float, wall_s: float) -> str:
    """Return the result of one sweep."""
    summary = swept.summary
    best = next(row for row in summary["trials"] if row["number"] == summary["best"])
    besides_s = [row["lasted_s"] - row["elapsed_s"] for row in summary["trials"]]
    pruned = sum(row["state"] == "pruned" for row in summary["trials"])
    epochs = summary["total_epochs"]
    return (
        f"{name:>9}: best mAP {best['values']['mAP']:.4f} (trial {best['number']:03d})  {pruned} of {len(summary['trials'])} "
        f"stopped early  epochs {epochs:.1f} = {epochs / full_epochs:.2f} of the full grid  {wall_s:.0f} s"
        f"  besides training {statistics.median(besides_s):.1f} s per trial (first {besides_s[0]:.1f} s)"
    )


if __name__ == "__main__":
    main()
