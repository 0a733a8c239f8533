"""Summaries of sweeps without training: drawn by numpy, with the shape and the dirt of real ones."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

SPACE: dict[str, Any] = {
    "optimizer.lr": {"kind": "loguniform", "low": 1e-4, "high": 0.1},
    "resolution_px": {"kind": "choice", "choices": [64, 96, 128]},
    "loss.name": {"kind": "choice", "choices": ["bce", "asymmetric", "focal"]},
    "loss.gamma": {"kind": "uniform", "low": 0.0, "high": 4.0},  # where the loss is not bce
    "model.dropout": {"kind": "quniform", "low": 0.0, "high": 0.5, "step": 0.1},
}
FULL_EPOCHS = 6


def summary(trials: int = 24, *, seed: int = 0, metrics: Any = None, confirms: int = 3, **changes: Any) -> dict[str, Any]:
    """Return the summary of a sweep over SPACE: a default, searched trials, a failed one, and repeats with other seeds."""
    rng = np.random.default_rng(seed)
    metrics = metrics or [{"name": "mAP", "mode": "max"}]
    rows = [_trial(rng, number, metrics) for number in range(trials)]
    if trials > 5:
        rows[5] |= {
            "state": "failed",
            "reason": "OutOfMemoryError: <b>no</b> memory at micro_batch 4",
            "values": {},
            "curve": [],
        }
    valued = [row for row in rows if row["values"]]
    sign = 1 if metrics[0]["mode"] == "max" else -1
    best = max(valued, key=lambda row: sign * row["values"][metrics[0]["name"]])
    for of in (0, best["number"]) if confirms else ():
        rows += [_repeat(rng, rows[of], len(rows) + n, n + 1) for n in range(confirms)]
    return {
        "kind": "sweep",
        "name": "learning rate, resolution, loss",
        "description": "Which learning rate, resolution and loss suit a small backbone.",
        "split": "holdout",
        "metrics": metrics,
        "sampler": "tpe",
        "scheduler": "asha",
        "dataset": "scenes",
        "dataset_fingerprint": "0123456789abcdef",
        "versions": {"rayprob": "0.1.0", "optuna": "4.0"},
        "elapsed_s": 412.0,
        "space": SPACE,
        "trials": rows,
        "importance": {
            "optimizer.lr": 0.61,
            "resolution_px": 0.24,
            "loss.name": 0.1,
            "loss.gamma": 0.03,
            "model.dropout": 0.02,
        },
        "pareto": front(valued, metrics),
        "best": best["number"],
        "default": 0,
        "noise": noise(rows, best["number"], metrics[0]) if confirms else None,
        "val": {"best": {"mAP": 0.471, "OF1": 0.502}, "default": {"mAP": 0.431, "OF1": 0.488}},
        "total_epochs": sum(row["epochs"] for row in rows),
        "full_epochs": float(FULL_EPOCHS * len(rows)),
        **changes,
    }


def write(folder: Path, value: dict[str, Any]) -> str:
    """Write a summary into a sweep's folder and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps(value))
    return str(folder)


def front(rows: list[dict[str, Any]], metrics: list[dict[str, str]]) -> list[int]:
    """Return the numbers of the rows that no other row beats in both, by comparing every pair."""

    def coordinates(row: dict[str, Any]) -> tuple[float, float]:
        found = [row["values"][m["name"]] * (1 if m["mode"] == "max" else -1) for m in metrics]
        return (found[0], found[1] if len(found) > 1 else row["images_per_s"])

    points = {row["number"]: coordinates(row) for row in rows}
    return [n for n, (a, b) in points.items() if not any(c >= a and d >= b and (c, d) != (a, b) for c, d in points.values())]


def noise(rows: list[dict[str, Any]], best: int, metric: dict[str, str]) -> dict[str, Any]:
    """Return the default and the best over their repeats, and the gain with its standard error."""
    found = {}
    for name, number in (("default", 0), ("best", best)):
        values = [row["values"][metric["name"]] for row in rows if row["of"] == number and row["values"]]
        found[name] = {"values": values, "mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1))}
    error = math.sqrt(sum(found[name]["sd"] ** 2 / len(found[name]["values"]) for name in found))
    return {**found, "gain": found["best"]["mean"] - found["default"]["mean"], "gain_se": error}


def _trial(rng: np.random.Generator, number: int, metrics: list[dict[str, str]]) -> dict[str, Any]:
    params: dict[str, Any] = {
        "optimizer.lr": float(10 ** rng.uniform(-4, -1)),
        "resolution_px": int(rng.choice([64, 96, 128])),
        "loss.name": str(rng.choice(["bce", "asymmetric", "focal"])),
        "model.dropout": float(rng.integers(6)) / 10,
    }
    if number == 0:
        params |= {"optimizer.lr": 0.2, "loss.name": "bce"}  # the run file's own, outside of the space
    if params["loss.name"] != "bce":
        params["loss.gamma"] = float(rng.uniform(0, 4))
    goodness = 0.5 - 0.09 * abs(math.log10(params["optimizer.lr"]) + 2) + params["resolution_px"] / 1200
    pruned = number > 3 and goodness < 0.5
    epochs = 2 if pruned else FULL_EPOCHS
    curve = [
        [e / 2, round(goodness * (1 - math.exp(-e / 3)) + float(rng.normal(0, 0.006)), 4)] for e in range(1, 2 * epochs + 1)
    ]
    kept = max(value for _, value in curve)
    speed = float(3e6 / params["resolution_px"] ** 2 * rng.uniform(0.9, 1.1))
    values = {m["name"]: kept if m["mode"] == "max" else 12 - 10 * kept + float(rng.normal(0, 0.2)) for m in metrics}
    if metrics[0]["mode"] == "min":
        curve = [[epoch, 12 - 10 * value] for epoch, value in curve]
    return {
        "number": number,
        "kind": "default" if number == 0 else "search",
        "state": "pruned" if pruned else "finished",
        "params": params,
        "seed": 0,
        "of": None,
        "values": values,
        "numbers": {**values, "best_OF1": kept + 0.05},
        "epochs": float(epochs),
        "elapsed_s": epochs * 4000 / speed,
        "images_per_s": speed,
        "micro_batch": 32,
        "reason": "",
        "folder": f"trials/{number:03d}",
        "curve": curve,
    }


def _repeat(rng: np.random.Generator, row: dict[str, Any], number: int, seed: int) -> dict[str, Any]:
    values = {name: value + float(rng.normal(-0.004, 0.006)) for name, value in row["values"].items()}
    changed = {"number": number, "kind": "confirm", "of": row["number"], "seed": seed, "folder": f"trials/{number:03d}"}
    return {**row, **changed, "values": values, "state": "finished"}
