"""What all figures share: text is drawn literally, never as mathematics, and in fonts that have its letters."""

import io
import logging
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter

from rayprob.text import printable, printable_lines

LITERAL: Any = {"text.parse_math": False}  # a file name may contain dollar signs
# Fonts of TeX, whose code points are not Unicode's, and fonts that draw a box for every letter.
UNFIT = re.compile(r"cm(b|ex|mi|r|ss|sy|ti|tt)10|STIX(NonUnicode|Size.*)|\.?Last ?Resort.*", re.IGNORECASE)
INVISIBLE = {"Cc", "Cf", "Mn", "Me", "Zs", "Zl", "Zp"}
MOST_NAMED = 20
log = logging.getLogger(__name__)
_told: set[str] = set()


@contextmanager
def literal() -> Iterator[None]:
    """A context, also usable as a decorator, in which new figures draw `$`, `_` and `^` in texts literally."""
    with mpl.rc_context(LITERAL):
        yield


@literal()
def rendered(figure: Figure, *, keeps_text: bool = False, **options: Any) -> bytes:
    """Return a figure as the contents of a file, drawn with fonts of this machine that have its letters.

    Letters that no font has are logged once, unless the format `keeps_text`: then its viewer provides the fonts.
    """
    _escape(figure)
    content = _saved(figure, options)
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text) and not text.get_text().isascii()]
    missing = frozenset("".join(text.get_text() for text in texts)) - _letters(*mpl.rcParams["font.family"])
    missing = frozenset(letter for letter in missing if unicodedata.category(letter) not in INVISIBLE)
    if not missing:
        return content
    families = fonts_with(missing)
    if not keeps_text:
        _tell(missing - _letters(*families))
    if not families:
        return content
    for text in texts:
        text.set_fontfamily([*mpl.rcParams["font.family"], *families])
    return _saved(figure, options)


@lru_cache
def fonts_with(letters: frozenset[str]) -> tuple[str, ...]:
    """Return font families of this machine that together have as many of the letters as possible, sans-serif ones first."""
    found, left = [], set(letters)
    for family in sorted(_upright(), key=lambda name: ("sans" not in name.lower(), name)):
        if not left:
            break
        if left & _letters(family):
            found.append(family)
            left -= _letters(family)
    return tuple(found)


def _upright() -> set[str]:
    """Return the families of this machine that have an upright font."""
    fonts = font_manager.fontManager.ttflist
    return {font.name for font in fonts if font.style == "normal" and not UNFIT.fullmatch(font.name)}


@lru_cache(maxsize=512)
def _letters_of(family: str) -> frozenset[str]:
    with _quiet_fonts():
        try:
            path = font_manager.findfont(font_manager.FontProperties(family=[family]), fallback_to_default=False)
            return frozenset(map(chr, font_manager.get_font(path).get_charmap()))
        except (ValueError, OSError, RuntimeError):  # in matplotlib's list, but removed or damaged since
            return frozenset()


def _letters(*families: str) -> frozenset[str]:
    return frozenset().union(*map(_letters_of, families))


@contextmanager
def _quiet_fonts() -> Iterator[None]:
    """Keep matplotlib from logging that a family has its letters in another weight only."""
    fonts = logging.getLogger("matplotlib.font_manager")
    before = fonts.level
    fonts.setLevel(logging.ERROR)
    try:
        yield
    finally:
        fonts.setLevel(before)


def _saved(figure: Figure, options: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(record=True) as caught, _quiet_fonts():
        warnings.simplefilter("always")
        figure.savefig(buffer, **options)
    for message in dict.fromkeys(str(warning.message) for warning in caught):
        if not message.startswith("Glyph ") and message not in _told:
            _told.add(message)
            log.warning("matplotlib: %s", message)
    return buffer.getvalue()


def _escape(figure: Figure) -> None:
    """Escape control characters in the texts of a figure: no font has them, and SVG does not allow them."""
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_text(printable_lines(text.get_text()))
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            formatter = axis.get_major_formatter()
            if isinstance(formatter, FuncFormatter):  # names given to set_xticks become one
                formatter.func = _printing(formatter.func)


def _printing(tick: Callable[..., str]) -> Callable[..., str]:
    return lambda value, place=None: printable_lines(tick(value, place))


def _tell(letters: Iterable[str]) -> None:
    new = sorted(set(letters) - _told)
    if not new:
        return
    _told.update(new)
    shown = " ".join(map(printable, new[:MOST_NAMED])) + (f" and {len(new) - MOST_NAMED} more" if len(new) > MOST_NAMED else "")
    log.warning(
        "figures show boxes for %s: no font on this machine has these letters; install one that does, such as Noto Sans CJK "
        "for Chinese, Japanese and Korean",
        shown,
    )
