"""The output of `runs`: a line per run, sweep and comparison, and below it what is wrong with broken and failed ones."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console

from rayprob.cli.table import Table, show_table
from rayprob.cli.terminal import show_line
from rayprob.files import uris
from rayprob.runs.listing import ListedRun
from rayprob.runs.listing.row import BROKEN, FAILED, RUNNING, last_name

STYLES = {BROKEN: "red", FAILED: "red", RUNNING: "green"}
LEAST_FIRST: dict[str, Callable[[ListedRun], Any]] = {
    "when": lambda row: (row.state != RUNNING, -row.written_s),
    "name": lambda row: row.name,
    "best": lambda row: (row.best is None, row.metric, -(row.best or 0.0)),
    "speed": lambda row: -(row.images_per_s or 0.0),
    "state": lambda row: (row.state, -row.written_s),
}
UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))
LEGEND = "best: mAP on holdout, unless named; of a sweep, done counts trials, of systems, systems, else epochs"


def sorted_runs(rows: Sequence[ListedRun], key: str) -> list[ListedRun]:
    """Return rows by when, name, best, speed or state; equal ones by their folders."""
    return sorted(rows, key=lambda row: (LEAST_FIRST[key](row), row.folder))


def show_runs(console: Console, folder: str, rows: Sequence[ListedRun]) -> None:
    """Print the table, or what to do where there is nothing to list."""
    if not rows:
        show_line(console, f"no runs below {folder}")
        show_line(console, "next: rayprob train RUN.yaml    rayprob runs FOLDER, another one")
        return
    table = Table(padding=1)
    table.name("folder")
    table.word("kind")
    table.name("dataset")
    table.word("state")
    table.number("done", "best", "images/s", "ago")
    now_s = time.time()
    for row in rows:
        cells = (_done(row), _best(row), "-" if row.images_per_s is None else f"{row.images_per_s:,.0f}", _ago(row, now_s))
        table.row(_folder(row, folder), row.kind, row.dataset or "-", row.state, *cells, style=STYLES.get(row.state, ""))
    show_table(console, table)
    show_line(console, LEGEND if folder == "." else f"folders are below {folder}; {LEGEND}", "dim")
    for row in rows:
        if row.state in (BROKEN, FAILED):
            show_line(console, f"{row.state}: {row.folder}: {row.because}", "red")


def _folder(row: ListedRun, asked: str) -> str:
    """Return a run's folder as it is below the one asked for, and the run's name if that is another than the folder's."""
    path = uris.below(asked, row.folder) or "."
    return path if last_name(row.folder) == row.name else f"{path} ({row.name})"


def _done(row: ListedRun) -> str:
    if row.done is None:
        return "-"
    return f"{row.done:.3g}" if row.total is None else f"{_short(row.done)}/{_short(row.total)}"


def _short(number: float) -> str:
    return f"{number:,.0f}" if float(number).is_integer() or number >= 100 else f"{number:.1f}"


def _best(row: ListedRun) -> str:
    if row.best is None:
        return "-"
    named = "" if row.metric == "mAP" else f" {row.metric}"
    return f"{row.best:.4g}{named}" if named else f"{row.best:.4f}{f' {row.split}' if row.split not in ('holdout', '') else ''}"


def _ago(row: ListedRun, now_s: float) -> str:
    """Return how long ago the last row was written, in one unit."""
    if not row.written_s:
        return "-"
    past_s = max(0.0, now_s - row.written_s)
    return next((f"{past_s / size:.0f} {unit}" for size, unit in UNITS if past_s >= size), f"{past_s:.0f} s")
