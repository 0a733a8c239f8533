"""What all verbs share: the two consoles, the ways to print to them, and the arguments of many verbs.

Everything printed goes through here, table.py or progress.py. Text is never read as rich's markup, because most
of it contains foreign names, such as the label `box [open]`; colours come from styles.
"""

import io
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from rayprob.cli.help import one_of
from rayprob.text import printable, printable_lines

MINUTE_S, LOOK_EVERY_S = 60.0, 1.0
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the file; repeat for more keys."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The folder of a finished run, such as demo/run.")]
SplitOption = Annotated[
    str, typer.Option("--split", metavar="SPLIT", help="Which split.", autocompletion=one_of("val", "holdout", "train"))
]
DataOption = Annotated[
    str | None, typer.Option("--data", metavar="DATASET", help="Another built dataset, such as shards/voc-sample.")
]


def make_console(**options: Any) -> Console:
    """Return a console that prints text literally."""
    return Console(markup=False, emoji=False, highlight=False, **options)


out = make_console()
err = make_console(stderr=True)


def show_what_can_be_shown() -> None:
    """Make standard output escape characters that its encoding lacks, such as a bar in ASCII, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def show_line(console: Console, text: str, style: str = "") -> None:
    """Print one line, however long."""
    console.print(styled(text, style), soft_wrap=True)


def show_message(console: Console, text: str, style: str = "") -> None:
    """Print a message with its own line breaks."""
    console.print(Text(printable_lines(text), style), soft_wrap=True)


def styled(text: str, style: str = "") -> Text:
    """Return text literally, on one line, in a style."""
    return Text(printable(text), style)


class LineAMinute:
    """While in use, prints a line of `text` every minute where the console is no terminal, such as in the log of a job.

    A terminal shows the same text all the time, as a bar or next to a spinner.
    """

    def __init__(self, console: Console, text: Callable[[], str]) -> None:
        self._console, self._text = console, text
        self._printed_s = time.monotonic()
        self._ended = threading.Event()

    def start(self) -> None:
        """Start to look at the clock, in a thread of its own: the work itself may not call anything for minutes."""
        if not self._console.is_terminal:
            self._printed_s = time.monotonic()
            threading.Thread(target=self._work, name="rayprob-lines", daemon=True).start()

    def stop(self) -> None:
        """Print no more lines."""
        self._ended.set()

    def look(self, now_s: float) -> None:
        """Print a line if the last one, or the start, is a minute before `now_s`, on the clock of `time.monotonic`."""
        if now_s - self._printed_s >= MINUTE_S and (text := self._text()):
            self._printed_s = now_s
            show_line(self._console, text)

    def _work(self) -> None:
        while not self._ended.wait(LOOK_EVERY_S):
            self.look(time.monotonic())


@contextmanager
def status(console: Console, text: str) -> Iterator[Callable[..., None]]:
    """Show a spinner next to `text` until the block ends, or a line every minute.

    Yield a function that changes the text; with `is_repeated=False`, no line has the new one.
    """
    shown, started_s = [text], time.monotonic()
    lines = LineAMinute(console, lambda: shown[0] and f"{shown[0]} ({(time.monotonic() - started_s) / MINUTE_S:.0f} min)")
    lines.start()
    try:
        with console.status(styled(text)) as spinner:

            def say(changed: str, *, is_repeated: bool = True) -> None:
                shown[0] = changed if is_repeated else ""
                spinner.update(styled(changed))

            yield say
    finally:
        lines.stop()


class LogLines(logging.Formatter):
    """Formats log records for the terminal, so that names in them cannot control it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        return printable_lines(super().format(record))
