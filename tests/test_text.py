"""Names are shown as they are, on one line, and stay apart when they are cut."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

import rayprob
from rayprob.text import counted, cut, cut_names, first_of, listed, printable, printable_lines, wrapped


@pytest.mark.parametrize(
    "text", ["box [open]", "[/b]", ":cat:", "a\\", "é 漢字\u3000x", "👩\u200d🍳", "\xa0", "\u05d0\u200c\u05d1"]
)
def test_what_does_not_steer_a_terminal_stays(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a\nb", "a\\nb"), ("\x1b[31m", "\\x1b[31m"), ("a\tb\r\x9b", "a\\tb\\r\\x9b"), ("\u2028", "\\u2028"),
     ("a\u202eb", "a\\u202eb"), ("caf\udce9", "caf\\xe9"), ("\ud800", "\\ud800"), ("\0", "\\x00")],
)  # fmt: skip
def test_control_characters_are_written_out(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_message_keeps_its_own_line_breaks() -> None:
    assert printable_lines("a\n  b\x1b[2J") == "a\n  b\\x1b[2J"


def test_a_cut_name_counts_cells_and_not_letters() -> None:
    assert cut("abcdef", 6) == "abcdef"
    assert cut("abcdef", 5) == "abcd…"
    assert cut("漢字漢字", 8) == "漢字漢字"
    assert cut("漢字漢字", 6) == "漢字…"


def test_names_alike_at_the_beginning_show_where_they_differ() -> None:
    long = "a very long beginning of a label, "
    found = cut_names([f"{long}open", f"{long}closed", "cat", "a very different name that is long"], 16)
    assert found == ["a very …el, open", "a very …, closed", "cat", "a very differen…"]
    middle = cut_names(["x" * 30 + "1" + "y" * 30, "x" * 30 + "2" + "y" * 30], 12)
    assert middle == ["xxxxx…1yyyy…", "xxxxx…2yyyy…"]


@given(st.lists(st.text("ab漢e\u0301", max_size=30), unique=True, max_size=12), st.integers(5, 20))
def test_no_cut_name_is_wider_than_asked(names: list[str], cells: int) -> None:
    found = cut_names(names, cells)
    assert all(cell_len(text) <= cells for text in found)
    assert all(text == name for name, text in zip(names, found, strict=True) if cell_len(name) <= cells)


@given(st.integers(0, 2**40 - 1), st.integers(0, 2**40 - 1))
def test_two_names_that_differ_are_cut_to_two_that_differ(first: int, second: int) -> None:
    names = {f"{number:040b}" for number in (first, second)}
    assert len(set(cut_names(names, 10))) == len(names)


def test_text_is_wrapped_in_cells_at_blanks_and_inside_long_words() -> None:
    assert wrapped("a bc def", 4, 9) == ["a bc", "def"]
    assert wrapped("漢字漢字", 5, 9) == ["漢字", "漢字"]
    assert wrapped("abcdefghij k", 4, 9) == ["abcd", "efgh", "ij k"]
    assert wrapped("ab cd ef gh", 5, 1) == ["ab c…"]
    assert wrapped("", 5, 1) == [""]


def test_the_first_of_many_names_say_that_there_are_more() -> None:
    assert first_of([1, 2, 3], 3, in_all=True) == "1, 2, 3"
    assert first_of("abc", 2) == "a, b, ..."
    assert first_of((str(n) for n in range(1234)), 1, in_all=True) == "0, ... (1,234 in all)"


def test_a_number_takes_its_noun_in_the_plural_unless_it_is_one() -> None:
    assert [counted(number, "trial") for number in (0, 1, 2, 1000)] == ["0 trials", "1 trial", "2 trials", "1,000 trials"]


def test_no_message_leaves_the_plural_to_the_reader() -> None:
    package = Path(rayprob.__file__).parent
    files = [path for suffix in ("py", "html") for path in package.rglob(f"*.{suffix}")]
    assert [path.name for path in files if re.search(r'[a-zA-Z]\(s\)[ ,;:"]', path.read_text(encoding="utf-8"))] == []


def test_names_are_listed_as_in_a_sentence() -> None:
    assert [listed("abc"[:number]) for number in range(4)] == ["", "a", "a and b", "a, b and c"]
