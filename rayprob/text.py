"""Shows foreign text, such as names of labels and files or messages of libraries, literally and on one line.

Widths are in cells, as terminals count them: a Chinese character takes two.
"""

import unicodedata
from collections.abc import Iterable, Sequence

from rich.cells import cell_len

CONTROL = {"Cc", "Cs", "Zl", "Zp"}  # line ends, control characters, and surrogates, which no file can contain
TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # these reorder the letters around them
CUT = "…"


def printable(text: str) -> str:
    r"""Return `text` with control characters written as Python writes them, so that a newline becomes `\n` and ESC `\x1b`.

    A byte of a file name that is not UTF-8, which Python keeps as half of a surrogate pair, becomes `\xNN`.
    """
    if text.isprintable():
        return text
    return "".join(_escaped(letter) if _steers(letter) else letter for letter in text)


def printable_lines(text: str) -> str:
    """Return `text` as `printable` does, but keep its line breaks: for messages of several lines."""
    return "\n".join(map(printable, text.split("\n")))


def first_of(names: Iterable[object], most: int, *, in_all: bool = False) -> str:
    """Return the first `most` names, joined by commas, with three dots if there are more; `in_all` adds their number."""
    texts = [str(name) for name in names]
    more = f", ... ({len(texts):,} in all)" if in_all else ", ..."
    return ", ".join(texts[:most]) + (more if len(texts) > most else "")


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, which takes an s except for one: `1 step`, `2,000 steps`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(names: Sequence[str]) -> str:
    """Return names as in a sentence: `a`, `a and b`, `a, b and c`; "" without any."""
    *first, last = names or ("",)
    return f"{', '.join(first)} and {last}" if first else last


def cut(text: str, cells: int) -> str:
    """Return `text`, or its beginning and an ellipsis, in at most `cells` cells."""
    return text if cell_len(text) <= cells else _head(text, cells - 1) + CUT


def cut_names(names: Iterable[str], cells: int) -> list[str]:
    """Return each name in at most `cells` cells; names that differ stay different if `cells` allows it.

    A name is cut at its end. If it would then look like another, its beginning and the part that differs are kept.
    """
    names = list(names)
    shown = {name: cut(name, cells) for name in names}
    for alike in _collisions(shown):
        shown |= _told_apart(alike, cells)
    return [shown[name] for name in names]


def columns(rows: Iterable[Sequence[str]]) -> str:
    """Return rows of texts as aligned columns: the first to the left, the others to the right. Rows are equally long."""
    rows = list(rows)
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]

    def cell(place: int, text: str) -> str:
        blanks = " " * (widths[place] - cell_len(text))
        return blanks + text if place else text + blanks

    return "\n".join("  ".join(cell(place, text) for place, text in enumerate(row)).rstrip() for row in rows)


def wrapped(text: str, cells: int, most_lines: int) -> list[str]:
    """Return `text` in lines of at most `cells` cells, broken at spaces if possible, and cut after `most_lines` lines."""
    lines = [""]
    for word in text.split(" "):
        if len(lines) > most_lines:
            break
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if cell_len(joined) <= cells:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        while len(lines) <= most_lines and cell_len(word) > cells:
            lines[-1] = _head(word, cells)
            word = word[len(lines[-1]) :]
            lines.append("")
        lines[-1] = word
    if len(lines) <= most_lines:
        return lines
    return [*lines[: most_lines - 1], _head(lines[most_lines - 1], cells - 1) + CUT]


def _told_apart(names: Sequence[str], cells: int) -> dict[str, str]:
    """Cut names so that each shows its letters from the first position at which they differ."""
    first = _shared(names)
    shown = {name: _from(name, first, cells) for name in names}
    for alike in _collisions(shown):
        if len(alike) < len(names):
            shown |= _told_apart(alike, cells)
    return shown


def _from(name: str, place: int, cells: int) -> str:
    if cell_len(name) <= cells:
        return name
    head = _head(name[:place], (cells - 1) // 2)
    left = cells - cell_len(head) - 1
    end = _tail(name, left)
    return head + CUT + (end if len(name) - len(end) <= place else cut(name[place:], left))


def _collisions(shown: dict[str, str]) -> list[list[str]]:
    groups: dict[str, list[str]] = {}
    for name, text in shown.items():
        groups.setdefault(text, []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def _shared(names: Sequence[str]) -> int:
    """Return how many letters all names have in common at their beginning."""
    least, greatest = min(names), max(names)
    return next((place for place, letter in enumerate(least) if letter != greatest[place]), len(least))


def _head(text: str, cells: int) -> str:
    end = used = 0
    while end < len(text) and (used := used + cell_len(text[end])) <= cells:
        end += 1
    return text[:end]


def _tail(text: str, cells: int) -> str:
    start, used = len(text), 0
    while start and (used := used + cell_len(text[start - 1])) <= cells:
        start -= 1
    return text[start:]


def _steers(letter: str) -> bool:
    return unicodedata.category(letter) in CONTROL or letter in TURNING


def _escaped(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode("ascii")
