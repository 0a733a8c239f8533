"""The metric against one searched parameter at a time, and the value and cost of each resolution."""

import statistics
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

from rayprob.report.charts import MOST_LETTERS, shortened
from rayprob.report.svg import drawing, to_svg
from rayprob.report.sweep.axes import Axis, parameter_axis
from rayprob.report.sweep.looks import Chart, draw_spots, parameter_of, parameter_table, value_of
from rayprob.report.sweep.words import NOT_SET, tail, told
from rayprob.report.sweep.words import figure as told_value
from rayprob.runs.sweep_summary import SweepSummary, TrialSummary
from rayprob.text import cut_names

RESOLUTION = "resolution_px"
CROWDED = 36  # letters under an axis


def slices(sweep: SweepSummary) -> list[Chart]:
    """Return the metric against each searched parameter: the resolution first, then the most important."""
    resolution = resolution_parameter(sweep)
    names = sorted(sweep.ranked, key=lambda name: name != resolution) if sweep.valued else []
    return [slice_of(sweep, name, f"slice{place}") for place, name in enumerate(names)]


def slice_of(sweep: SweepSummary, name: str, prefix: str) -> Chart:
    """Return the metric against one parameter."""
    axis = parameter_axis(sweep, name)
    spots = [(trial, axis.place(trial.params.get(name, NOT_SET)), value_of(sweep, trial)) for trial in sweep.valued]
    with drawing(320, 230) as figure:
        axes = figure.subplots()
        titles = draw_spots(axes, sweep, spots)
        _draw_ticks(axes, axis)
        axes.set_xlabel(f"{tail(name, 28)}{', logarithmic' if axis.is_log else ''}")
        axes.set_ylabel(shortened(sweep.metric.name))
        axes.margins(y=0.08)
        svg = to_svg(figure, prefix, f"{sweep.metric.name} of each trial against {name}{_best_at(sweep, name)}", titles)
    return Chart(name, svg, *parameter_table(sweep, [name]))


def resolution_parameter(sweep: SweepSummary) -> str | None:
    """Return the searched parameter that is a resolution, or None if there is none."""
    return next((name for name in sweep.space if is_size(name)), None)


def is_size(name: str) -> bool:
    """Return whether a dotted key is the resolution, or the size that a transform gives to images."""
    return (name.endswith("size_px") and "transform" in name) or name.split(".")[-1] == RESOLUTION


def resolution_rows(sweep: SweepSummary, name: str) -> tuple[tuple[str, ...], ...]:
    """Return (resolution, trials, best value, median images per second) for each resolution that reached a value."""
    groups: dict[str, list[TrialSummary]] = {}
    for trial in sweep.valued:
        if name in trial.params:
            groups.setdefault(told(trial.params[name]), []).append(trial)
    ordered = sorted(groups.items(), key=lambda item: float(item[0]) if item[0].isdecimal() else 0.0)
    return tuple((px, str(len(some)), _best_value(sweep, some), _median_speed(some)) for px, some in ordered)


def _best_value(sweep: SweepSummary, trials: Sequence[TrialSummary]) -> str:
    values = [value_of(sweep, trial) for trial in trials]
    return told_value(max(values) if sweep.metric.sign > 0 else min(values))


def _median_speed(trials: Sequence[TrialSummary]) -> str:
    speeds = [trial.speed for trial in trials if trial.speed]
    return f"{statistics.median(speeds):,.0f}" if speeds else "not measured"


def _draw_ticks(axes: Axes, axis: Axis) -> None:
    ticks = axis.ticks + axis.extra
    crowded = sum(len(words) for _, words in ticks) > CROWDED
    turned: Any = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
    axes.set_xticks([at for at, _ in ticks], cut_names([words for _, words in ticks], MOST_LETTERS), **turned)
    axes.set_xlim(min(at for at, _ in (*ticks, (0.0, ""))) - 0.06, 1.06)


def _best_at(sweep: SweepSummary, name: str) -> str:
    best = sweep.best_trial
    return f", the best at {parameter_of(best, name)}" if best else ""
