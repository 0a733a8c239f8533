"""What is printed is printed as it is; and nothing in the package goes past the one place that sees to it."""

import ast
import io
import logging
import sys
import threading
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn

from rayprob.cli import terminal
from rayprob.cli.progress import Bars, progress
from rayprob.cli.show_run import sample_progress
from rayprob.cli.terminal import LineAMinute, LogLines, make_console, show_line, show_message, show_what_can_be_shown, status

PACKAGE = Path(__file__).resolve().parents[2] / "rayprob"
SHOWN_BY = {"terminal.py", "table.py", "progress.py"}
FRONT = sorted(path for path in (PACKAGE / "cli").glob("*.py") if path.name not in SHOWN_BY)
NAMES = ["box [open]", "box [closed]", "[/b]", ":cat:", "a\\", "[bold]x[/bold]", "[link=x]y"]
PRINTS = {"print", "Console", ".print", ".log", ".rule", ".input", ".status", ".print_json", ".from_markup", ".render_str"}


@pytest.mark.parametrize("name", NAMES)
def test_a_line_is_printed_as_it_is_even_by_a_console_that_reads_markup(name: str) -> None:
    for console in (make_console(file=io.StringIO(), width=20), Console(file=io.StringIO(), width=20)):
        show_line(console, f"{name} and a line that is longer than the terminal is wide", "red")
        show_message(console, f"{name}\nmore")
        text = console.file.getvalue()  # type: ignore[attr-defined]
        assert text == f"{name} and a line that is longer than the terminal is wide\n{name}\nmore\n"


def test_control_characters_of_a_name_neither_colour_nor_break_a_line() -> None:
    console = make_console(file=io.StringIO(), force_terminal=True)
    show_line(console, "a\nb\x1b[31m")
    assert console.file.getvalue() == "a\\nb\\x1b[31m\n"  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", NAMES)
def test_a_spinner_and_a_progress_bar_show_names_as_they_are(name: str) -> None:
    console = make_console(file=io.StringIO(), force_terminal=True, color_system=None, width=80)
    with status(console, "looking") as look_at:
        look_at(name)
    with progress(console, "{task.description}") as shown:
        shown.add_task(name)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.count(name) >= 2


def test_log_lines_are_printable() -> None:
    record = logging.LogRecord("rayprob", logging.WARNING, "", 0, "cannot read %s", ("a\x1b[2J",), None)
    assert LogLines("%(levelname)s %(name)s: %(message)s").format(record) == "WARNING rayprob: cannot read a\\x1b[2J"


def test_a_terminal_without_unicode_gets_escapes_instead_of_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    show_what_can_be_shown()
    show_line(make_console(), "caf\xe9 █")
    sys.stdout.flush()
    assert written.getvalue() == b"caf\\xe9 \\u2588\n"


def calls(path: Path) -> list[tuple[int, str]]:
    """Return (line, what is called) of each call in a file: "print" for a function, ".print" for a method."""
    called = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return [
        (call.lineno, f".{call.func.attr}" if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", ""))
        for call in called
    ]


def of_rich(path: Path) -> set[str]:
    """Return the names that a file imports from rich."""
    found = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    return {name.name for node in found if (node.module or "").split(".")[0] == "rich" for name in node.names}


def test_tables_progress_words_and_spinners_of_rich_are_made_in_one_place() -> None:
    """Elsewhere Console is a type, Text joins texts that terminal.styled made, and progress columns hold numbers of ours."""
    allowed = {"Console", "Group", "Live", "Text", "box", "cell_len"}
    allowed |= {"MofNCompleteColumn", "DownloadColumn", "TimeElapsedColumn", "TimeRemainingColumn", "TaskID"}
    assert {
        (str(path.relative_to(PACKAGE)), name)
        for path in PACKAGE.rglob("*.py")
        if path.parent != PACKAGE / "cli" or path in FRONT
        for name in of_rich(path) - allowed
    } == set()


def test_nothing_prints_past_the_one_place() -> None:
    """A call of print, Console or what reads markup anywhere else would show a label `[/b]` as something else, or fail."""
    assert len(FRONT) > 10
    faults = [f"{path.name}:{line} {name}" for path in FRONT for line, name in calls(path) if name in PRINTS]
    assert faults == []


def test_text_is_only_joined_outside_the_one_place() -> None:
    """`Text(name)` would let control characters through: there is terminal.styled for that."""
    made = []
    for path in (path for path in FRONT if "Text" in of_rich(path)):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Text":
                made += [ast.unparse(node) for argument in node.args if not isinstance(argument, ast.Constant)]
    assert made == []


def test_no_string_turns_markup_on() -> None:
    faults = [
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.keyword) and node.arg in ("markup", "emoji", "highlight")
        if not (isinstance(node.value, ast.Constant) and node.value.value is False)
    ]
    assert faults == []


def lines_of(console: Console) -> list[str]:
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined,no-any-return]


def test_where_there_is_no_terminal_a_line_is_printed_every_minute() -> None:
    console, shown = make_console(file=io.StringIO()), ["looking"]
    lines = LineAMinute(console, lambda: shown[0])
    start_s = lines._printed_s
    for second in range(200):
        lines.look(start_s + second)
        shown[0] = f"looking, second {second}"
    assert lines_of(console) == ["looking, second 59", "looking, second 119", "looking, second 179"]


def test_nothing_to_say_is_not_said() -> None:
    console = make_console(file=io.StringIO())
    LineAMinute(console, str).look(float("inf"))
    assert lines_of(console) == []


def test_the_line_of_progress_bars_has_the_words_and_numbers_next_to_them() -> None:
    console = make_console(file=io.StringIO())
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), "images, {task.percentage:.0f} %")
    with progress(console, *columns) as shown:
        assert isinstance(shown, Bars)
        assert shown.words() == ""
        first = shown.add_task("box [open]", total=200)
        second = shown.add_task("second", total=10)
        shown.update(first, completed=50)
        assert shown.words() == "box [open] 50/200 images, 25 %; second 0/10 images, 0 %"
        shown.update(second, completed=10)
        assert shown.words() == "box [open] 50/200 images, 25 %"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_only_a_console_without_a_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch, is_terminal: bool) -> None:
    console, has_looked = make_console(file=io.StringIO(), force_terminal=is_terminal), threading.Event()
    monkeypatch.setattr(terminal, "LOOK_EVERY_S", 0.001)
    monkeypatch.setattr(LineAMinute, "look", lambda self, now_s: has_looked.set())
    with status(console, "looking"):
        if is_terminal:
            assert "rayprob-lines" not in {thread.name for thread in threading.enumerate()}
        else:
            assert has_looked.wait(60)


def test_what_follows_the_last_sample_is_shown_as_work_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(Bars, "stop", lambda self: said.append(self.words()))
    with sample_progress(make_console(file=io.StringIO()), "predicting val", "computing the numbers") as on_progress:
        on_progress(5, 10)
        on_progress(10, 10)
    assert said == ["computing the numbers 0/?"]


def test_a_text_that_is_not_to_be_repeated_is_in_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that runs for days must not fill its log."""
    console, kept = make_console(file=io.StringIO()), list[LineAMinute]()
    monkeypatch.setattr(LineAMinute, "start", lambda self: kept.append(self))
    with status(console, "starting") as say:
        kept[0].look(float("inf"))
        kept[0]._printed_s = 0.0
        say("serving", is_repeated=False)
        kept[0].look(float("inf"))
    assert lines_of(console) == ["starting (0 min)"]
