"""Progress bars, with literal text next to them."""

from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from rayprob.cli.terminal import LineAMinute
from rayprob.text import cut, printable

MOST_CELLS = 48  # of text next to a bar


class Words(TextColumn):
    """Text next to a progress bar: a format with `task`, such as "{task.completed} images"."""

    def __init__(self, text_format: str) -> None:
        super().__init__(text_format, markup=False)

    def render(self, task: Task) -> Text:
        """Return the text, cut so that it leaves room for the bar."""
        return Text(cut(printable(self.text_format.format(task=task)), MOST_CELLS))


class Bars(Progress):
    """Progress bars; where the console is no terminal, a line every minute with the same words and numbers."""

    def __init__(self, *columns: ProgressColumn, console: Console) -> None:
        super().__init__(*columns, console=console, transient=True)
        self._lines = LineAMinute(console, self.words)

    def start(self) -> None:
        """Start the display."""
        super().start()
        self._lines.start()

    def stop(self) -> None:
        """End the display."""
        self._lines.stop()
        super().stop()

    def words(self) -> str:
        """Return what is next to the bars of the unfinished tasks, as text; "" if there are none."""
        tasks = [task for task in self.tasks if task.visible and not task.finished]
        return "; ".join(" ".join(" ".join(self._texts(task)).split()) for task in tasks)

    def _texts(self, task: Task) -> Iterator[str]:
        for column in self.columns:
            if isinstance(column, ProgressColumn) and isinstance(cell := column.render(task), Text):
                yield cell.plain


def progress(console: Console, *columns: str | ProgressColumn) -> Progress:
    """Return a progress display that disappears at its end; a text among the columns is the format of `Words`."""
    return Bars(*(Words(c) if isinstance(c, str) else c for c in columns), console=console)


def bar(cells: int = 40) -> BarColumn:
    """Return the bar of a progress display."""
    return BarColumn(bar_width=cells)
