"""Progress bars, with literal text next to them."""

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from rayprob.text import cut, printable

MOST_CELLS = 48  # of text next to a bar


class Words(TextColumn):
    """Text next to a progress bar: a format with `task`, such as "{task.completed} images"."""

    def __init__(self, text_format: str) -> None:
        super().__init__(text_format, markup=False)

    def render(self, task: Task) -> Text:
        """Return the text, cut so that it leaves room for the bar."""
        return Text(cut(printable(self.text_format.format(task=task)), MOST_CELLS))


def progress(console: Console, *columns: str | ProgressColumn) -> Progress:
    """Return a progress display that disappears at its end; a text among the columns is the format of `Words`."""
    return Progress(*(Words(c) if isinstance(c, str) else c for c in columns), console=console, transient=True)


def bar(cells: int = 40) -> BarColumn:
    """Return the bar of a progress display."""
    return BarColumn(bar_width=cells)
