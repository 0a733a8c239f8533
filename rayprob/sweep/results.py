"""The results of a sweep: one row per trial from its run folder, tables, `best.yaml`, HParams and `summary.json`."""

import csv
import io
import json
import statistics
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from torch.utils.tensorboard.writer import SummaryWriter

from rayprob.errors import RunError
from rayprob.files import storage
from rayprob.runs.folder import open_run
from rayprob.runs.history_rows import read_rows
from rayprob.runs.paths import RunFolder, SweepFolder, trial_name
from rayprob.sweep.ledger import read_ledger
from rayprob.sweep.search import Sweep, described
from rayprob.sweep.study import Study, Trial
from rayprob.sweep.work import costs, evaluations_of

VERSIONS = ("torch", "ray", "optuna")
Row = dict[str, Any]


def trial_row(sweep: Sweep, trial: Trial) -> Row:
    """Return everything known about a trial, as the plain data of a `TrialSummary`.

    Its numbers are those of the evaluation that its bundle is from.
    """
    folder = SweepFolder(sweep.folder).trial(trial.number)
    rows, damaged = read_rows(folder)
    if damaged:
        where = f"{RunFolder(folder).history}, line {damaged[0]}"
        raise RunError(f"{where}: not a valid row of a run's history; start the sweep over with --fresh")
    evaluations = evaluations_of(rows)
    kept = _kept(rows, evaluations)
    # A trial with invalid parameters has no run file and no rows.
    cost = costs(rows, open_run(folder).stream.global_batch if rows else 1)
    known = {**cost, **kept}
    starts = [row for row in rows if row["kind"] == "start"]
    metrics = sweep.search.metric
    if kept and (unknown := [name for name in metrics if name not in known]):
        raise RunError(
            f"{folder} has an evaluation without {', '.join(unknown)}, which the sweep searches by; start the sweep over "
            "with --fresh"
        )
    is_default = trial.what == "default" or (trial.of == 0 and sweep.search.default)
    return {
        "number": trial.number,
        "kind": trial.what,
        "state": trial.state,
        "params": sweep.defaults() if is_default else trial.params,
        "seed": trial.seed,
        "of": trial.of,
        "values": {name: known[name] for name in metrics} if kept else {},
        "numbers": {key: value for key, value in kept.items() if key not in ("step", "epoch")},
        "epochs": evaluations[-1]["epoch"] if evaluations else 0.0,
        **cost,
        "micro_batch": starts[-1].get("micro_batch") if starts else None,
        "reason": trial.reason,
        "folder": trial_name(trial.number),
        "curve": [[row["epoch"], row.get(metrics[0])] for row in evaluations],
    }


def _kept(rows: list[Row], evaluations: list[Row]) -> Row:
    best = [row["step"] for row in rows if row["kind"] == "evaluation" and row.get("is_best")]
    return next((row for row in evaluations if best and row["step"] == best[-1]), {})


def summarise(sweep: Sweep, study: Study, val: dict[str, Any] | None, elapsed_s: float) -> dict[str, Any]:
    """Return the whole sweep as plain data: a `SweepSummary`, which `summary.json` stores and the page shows."""
    dataset = sweep.run.data.open()
    lasted_s = lasting(read_ledger(sweep.folder))
    rows = [{**trial_row(sweep, trial), "lasted_s": lasted_s.get(number)} for number, trial in study.trials.items()]
    search, best = sweep.search, study.best()
    done = [row for row in rows if row["state"] in ("finished", "pruned")]
    return {
        "kind": "sweep",
        "name": sweep.run.name,
        "description": sweep.description,
        "split": sweep.run.evaluation.split,
        "metrics": [{"name": name, "mode": mode} for name, mode in zip(search.metric, search.modes, strict=True)],
        "sampler": "grid" if search.is_all_grid else search.sampler,
        "scheduler": search.scheduler.name,
        "dataset": dataset.name,
        "dataset_fingerprint": dataset.fingerprint,
        "versions": {"rayprob": version("rayprob"), **{name: version(name) for name in VERSIONS}},
        "elapsed_s": elapsed_s,
        "space": {key: parameter.describe() for key, parameter in search.space.items()},
        "trials": rows,
        "importance": study.importance(),
        "pareto": pareto(rows, search.metric, search.modes),
        "best": best.number if best else None,
        "default": 0 if search.default and rows else None,
        "noise": noise(rows, best.number if best else None, search.metric[0]),
        "val": val,
        "total_epochs": sum(row["epochs"] for row in done),
        "full_epochs": _full_epochs(sweep, done),
    }


def lasting(ledger: Sequence[Row]) -> dict[int, float]:
    """Return the seconds from each trial's start to its end, including process start-up and any time the sweep was stopped."""
    asked = {row["number"]: row["at_s"] for row in ledger if row["kind"] == "ask"}
    return {row["number"]: row["at_s"] - asked[row["number"]] for row in ledger if row["kind"] == "end"}


def _full_epochs(sweep: Sweep, rows: Sequence[Row]) -> float:
    """Return the epochs that these trials would have taken without early stopping."""
    full = max((row["epochs"] for row in rows if row["state"] == "finished"), default=0.0)
    stated = sweep.run.duration.epochs or full
    return float(sum(row["epochs"] if row["state"] == "finished" else max(stated, row["epochs"]) for row in rows))


def pareto(rows: Sequence[Row], metrics: Sequence[str], modes: Sequence[str]) -> list[int]:
    """Return the trials that no other trial dominates (better in one of metric and images/s, at least equal in the other)."""
    if len(metrics) == 1:
        metrics, modes = (*metrics, "images_per_s"), (*modes, "max")
    points = [
        (row["number"], *(_signed(row, name, mode) for name, mode in zip(metrics, modes, strict=True)))
        for row in rows
        if row["state"] == "finished" and row["kind"] != "confirm" and row["values"]
    ]
    return [
        number
        for number, *mine in points
        if not any(other != mine and all(a >= b for a, b in zip(other, mine, strict=True)) for _, *other in points)
    ]


def _signed(row: Row, name: str, mode: str) -> float:
    value = float({**row, **row["numbers"], **row["values"]}[name])
    return value if mode == "max" else -value


def noise(rows: Sequence[Row], best: int | None, metric: str) -> dict[str, Any] | None:
    """Return the default and the best over fresh seeds, and the gain with its standard error; None if there are no such trials.

    The trial that was chosen by its value is not counted, because the best of many is optimistic.
    """
    values = {
        name: [row["values"][metric] for row in rows if row["of"] == number and row["values"]]
        for name, number in (("default", 0), ("best", best))
        if number is not None
    }
    if not all(len(values.get(name, ())) >= 1 for name in ("default", "best")):
        return None
    parts = {name: _spread(found) for name, found in values.items()}
    gain = parts["best"]["mean"] - parts["default"]["mean"]
    # Welch: two groups with unequal variances.
    error = sum((part["sd"] or 0.0) ** 2 / len(part["values"]) for part in parts.values()) ** 0.5
    has_error = all(part["sd"] is not None for part in parts.values())
    return {**parts, "gain": gain, "gain_se": error if has_error else None}


def _spread(values: list[float]) -> dict[str, Any]:
    sd = statistics.stdev(values) if len(values) > 1 else None
    return {"values": values, "mean": statistics.fmean(values), "sd": sd}


def write_results(sweep: Sweep, study: Study, summary: dict[str, Any]) -> None:
    """Write summary.json, results.parquet, results.csv, best.yaml and the HParams into the sweep's folder."""
    folder = sweep.folder
    storage.write_text(SweepFolder(folder).summary, json.dumps(summary, indent=1))
    table = [flat_row(row, list(sweep.search.space)) for row in summary["trials"]]
    if table:
        _write_tables(folder, table)
    best = study.best()
    if best is not None:
        storage.write_text(SweepFolder(folder).best_file, best_yaml(sweep, best, summary))
    if storage.is_local(folder):
        write_hparams(folder, summary)


def flat_row(row: Row, keys: Sequence[str]) -> Row:
    """Return a trial as one row of a table: parameters as `set.KEY` (as text if their types differ), numbers as columns."""
    params = {f"set.{key}": row["params"].get(key) for key in keys}
    plain = {key: row[key] for key in ("number", "kind", "state", "of", "seed")}
    cost = {key: row[key] for key in ("epochs", "elapsed_s", "lasted_s", "images_per_s", "micro_batch", "reason", "folder")}
    return {**plain, **params, **row["numbers"], **cost}


def _write_tables(folder: str, table: list[Row]) -> None:
    columns = list(dict.fromkeys(key for row in table for key in row))
    arrays = {key: _one_type([row.get(key) for row in table]) for key in columns}
    buffer = io.BytesIO()
    pq.write_table(pa.table(arrays), buffer)
    storage.write_bytes(SweepFolder(folder).results_table, buffer.getvalue())
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(table)
    storage.write_text(SweepFolder(folder).results_csv, text.getvalue())


def _one_type(values: list[Any]) -> list[Any]:
    kinds = {type(value) for value in values if value is not None}
    return values if len(kinds) <= 1 or kinds <= {int, float} else [None if v is None else json.dumps(v) for v in values]


def best_yaml(sweep: Sweep, best: Trial, summary: dict[str, Any]) -> str:
    """Return a complete run file that repeats the best trial as a run of its own."""
    trained = open_run(SweepFolder(sweep.folder).trial(best.number))
    run = trained.model_copy(update={"name": f"{sweep.run.name}-best", "folder": None})
    metric = sweep.search.metric[0]
    lines = [
        f"# The best of the {len(summary['trials'])} trials of the sweep {sweep.run.name}: trial {best.number}, "
        f"{metric} {best.best[0]:.4f} on {sweep.run.evaluation.split}.",
        f"# Its parameters: {described(best.params) or 'those of the run file'}.",
        "# On a CPU it reproduces the same numbers bit by bit. The best of many trials is optimistic.",
        "#",
        f"#   rayprob train {SweepFolder(sweep.folder).best_file}",
    ]
    return "\n".join(lines) + "\n" + run.to_yaml()


def write_hparams(folder: str, summary: dict[str, Any]) -> None:
    """Write each trial's parameters and values for TensorBoard's HParams tab."""
    board = storage.local_path(SweepFolder(folder).tensorboard)
    if board.exists():
        for file in board.rglob("events.out.tfevents.*"):
            file.unlink()
    with SummaryWriter(str(board)) as writer:
        for row in summary["trials"]:
            if row["values"]:
                params = {key: _plain(value) for key, value in row["params"].items()}
                values = {f"value/{name}": value for name, value in row["values"].items()}
                writer.add_hparams({**params, "seed": row["seed"]}, values, run_name=f"{row['number']:03d}")


def _plain(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float, str)) else json.dumps(value)
