"""How trials look in every chart of a sweep: the best, the default, those stopped early, and the rest."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rayprob.report.html import NONE
from rayprob.report.made import duration
from rayprob.report.svg import INKS
from rayprob.report.sweep.words import NOT_SET, brief, settings_of
from rayprob.report.sweep.words import figure as told_value
from rayprob.runs.sweep_summary import SweepSummary, TrialSummary

MANY_LINES = 25
Table = tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]
Spot = tuple[TrialSummary, float, float]


@dataclass(frozen=True)
class Chart:
    """A chart with its heading, a sentence about it, and its numbers as a table."""

    title: str
    svg: Markup
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    says: str = ""


@dataclass(frozen=True)
class Look:
    """How trials of one role are drawn; a higher `layer` is drawn on top."""

    ink: str
    alpha: float
    size: float
    layer: int


LOOKS = {
    "best": Look("two", 1.0, 8.0, 5),
    "default": Look("three", 1.0, 7.0, 4),
    "trial": Look("one", 0.75, 5.0, 3),
    "stopped early": Look("one", 0.38, 4.5, 2),
}


def role(sweep: SweepSummary, trial: TrialSummary) -> str:
    """Return which of LOOKS a trial has."""
    if trial.number == sweep.best:
        return "best"
    if trial.number == sweep.default:
        return "default"
    return "stopped early" if trial.state == "pruned" else "trial"


def thinning(sweep: SweepSummary, trial: TrialSummary) -> float:
    """Return the opacity factor of a trial's line, so that the marked lines stay visible among hundreds."""
    if role(sweep, trial) in ("best", "default"):
        return 1.0
    return min(1.0, math.sqrt(MANY_LINES / max(len(sweep.settings), 1)))


def draw_spots(axes: Axes, sweep: SweepSummary, spots: Iterable[Spot]) -> dict[str, str]:
    """Draw a dot for each trial and return their tooltips by gid."""
    titles = {}
    for trial, x, y in spots:
        look = LOOKS[role(sweep, trial)]
        (dot,) = axes.plot(
            x, y, "o", color=INKS[look.ink], alpha=look.alpha, markersize=look.size, markeredgewidth=0, zorder=look.layer
        )
        dot.set_gid(f"trial{trial.number}")
        titles[f"trial{trial.number}"] = tooltip(sweep, trial)
    return titles


def tooltip(sweep: SweepSummary, trial: TrialSummary) -> str:
    """Return the tooltip of a trial."""
    value = told_value(trial.value(sweep.metric))
    return f"trial {trial.number}, {trial.state}: {sweep.metric.name} {value}; {settings_of(trial)}"


def draw_key(figure: Figure, sweep: SweepSummary, trials: Iterable[TrialSummary], *, as_lines: bool = False) -> None:
    """Draw a legend above the chart with the roles that occur in it."""
    present = {role(sweep, trial) for trial in trials}
    handles = [_handle(name, look, as_lines) for name, look in LOOKS.items() if name in present]
    figure.legend(
        handles=handles,
        loc="outside upper left",
        ncols=4,
        labelcolor=INKS["muted"],
        handlelength=1.2,
        handletextpad=0.5,
        columnspacing=1.4,
        borderaxespad=0,
    )


def table_of(sweep: SweepSummary, columns: dict[str, Callable[[TrialSummary], str]]) -> Table:
    """Return the header and rows of a table of the trials with a value: number, the given columns, the value."""
    cells: dict[str, Callable[[TrialSummary], str]] = {
        "trial": lambda trial: str(trial.number),
        **columns,
        sweep.metric.name: lambda trial: told_value(trial.value(sweep.metric)),
    }
    return tuple(cells), tuple(tuple(cell(trial) for cell in cells.values()) for trial in sweep.valued)


def parameter_table(sweep: SweepSummary, names: Iterable[str]) -> Table:
    """Return the table of the trials with a value and these of their parameters."""
    return table_of(sweep, {name: partial(parameter_of, name=name) for name in names})


def parameter_of(trial: TrialSummary, name: str) -> str:
    """Return a trial's value of a parameter as text."""
    return brief(trial.params[name]) if name in trial.params else NOT_SET


def value_of(sweep: SweepSummary, trial: TrialSummary) -> float:
    """Return the value of a trial that has one."""
    value = trial.value(sweep.metric)
    assert value is not None, f"trial {trial.number} has no value"
    return value


def lasted(elapsed_s: float | None) -> str:
    """Return seconds as text, or a dash."""
    return NONE if elapsed_s is None else duration(elapsed_s)


def _handle(name: str, look: Look, as_lines: bool) -> Line2D:
    mark = {"linewidth": 2.2} if as_lines else {"marker": "o", "linestyle": "", "markersize": look.size, "markeredgewidth": 0}
    return Line2D([], [], color=INKS[look.ink], alpha=look.alpha, label=name, **mark)
