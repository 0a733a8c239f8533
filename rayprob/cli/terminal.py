"""What all verbs share: the two consoles, the ways to print to them, and the arguments of many verbs.

Everything printed goes through here, table.py or progress.py. Text is never read as rich's markup, for most of
it holds names that are not ours, such as the label `box [open]`; what is to be coloured gets a style.
"""

import io
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from rayprob.text import printable, printable_lines

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the file; repeat for more keys."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The folder of a finished run, such as demo/run.")]


def make_console(**options: Any) -> Console:
    """Return a console that prints text as it is."""
    return Console(markup=False, emoji=False, highlight=False, **options)


out = make_console()
err = make_console(stderr=True)


def show_what_can_be_shown() -> None:
    """Let standard output write what its encoding lacks as an escape, instead of failing: a name or a bar in ASCII."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def show_line(console: Console, text: str, style: str = "") -> None:
    """Print one line, however long."""
    console.print(styled(text, style), soft_wrap=True)


def show_message(console: Console, text: str, style: str = "") -> None:
    """Print a message whose line breaks are its own."""
    console.print(Text(printable_lines(text), style), soft_wrap=True)


def styled(text: str, style: str = "") -> Text:
    """Return text as it is, on one line, in a style."""
    return Text(printable(text), style)


@contextmanager
def status(console: Console, text: str) -> Iterator[Callable[[str], None]]:
    """Show a spinner beside `text` until the block ends; yield a function that changes the text."""
    with console.status(styled(text)) as spinner:
        yield lambda changed: spinner.update(styled(changed))


class LogLines(logging.Formatter):
    """Formats log records for the terminal, where names in them must not steer it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        return printable_lines(super().format(record))
