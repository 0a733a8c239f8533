"""The tables that all verbs print. In a narrow terminal names are cut and prose wraps; numbers are never cut."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from rich.box import Box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.table import Table as RichTable
from rich.text import Text

from rayprob.cli.terminal import styled
from rayprob.text import cut_names, printable

Kind = Literal["name", "number", "word", "prose", "bar"]
LEAST_CELLS = {"name": 12, "prose": 16, "bar": 4}


@dataclass(frozen=True)
class Bar:
    """A share of one, drawn as a row of blocks."""

    share: float
    style: str = ""


Cell = str | Text | Bar


@dataclass
class Column:
    """A column and its cells; `most` is the width of a bar of share 1."""

    heading: str
    kind: Kind
    most: int = 0
    cells: list[Cell] = field(default_factory=list)

    @property
    def natural(self) -> int:
        """The width that the cells and the heading need."""
        return max(map(self._cells_of, [self.heading, *self.cells]))

    @property
    def least(self) -> int:
        """The width below which the column does not shrink: that of the longest cell if cells may not be cut."""
        if self.kind in ("number", "word"):
            return max(map(self._cells_of, self.cells), default=0)
        return min(self.natural, LEAST_CELLS[self.kind])

    def _cells_of(self, cell: Cell) -> int:
        if isinstance(cell, Bar):
            return self.most
        return max((cell_len(line) for line in str(cell).split("\n")), default=0)


class Table:
    """A table that is built column by column and row by row, and laid out for the width of the console."""

    def __init__(
        self, title: str = "", *, title_style: str = "bold", caption: str = "", box: Box | None = None, padding: int = 2
    ) -> None:
        self._title = styled(title, title_style)
        self._caption = styled(caption, "dim italic")
        self._box = box
        self._padding = padding
        self._columns: list[Column] = []
        self._styles: list[str] = []

    def name(self, heading: str = "") -> None:
        """Add a column of names, which are cut if they do not fit."""
        self._columns.append(Column(printable(heading), "name"))

    def number(self, *headings: str | tuple[str, ...]) -> None:
        """Add columns of numbers, which are never cut; a heading is a text or a tuple of lines."""
        lines = [(heading,) if isinstance(heading, str) else heading for heading in headings]
        self._columns += [Column("\n".join(map(printable, heading)), "number") for heading in lines]

    def word(self, heading: str = "") -> None:
        """Add a column of rayprob's own short words, which are never cut."""
        self._columns.append(Column(printable(heading), "word"))

    def prose(self, heading: str = "") -> None:
        """Add a column of text that wraps."""
        self._columns.append(Column(printable(heading), "prose"))

    def bars(self, most: int) -> None:
        """Add a column of bars, the longest `most` cells wide."""
        self._columns.append(Column("", "bar", most))

    def row(self, *cells: Cell, style: str = "") -> None:
        """Add a row, a cell for each column."""
        for column, cell in zip(self._columns, cells, strict=True):
            column.cells.append(printable(cell) if isinstance(cell, str) else cell)
        self._styles.append(style)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        around = (3 if self._box else self._padding) * len(self._columns) + (1 if self._box else 0)
        widths = self._widths(options.max_width - around)
        table = self._laid_out(widths)
        width = max(options.max_width, sum(widths) + around)
        # With trailing spaces, a terminal narrower than the numbers would show empty lines between the rows.
        for line in Segment.split_lines(console.render(table, options.update(width=width))):
            yield from _stripped(line)
            yield Segment.line()

    def _widths(self, room: int) -> list[int]:
        """Return the width of each column: the widest columns shrink first, and none below its least width."""
        least = [column.least for column in self._columns]
        # No column gets more than the room for all: a text of thousands of letters would need as many steps.
        widths = [max(low, min(column.natural, room)) for low, column in zip(least, self._columns, strict=True)]
        while sum(widths) > room:
            spare = [place for place, low in enumerate(least) if widths[place] > low]
            if not spare:
                break
            widths[max(spare, key=lambda place: widths[place])] -= 1
        return widths

    def _laid_out(self, widths: list[int]) -> RichTable:
        has_headings = any(column.heading for column in self._columns)
        table = RichTable(box=self._box, show_header=has_headings, pad_edge=self._box is not None)
        table.padding = (0, 1) if self._box else (0, self._padding, 0, 0)
        table.title, table.title_justify = self._title or None, "left"
        table.caption, table.caption_justify = self._caption or None, "left"
        for column, width in zip(self._columns, widths, strict=True):
            justify: Literal["left", "right"] = "right" if column.kind == "number" else "left"
            table.add_column(_heading(column.heading, width), justify=justify, width=width, overflow="fold")
        shown = [list(_shown(column, width)) for column, width in zip(self._columns, widths, strict=True)]
        for place, style in enumerate(self._styles):
            table.add_row(*(cells[place] for cells in shown), style=style)
        return table


def show_table(console: Console, table: Table) -> None:
    """Print a table; if its numbers alone are wider than the terminal, it is printed in full and the terminal wraps it."""
    console.print(table, crop=False)


def _shown(column: Column, width: int) -> Iterator[Text]:
    names = [cell for cell in column.cells if isinstance(cell, str)] if column.kind == "name" else []
    cut = iter(cut_names(names, width))
    for cell in column.cells:
        if isinstance(cell, Bar):
            yield Text("█" * round(cell.share * width), cell.style)
        else:
            yield cell if isinstance(cell, Text) else Text(next(cut, cell))


def _heading(heading: str, width: int) -> Text:
    cut = dict(zip(heading.split(), cut_names(heading.split(), width), strict=True))
    return Text("\n".join(" ".join(cut[word] for word in line.split()) for line in heading.split("\n")))


def _stripped(line: list[Segment]) -> list[Segment]:
    while line and not line[-1].text.strip() and not line[-1].style:
        line.pop()
    if line and not line[-1].style:
        line[-1] = Segment(line[-1].text.rstrip())
    return line
