"""Positions of the values of a parameter or metric on an axis from 0 to 1: linear, logarithmic, or one place per choice."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from rayprob.report.sweep.words import NOT_SET, brief, figure, told
from rayprob.runs.sweep_summary import Metric, Range, SweepSummary

BELOW = -0.13  # height of the first place below the axis
MOST_DECADES = 6


@dataclass(frozen=True)
class Axis:
    """A named axis; ticks are (place, words), `extra` those below it for what has no place on it."""

    name: str
    ticks: tuple[tuple[float, str], ...]
    extra: tuple[tuple[float, str], ...] = ()
    low: float = 0.0  # of a numeric axis, after the logarithm if it is logarithmic
    high: float = 0.0
    is_numeric: bool = False
    is_log: bool = False
    is_upside_down: bool = False

    def place(self, value: Any) -> float:
        """Return where a value, or NOT_SET, stands: 0 to 1, or below 0 for what has no place on the axis."""
        if self.is_numeric and _is_number(value):
            share = (_scaled(float(value), self.is_log) - self.low) / (self.high - self.low)
            return 1 - share if self.is_upside_down else share
        places = {words: at for at, words in self.ticks + self.extra}
        return places.get(told(value), BELOW)


def parameter_axis(sweep: SweepSummary, name: str) -> Axis:
    """Return the axis of a searched parameter, wide enough for every trial, the default among them."""
    span = sweep.space[name]
    values = [trial.params.get(name, NOT_SET) for trial in sweep.settings]
    if span.choices is not None:
        return _choices(name, span.choices, values)
    return _numeric(name, span, values)


def metric_axis(metric: Metric, values: Sequence[float]) -> Axis:
    """Return the axis of a metric with the better end on top."""
    low, high = _widened(min(values), max(values))
    axis = Axis(metric.name, (), (), low, high, is_numeric=True, is_upside_down=metric.sign < 0)
    inside = [at for at in MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high) if low <= at <= high]
    return _with_ticks(axis, [(float(at), f"{at:.4g}") for at in inside] or [(low, figure(low)), (high, figure(high))])


def _choices(name: str, choices: Iterable[Any], values: Iterable[Any]) -> Axis:
    # What was tried beyond the choices, such as the run file's own value, is a place too.
    tried = [value for value in values if value != NOT_SET]
    distinct = {told(value): value for value in (*choices, *tried)}
    if all(map(_is_number, distinct.values())):
        distinct = dict(sorted(distinct.items(), key=lambda item: float(item[1])))
    spots = np.linspace(0, 1, len(distinct) + 2)[1:-1] if len(distinct) < 3 else np.linspace(0, 1, len(distinct))
    ticks = tuple(zip(spots.tolist(), distinct, strict=True))
    return Axis(name, ticks, _below(values, lambda value: value == NOT_SET))


def _numeric(name: str, span: Range, values: Sequence[Any]) -> Axis:
    tried = [float(value) for value in values if _is_number(value)]
    bounds = [bound for bound in (span.low, span.high) if bound is not None and math.isfinite(bound)]
    known = [*bounds, *tried] or [0.0]
    is_log = span.kind == "loguniform" and min(known) > 0
    low, high = _widened(*(_scaled(end, is_log) for end in (min(known), max(known))))
    axis = Axis(name, (), _below(values, lambda value: not _is_number(value)), low, high, is_numeric=True, is_log=is_log)
    return _with_ticks(axis, [(at, brief(at)) for at in _tick_values(min(known), max(known), is_log=is_log)])


def _tick_values(low: float, high: float, *, is_log: bool) -> list[float]:
    if not is_log:
        return [float(at) for at in MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(low, high) if low <= at <= high]
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    decades = [10.0**power for power in range(first, last + 1, max(1, (last - first) // MOST_DECADES + 1))]
    return decades if len(decades) > 1 else [low, high]


def _with_ticks(axis: Axis, ticks: Sequence[tuple[float, str]]) -> Axis:
    placed = tuple((axis.place(at), words) for at, words in ticks)
    return Axis(**{**vars(axis), "ticks": placed})


def _below(values: Iterable[Any], has_no_place: Any) -> tuple[tuple[float, str], ...]:
    homeless = [value for value in values if has_no_place(value)]
    words = dict.fromkeys(map(told, homeless))
    return tuple((BELOW * (step + 1), text) for step, text in enumerate(words))


def _widened(low: float, high: float) -> tuple[float, float]:
    """Return the bounds, widened if there is only one value."""
    if high > low:
        return low, high
    around = abs(low) * 0.1 or 1.0
    return low - around, high + around


def _scaled(value: float, is_log: bool) -> float:
    return math.log10(value) if is_log else value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
