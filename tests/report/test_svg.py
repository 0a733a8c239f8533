"""Charts of the page: names are text in them, whatever letters they have, and stay apart."""

import logging
import warnings
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from rayprob.report.charts import heat_map, precision_recall
from rayprob.report.run.curves import Line
from rayprob.report.svg import drawing, to_svg
from rayprob.report.sweep.axes import Axis
from rayprob.report.sweep.words import told

LONG = "a label with a long beginning, "
ODD = ("$x_{1}$", "a\\b_c^2", "[/b] :cat:", "<b>&", "漢字", "\U000eabcd", "new\nline", "\x1b[31mred", "_hidden")
SHOWN = ("$x_{1}$", "a\\b_c^2", "[/b] :cat:", "<b>&", "漢字", "\U000eabcd", "new\\nline", "\\x1b[31mred", "_hidden")


def texts(svg: str) -> list[str]:
    return ["".join(element.itertext()) for element in ET.fromstring(svg).iter("text")]


@pytest.fixture(autouse=True)
def no_warning(caplog: pytest.LogCaptureFixture) -> object:
    """A page's reader brings the fonts, so no letter is worth a warning."""
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        yield
    assert caplog.messages == []


def test_names_beside_a_chart_are_as_they_are() -> None:
    shown = texts(heat_map(np.eye(len(ODD)), ODD, "map", "a map"))
    assert [shown.count(name) for name in SHOWN] == [2] * len(ODD)


def test_long_names_beside_a_chart_are_cut_and_stay_apart() -> None:
    svg = heat_map(np.eye(3), [f"{LONG}one", f"{LONG}two", "cat"], "map", "a map")
    assert len(set(texts(svg))) == 3
    assert all(len(name) <= 16 for name in texts(svg))


def test_the_legend_names_every_line_also_one_that_matplotlib_would_hide() -> None:
    lines = [Line("all labels pooled, AP 0.5", (0.0, 1.0), (1.0, 0.5)), Line("_private, AP 0.5", (0.0, 1.0), (1.0, 0.5))]
    assert {"all labels pooled, AP 0.5", "_private, AP 0.5"} <= {*texts(precision_recall(lines, "x"))}


def test_control_characters_in_any_text_leave_an_svg_that_can_be_read() -> None:
    with drawing() as figure:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], label="a\x00b")
        axes.set_title("a\x1bb")
        axes.annotate("a\x08b", (0.5, 0.5))
        figure.legend()
        svg = to_svg(figure, "x", "a chart")
    assert {"a\\x00b", "a\\x1bb", "a\\x08b"} <= {*texts(svg)}


def test_a_text_that_reads_as_a_number_is_told_from_the_number() -> None:
    values = (1, "1", True, "true", None, "null", 0.5, "0.5", "a")
    assert [told(value) for value in values] == ["1", '"1"', "true", '"true"', "null", '"null"', "0.5", '"0.5"', "a"]
    axis = Axis("x", tuple((float(place), told(value)) for place, value in enumerate(values)))
    assert [axis.place(value) for value in values] == [float(place) for place in range(len(values))]
