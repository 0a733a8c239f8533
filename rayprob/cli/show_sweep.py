"""The output of `rayprob tune`: a live table of trials, one line for each that ends, and the results."""

import statistics
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.live import Live

from rayprob.cli.show_run import notice_line, waiting_line
from rayprob.cli.table import Cell, Table, show_table
from rayprob.cli.terminal import LineAMinute, show_line, styled
from rayprob.report.sweep.words import sureness
from rayprob.runs.paths import SweepFolder
from rayprob.sweep.search import OWN_SETTINGS, described, short
from rayprob.sweep.study import Study, Trial
from rayprob.text import counted

BEST_SHOWN = 5
SAID = {"waiting": waiting_line, "notice": notice_line}  # by a trial of several workers
STATES = {"running": "cyan", "finished": "green", "pruned": "yellow", "failed": "red"}


class SweepView:
    """Shows a sweep from the events of `run_sweep`: a live table of running and best trials, and a line for each that ends."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._lines = LineAMinute(console, self._counts)
        self._study: Study | None = None
        self._note = ""

    def __enter__(self) -> "SweepView":
        if self._console.is_terminal:
            self._live.start()
        self._lines.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.stop()
        self._live.stop()

    def tell(self, event: dict[str, Any]) -> None:
        """Show one event."""
        kind = event["kind"]
        if kind == "launch":
            self._launch(event)
        elif kind == "end" and event["trial"].state != "running":
            self._line(_ended(event["trial"], self._metrics))
        elif kind in SAID:
            self._line(f"trial {event['trial'].number:03d}  {SAID[kind](event)}")
        elif kind == "stopping":
            self._note = "saving and stopping; Ctrl-C again discards what is not saved"
            self._line(self._note)
        elif kind == "val":
            self._line(f"evaluating trial {event['trial'].number:03d}, the best, on val")
        if self._live.is_started and self._study is not None:
            self._live.update(self._table(self._study), refresh=True)

    def _counts(self) -> str:
        """Return how many trials are done and running; "" before the first."""
        states = [trial.state for trial in self._study.trials.values()] if self._study else []
        running = states.count("running")
        return f"{counted(len(states) - running, 'trial')} done, {running} running" if states else ""

    @property
    def _metrics(self) -> tuple[str, ...]:
        return self._study.metrics if self._study else ()

    def _launch(self, event: dict[str, Any]) -> None:
        study, room = event["study"], event["room"]
        self._study = study
        done = sum(trial.state != "running" for trial in study.trials.values())
        kind = "GPU" if room.workers.use_gpu else counted(room.workers.cpus_per_worker, "CPU")
        word = (
            f"continuing; {counted(done, 'trial')} done, {len(study.trials) - done} unfinished" if study.trials else "starting"
        )
        self._line(
            f"{word}: {study.num_expected} trials at most, {room.max_concurrent} at a time, each with "
            f"{counted(room.workers.num_workers, 'worker')}, {kind} each; folder: {event['folder']}"
        )
        self._line("Ctrl-C saves and stops; the same command continues the search", style="dim")

    def _table(self, study: Study) -> Group:
        table = Table()
        table.number("trial")
        table.name("parameters")
        table.number("epoch", *study.metrics)
        table.word("state")
        running = [trial for trial in study.trials.values() if trial.state == "running"]
        for trial in [*study.ranked()[:BEST_SHOWN], *running]:
            table.row(*_cells(trial, len(study.metrics)))
        counts = {state: sum(trial.state == state for trial in study.trials.values()) for state in STATES}
        counted = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        words = f"{counted} of {study.num_expected} at most; the best {BEST_SHOWN} and those running"
        return Group(table, styled(words, "dim"))

    def _line(self, text: str, style: str = "") -> None:
        show_line(self._console, text, style)


def _cells(trial: Trial, num_metrics: int) -> list[Cell]:
    values = [f"{value:.4f}" for value in trial.best] or ["-"] * num_metrics
    return [
        f"{trial.number:03d}",
        _said(trial),
        f"{trial.epoch:.1f}",
        *values,
        styled(trial.state, STATES[trial.state]),
    ]


def _said(trial: Trial) -> str:
    if trial.what == "confirm":
        return f"trial {trial.of:03d} again, seed {trial.seed}"
    return described(trial.params) or OWN_SETTINGS


def _ended(trial: Trial, metrics: tuple[str, ...]) -> str:
    values = "  ".join(f"{name} {value:.4f}" for name, value in zip(metrics, trial.best, strict=False))
    why = f": {trial.reason}" if trial.reason else ""
    return f"trial {trial.number:03d}  {_said(trial)}  {values}  {trial.state} after {trial.epoch:.1f} epochs{why}"


def show_sweep(console: Console, folder: str, summary: dict[str, Any], num_shown: int = 10) -> None:
    """Print the best trials, the gain over the default, which parameters matter, and the next command."""
    metrics = [metric["name"] for metric in summary["metrics"]]
    title = f"{summary['name']}: {len(summary['trials'])} trials, by {', '.join(metrics)} on {summary['split']}"
    table = Table(title, title_style="italic", box=box.HEAVY_HEAD)
    table.number("trial")
    table.prose("parameters")
    table.number(*metrics, "epochs", "images/s")
    table.word("state")
    rows = [row for row in summary["trials"] if row["kind"] != "confirm" and row["values"]]
    sign = -1 if summary["metrics"][0]["mode"] == "max" else 1
    rows.sort(key=lambda row: (row["state"] != "finished", sign * row["values"][metrics[0]]))
    for row in rows[:num_shown]:
        table.row(*_result_cells(row, metrics, is_best=row["number"] == summary["best"]))
    show_table(console, table)
    for line in conclusions(summary, folder):
        show_line(console, line)


def _result_cells(row: dict[str, Any], metrics: list[str], *, is_best: bool) -> list[Cell]:
    said = described(row["params"]) + (f"  ({OWN_SETTINGS})" if row["kind"] == "default" else "")
    values = [f"{row['values'][name]:.4f}" for name in metrics]
    number = f"{row['number']:03d}"
    return [
        styled(number, "bold" if is_best else ""),
        said,
        *values,
        f"{row['epochs']:.1f}",
        short(row["images_per_s"]),
        row["state"],
    ]


def conclusions(summary: dict[str, Any], folder: str) -> list[str]:
    """Return the conclusions of the sweep, one sentence per line; what is unknown is left out."""
    lines = []
    failed = [row for row in summary["trials"] if row["state"] == "failed"]
    if failed:
        listed = "; ".join(f"{row['number']:03d}: {row['reason']}" for row in failed[:3])
        lines.append(f"{counted(len(failed), 'trial')} failed: {listed}{' ...' if len(failed) > 3 else ''}")
    if summary["full_epochs"] > summary["total_epochs"]:
        saved = 1 - summary["total_epochs"] / summary["full_epochs"]
        lines.append(
            f"epochs: {summary['total_epochs']:.1f} trained, {summary['full_epochs']:.1f} without early stopping "
            f"({saved:.0%} saved)"
        )
    spent = [row["lasted_s"] - row["elapsed_s"] for row in summary["trials"] if row["lasted_s"] and row["state"] != "failed"]
    if spent:
        lines.append(f"overhead per trial, besides training and evaluating: {statistics.median(spent):.1f} s (median)")
    if summary["importance"]:
        lines.append("importance (fANOVA): " + ", ".join(f"{key} {share:.0%}" for key, share in summary["importance"].items()))
    lines += _on_noise(summary)
    if summary["val"]:
        best = summary["val"]["best"]
        lines.append(f"val, trial {summary['best']:03d} only: mAP {best['mAP']:.4f}  OF1 {best['OF1']:.4f} at 0.5")
    if summary["best"] is not None:
        lines.append(f"next: rayprob train {SweepFolder(folder).best_file}    rayprob report {folder}")
    else:
        lines.append(
            "no trial has finished; see the reasons above, or run `rayprob train` on a trial's run.yaml to debug it alone"
        )
    return lines


def _on_noise(summary: dict[str, Any]) -> list[str]:
    noise = summary["noise"]
    if noise is None or summary["best"] == summary["default"]:
        return []
    metric, error = summary["metrics"][0], noise["gain_se"]
    parts = [f"{which} {_spread(noise[which])}" for which in ("default", "best")]
    line = f"over new seeds, {metric['name']}: {', '.join(parts)}; gain {noise['gain']:+.4f}"
    better = noise["gain"] if metric["mode"] == "max" else -noise["gain"]
    return [line if error is None else f"{line} ± {error:.4f}: {sureness(better, error)}"]


def _spread(part: dict[str, Any]) -> str:
    sd = f" (sd {part['sd']:.4f})" if part["sd"] is not None else ""
    return f"{part['mean']:.4f}{sd}"
