"""Parallel coordinates: one line per trial over the searched parameters, the metric last."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from rayprob.report.svg import INKS, drawing, to_svg
from rayprob.report.sweep.axes import Axis, metric_axis, parameter_axis
from rayprob.report.sweep.looks import LOOKS, Chart, draw_key, parameter_table, role, thinning, tooltip, value_of
from rayprob.report.sweep.words import NOT_SET, tail
from rayprob.runs.sweep_summary import SweepSummary, TrialSummary
from rayprob.text import cut_names

MOST_AXES = 8
AXIS_PX = 118


def parallel(sweep: SweepSummary) -> Chart | None:
    """Return one line per trial over the searched parameters, the metric last, better trials darker; None without trials."""
    names = sweep.ranked[:MOST_AXES][::-1]  # the most important next to the metric
    if not names or not sweep.valued:
        return None
    axes_A = [
        *(parameter_axis(sweep, name) for name in names),
        metric_axis(sweep.metric, [value_of(sweep, trial) for trial in sweep.valued]),
    ]
    with drawing(max(AXIS_PX * len(axes_A), 460), 330) as figure:
        axes = figure.subplots()
        for x, axis in enumerate(axes_A):
            _draw_axis(axes, x, axis, is_last=x == len(names))
        titles: dict[str, str] = {}
        for trial in sweep.valued:
            heights = [axis.place(trial.params.get(name, NOT_SET)) for axis, name in zip(axes_A, names, strict=False)]
            heights.append(axes_A[-1].place(value_of(sweep, trial)))
            titles |= _draw_line(axes, sweep, trial, heights)
        _clear(axes, len(axes_A))
        draw_key(figure, sweep, sweep.valued, as_lines=True)
        svg = to_svg(figure, "parallel", _description(sweep, names), titles)
    return Chart("All parameters at once", svg, *parameter_table(sweep, list(sweep.space)), says=_left_out(sweep, names))


def _draw_axis(axes: Axes, x: int, axis: Axis, *, is_last: bool) -> None:
    axes.plot([x, x], [0, 1], color=INKS["muted" if is_last else "grid"], linewidth=1.2, zorder=1)
    offset, side = (6, "left") if is_last else (-6, "right")
    text = {"color": INKS["muted"], "fontsize": 8.5, "ha": side, "va": "center", "zorder": 9}
    text["bbox"] = {"facecolor": INKS["surface"], "edgecolor": "none", "alpha": 0.8, "pad": 1}
    ticks = axis.ticks + axis.extra
    for (place, _), words in zip(ticks, cut_names([words for _, words in ticks], 14), strict=True):
        axes.plot(x, place, "_", color=INKS["muted"], markersize=5, zorder=1)
        axes.annotate(words, (x, place), (offset, 0), textcoords="offset points", **text)  # type: ignore[arg-type]
    name = tail(axis.name, 19) + (", log" if axis.is_log else "")
    weight = "bold" if is_last else "normal"
    axes.annotate(name, (x, 1), (0, 12), textcoords="offset points", ha="center", fontsize=9, fontweight=weight)


def _draw_line(axes: Axes, sweep: SweepSummary, trial: TrialSummary, heights: Sequence[float]) -> dict[str, str]:
    name, gid = role(sweep, trial), f"trial{trial.number}"
    look = LOOKS[name]
    alpha = (0.15 + 0.6 * heights[-1] if name == "trial" else look.alpha) * thinning(sweep, trial)
    thick = {"best": 2.6, "default": 2.0}.get(name, 1.3)
    style = {"color": INKS[look.ink], "alpha": alpha, "linewidth": thick}
    axes.plot(range(len(heights)), heights, zorder=look.layer, gid=gid, **style)  # type: ignore[arg-type]
    return {gid: tooltip(sweep, trial)}


def _clear(axes: Axes, count: int) -> None:
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlim(-0.62, count - 0.6)


def _description(sweep: SweepSummary, names: Sequence[str]) -> str:
    listed = ", ".join(names)
    best = sweep.best_trial
    at = f" The best, trial {best.number}: {tooltip(sweep, best)}." if best else ""
    return f"Parallel coordinates: one line for each of {len(sweep.valued)} trials over {listed} and {sweep.metric.name}.{at}"


def _left_out(sweep: SweepSummary, names: Sequence[str]) -> str:
    rest = [name for name in sweep.space if name not in names]
    which = "The first" if sweep.importance is None else "The most important"
    return f"{which} {len(names)} of {len(sweep.space)} parameters; not drawn: {', '.join(rest)}." if rest else ""
