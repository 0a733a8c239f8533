"""The page's charts: plain values in, inline SVG out. Each has a text description for screen readers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from rayprob.arrays import Floats
from rayprob.metrics.reliability import ReliabilityCurve
from rayprob.report.run.curves import Line, ThresholdChart
from rayprob.report.run.labels import LabelRow
from rayprob.report.svg import INKS, drawing, to_svg
from rayprob.text import cut, cut_names, printable

SERIES = ("one", "two", "three", "four")
NAMED_POINTS = 5
SMOOTH_POINTS = 12
MOST_LETTERS = 16  # of a name next to an axis
COUNTS = FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else "")  # matplotlib's own would write formulas


def over_steps(line: Line, name: str, description: str, *, is_noisy: bool = False, mark: int | None = None) -> Markup:
    """Return a line over steps, with a running mean where it is noisy, and a mark at one step, such as the best."""
    with drawing(440, 210) as figure:
        axes = figure.subplots()
        dots = "o" if len(line.x) < 40 else ""
        many = is_noisy and len(line.x) > 4 * SMOOTH_POINTS
        axes.plot(line.x, line.y, color=INKS["one"], marker=dots, markersize=3.2, alpha=0.35 if many else 1)
        if many:
            axes.plot(line.x, smoothed(line.y), color=INKS["one"])
        if mark in line.x:
            at = line.x.index(mark)
            axes.plot(mark, line.y[at], "o", color=INKS["two"], markersize=6)
            axes.annotate("best", (mark, line.y[at]), (0, 7), textcoords="offset points", ha="center", color=INKS["two"])
            axes.margins(y=0.15)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel("step")
        return to_svg(figure, name, description)


def smoothed(values: Sequence[float]) -> Floats:
    """Return a centred running mean that keeps its ends."""
    padded = np.pad(np.asarray(values), SMOOTH_POINTS // 2, mode="edge")
    return np.convolve(padded, np.ones(SMOOTH_POINTS) / SMOOTH_POINTS, mode="valid")[: len(values)]


def precision_recall(lines: Sequence[Line], description: str) -> Markup:
    """Return precision against recall; the first line is the pooled one."""
    with drawing(460, 320) as figure:
        axes = figure.subplots()
        shown = list(zip(lines, SERIES, strict=False))
        drawn = [axes.plot(line.x, line.y, color=INKS[ink], linewidth=2.2 if ink == "one" else 1.4)[0] for line, ink in shown]
        _unit_square(axes)
        axes.set_xlabel("recall")
        axes.set_ylabel("precision")
        # matplotlib leaves out names that begin with "_", but not those given to the legend itself.
        names = [line.name for line, _ in shown]
        place: Any = {"loc": "outside upper left", "ncols": 2, "handlelength": 1.4, "borderaxespad": 0}
        figure.legend(drawn, names, labelcolor=INKS["muted"], **place)
        return to_svg(figure, "pr", description)


def ap_by_prevalence(rows: Sequence[LabelRow], description: str) -> Markup:
    """Return AP against the number of positives, one point per label; outliers are named."""
    counted = [row for row in rows if row.ap is not None]
    x = [max(row.positives if row.train_positives is None else row.train_positives, 1) for row in counted]
    y = [float(row.ap or 0) for row in counted]
    with drawing(460, 320) as figure:
        axes = figure.subplots()
        titles = {}
        for place, (row, at_x, at_y) in enumerate(zip(counted, x, y, strict=True)):
            (point,) = axes.plot(at_x, at_y, "o", color=INKS["one"], markersize=5, alpha=0.75, markeredgewidth=0)
            point.set_gid(f"label{place}")
            titles[f"label{place}"] = f"{row.name}: AP {at_y:.3f}, {at_x:,} positives"
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(COUNTS)
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(0, 1.04)
        where = "training" if counted and counted[0].train_positives is not None else "this split"
        axes.set_xlabel(f"positives in {where}, logarithmic")
        axes.set_ylabel("AP")
        axes.margins(x=0.1)
        for place in _apart(_outliers(y), np.log10(x).tolist(), y):
            axes.annotate(
                counted[place].name, (x[place], y[place]), (5, 4), textcoords="offset points", color=INKS["muted"], fontsize=9
            )
        return to_svg(figure, "ap", description, titles)


def reliability(before: ReliabilityCurve, after: ReliabilityCurve | None, description: str) -> Markup:
    """Return the share present against the marginal, before and after calibration, above the number of pairs."""
    with drawing(460, 360) as figure:
        axes, below = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
        axes.plot([0, 1], [0, 1], color=INKS["muted"], linewidth=1, linestyle=(0, (2, 3)))
        shown = [("before calibration", before, "two")] + ([("after", after, "one")] if after else [])
        for name, curve, ink in shown:
            filled = curve.pairs_B > 0
            points = curve.mean_marginal_B[filled], curve.present_share_B[filled]
            axes.plot(*points, color=INKS[ink], marker="o", markersize=4.5, label=name)
        _unit_square(axes)
        axes.set_ylabel("share actually present")
        axes.legend(loc="upper left", labelcolor=INKS["muted"], handlelength=1.4)
        _, last, ink = shown[-1]
        width = np.diff(last.edges)
        below.bar(last.edges[:-1], last.pairs_B, width * 0.92, align="edge", color=INKS[ink], alpha=0.55)
        below.set_yscale("log")
        below.yaxis.set_major_formatter(COUNTS)
        below.yaxis.set_minor_formatter(NullFormatter())
        below.set_ylabel("pairs")
        below.set_xlabel("marginal: the predicted probability")
        return to_svg(figure, "reliability", description)


def f1_against_threshold(chart: ThresholdChart, description: str) -> Markup:
    """Return F1 against the threshold with the chosen thresholds marked."""
    with drawing(460, 320) as figure:
        axes = figure.subplots()
        styles = (("one", 2.2, "-"), ("three", 1.4, "-"), ("muted", 1.2, (0, (4, 2))))
        for line, (ink, width, dash) in zip(chart.lines, styles, strict=False):
            axes.plot(line.x, line.y, color=INKS[ink], linewidth=width, linestyle=dash, label=line.name)
        lift = 8
        for name, at, value in chart.marks:
            axes.plot([at, at], [0, value], color=INKS["two"], linewidth=1, linestyle=(0, (2, 2)))
            axes.plot(at, value, "o", color=INKS["two"], markersize=6)
            axes.annotate(
                f"{name}: {value:.3f}", (at, value), (6, lift), textcoords="offset points", color=INKS["two"], fontsize=9
            )
            lift += 10
        axes.set_xlim(0, 1)
        axes.set_ylim(0, min(1.04, 1.25 * max(max(line.y) for line in chart.lines) + 0.02))
        axes.set_xlabel("threshold, one for all labels")
        axes.set_ylabel("F1")
        figure.legend(loc="outside upper left", ncols=3, labelcolor=INKS["muted"], handlelength=1.6, borderaxespad=0)
        return to_svg(figure, "f1", description)


def heat_map(values_MM: Floats, names: Sequence[str], name: str, description: str, *, signed: bool = False) -> Markup:
    """Return a square heat map: darker means a larger share. With `signed`, one colour for too much and one for too little."""
    size = len(names)
    greatest = float(np.nanmax(np.abs(values_MM), initial=0)) if signed else 1.0
    greatest = max(greatest, 1e-9)
    with drawing(320, 330) as figure:
        axes = figure.subplots()
        titles = {}
        for row, column in np.ndindex(size, size):
            value = float(values_MM[row, column])
            if not np.isfinite(value):
                continue
            ink = INKS["two"] if signed and value > 0 else INKS["one"]
            gid = f"cell{row}x{column}"
            square = Rectangle(
                (column - 0.46, row - 0.46), 0.92, 0.92, facecolor=ink, alpha=min(abs(value) / greatest, 1), gid=gid
            )
            axes.add_patch(square)
            titles[gid] = (
                f"P({names[column]} | {names[row]}): {value:+.3f}"
                if signed
                else f"P({names[column]} | {names[row]}) = {value:.3f}"
            )
        axes.set_xlim(-0.5, size - 0.5)
        axes.set_ylim(size - 0.5, -0.5)
        axes.set_aspect("equal")
        axes.grid(False)
        axes.spines[:].set_visible(False)
        short = cut_names(map(printable, names), MOST_LETTERS)
        axes.set_xticks(range(size), short, rotation=90, fontsize=9)
        axes.set_yticks(range(size), short, fontsize=9)
        axes.tick_params(length=0)
        return to_svg(figure, name, description, titles)


def shortened(name: str, most: int = MOST_LETTERS) -> str:
    """Return a name short enough to fit next to an axis."""
    return cut(name, most)


def _unit_square(axes: Axes) -> None:
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(0, 1.03)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def _apart(places: Sequence[int], x: Sequence[float], y: Sequence[float]) -> list[int]:
    """Return the places whose names do not overlap; earlier places take precedence."""
    width = max(max(x, default=0) - min(x, default=0), 1e-9)
    kept: list[int] = []
    for place in places:
        if all(abs(y[place] - y[other]) > 0.045 or abs(x[place] - x[other]) > 0.22 * width for other in kept):
            kept.append(place)
    return kept


def _outliers(values: Sequence[float]) -> list[int]:
    order = np.argsort(values, kind="stable").tolist()
    return list(dict.fromkeys([*order[:NAMED_POINTS], *order[-NAMED_POINTS:]]))
