"""From a matplotlib figure to inline SVG that follows the page: its colours are CSS variables, its text is text.

Figures are drawn with the sentinel colours of INKS; in the page they become `var(--NAME)`, so light and dark are one file.
Everything that a strict Content-Security-Policy would refuse (style attributes and elements) becomes plain attributes.
"""

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure

from rayprob.figures import LITERAL, rendered
from rayprob.text import printable

INKS = {
    "ink": "#010101",
    "muted": "#020202",
    "grid": "#030303",
    "one": "#040404",
    "two": "#050505",
    "three": "#060606",
    "four": "#070707",
    "surface": "#080808",
}
FONT_PX = 10
RC: Any = {
    **LITERAL,
    "svg.fonttype": "none",
    "font.size": FONT_PX,
    "axes.titlesize": FONT_PX,
    "axes.edgecolor": INKS["grid"],
    "axes.labelcolor": INKS["muted"],
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": INKS["grid"],
    "grid.linewidth": 0.6,
    "text.color": INKS["ink"],
    "xtick.color": INKS["grid"],
    "ytick.color": INKS["grid"],
    "xtick.labelcolor": INKS["muted"],
    "ytick.labelcolor": INKS["muted"],
    "ytick.major.size": 0,
    "xtick.major.size": 3,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}
_INK_OF = {colour: name for name, colour in INKS.items()}
_DROPPED = {"metadata", "style"}


@contextmanager
def drawing(width_px: float = 460, height_px: float = 290) -> Iterator[Figure]:
    """Yield a figure of that size in the page's style; one unit is one CSS pixel at full size."""
    with mpl.rc_context(RC):
        yield Figure(figsize=(width_px / 72, height_px / 72), layout="constrained")


def to_svg(figure: Figure, name: str, description: str, titles: Mapping[str, str] | None = None) -> Markup:
    """Return the figure as an SVG element whose ids begin with `name`; `titles` gives artists, by gid, a tooltip."""
    with mpl.rc_context({**RC, "svg.hashsalt": name}):
        content = rendered(figure, keeps_text=True, format="svg", metadata={"Date": None})
    root = ET.fromstring(content)
    _clean(root, name, titles or {})
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": printable(description), "class": "chart"}
    return Markup(ET.tostring(root, encoding="unicode"))  # ElementTree has escaped every text


def _clean(element: ET.Element, prefix: str, titles: Mapping[str, str]) -> None:
    element.tag = _local(element.tag)
    element.attrib = dict(_attributes(element, prefix))
    gid = element.attrib.get("id", "").removeprefix(f"{prefix}-")
    for child in [child for child in element if _local(child.tag) in _DROPPED]:
        element.remove(child)
    for child in element:
        _clean(child, prefix, titles)
    if gid in titles:
        title = ET.Element("title")
        title.text = printable(titles[gid])
        element.insert(0, title)


def _attributes(element: ET.Element, prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in element.attrib.items():
        key = _local(key)
        if key == "id":
            yield key, f"{prefix}-{value}"
        elif key == "style":
            yield from _plain_style(value)
        elif value.startswith("#") and key == "href":
            yield key, f"#{prefix}-{value[1:]}"
        else:
            yield key, _inked(value.replace("url(#", f"url(#{prefix}-"))


def _plain_style(style: str) -> Iterator[tuple[str, str]]:
    for part in filter(None, map(str.strip, style.split(";"))):
        key, value = (word.strip() for word in part.split(":", 1))
        if key == "font":
            # The shorthand is not an attribute; the font family comes from the page.
            size = next(word for word in value.split() if word.endswith("px"))
            yield "font-size", size.removesuffix("px")
            if "bold" in value or "700" in value or "600" in value:
                yield "font-weight", "600"
        elif key != "font-family":
            yield key, _inked(value)


def _inked(value: str) -> str:
    name = _INK_OF.get(value)
    return f"var(--{name})" if name else value


def _local(tag: str) -> str:
    return tag.rsplit("}", 1)[-1]
