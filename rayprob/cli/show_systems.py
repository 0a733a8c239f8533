"""The output of `tune` on a systems file: a bar while it works, then a table with a line per system."""

from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import TaskID, TimeElapsedColumn

from rayprob.cli.progress import bar, progress
from rayprob.cli.table import Table, show_table
from rayprob.cli.terminal import show_line
from rayprob.systems.compare import SystemsCompared
from rayprob.systems.table import SystemRow
from rayprob.systems.words import LEGEND, mark
from rayprob.text import counted

COLUMNS = ("mAP", "OF1", "CF1", "NLL", "ECE", "AP given 3")


class SystemsView:
    """A bar over the tasks of a comparison; before it, one over the images whose features are computed."""

    def __init__(self, console: Console) -> None:
        self._progress = progress(console, "{task.description}", bar(), "{task.completed} of {task.total}", TimeElapsedColumn())
        self._features: TaskID | None = None
        self._tasks: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def tell(self, event: dict[str, Any]) -> None:
        """Show an event of `compare_systems`."""
        if event["kind"] == "features":
            title = f"features of {event['split']}"
            if self._features is None:
                self._features = self._progress.add_task(title)
            self._progress.update(self._features, description=title, completed=event["done"], total=event["total"])
        elif event["kind"] == "plan":
            self._tasks = self._progress.add_task(f"{event['systems']} systems, runs and judgements", total=event["tasks"])
        elif event["kind"] == "done" and self._tasks is not None:
            self._progress.advance(self._tasks)


def show_systems(console: Console, compared: SystemsCompared) -> None:
    """Print the table, and what was left out."""
    spec = compared.spec
    show_line(
        console, f"{compared.dataset}, {spec.split}: {compared.num_images:,} images; {counted(spec.seeds, 'seed')}", "italic"
    )
    names = [name for name in COLUMNS if name in compared.rows[0].cells]
    table = Table("")
    table.name("system")
    table.number(*names)
    for row in compared.rows:
        table.row(row.name, *(_cell(row, name) for name in names))
    show_table(console, table)
    for one in compared.left_out:
        show_line(console, f"left out: {one.name}: {one.left_out}")
    show_line(console, LEGEND.format(first=compared.rows[0].name, draws=spec.draws), "dim")


def _cell(row: SystemRow, name: str) -> str:
    return f"{row.cells[name].value:.3f}{mark(name, row.cells[name]) or ' '}"
