"""The charts of a sweep over time, cost and noise: seeds, importance, learning curves, cost, and the Pareto front."""

from collections.abc import Callable, Sequence
from itertools import accumulate

import numpy as np
from matplotlib.axes import Axes

from rayprob.report.charts import shortened
from rayprob.report.svg import INKS, drawing, to_svg
from rayprob.report.sweep.looks import LOOKS, Chart, Spot, draw_key, draw_spots, lasted, role, table_of, thinning, tooltip
from rayprob.report.sweep.words import figure as told_value
from rayprob.report.sweep.words import tail
from rayprob.runs.sweep_summary import Seeds, SweepSummary, TrialSummary, finite

MOST_BARS = 12
SPEED = "images per second"


def seeds(sweep: SweepSummary) -> Chart | None:
    """Return the values of the default and the best, one dot per seed, with their means; None if seeds were not repeated."""
    found = _seeds_by_name(sweep)
    if not found:
        return None
    with drawing(460, 70 + 45 * len(found)) as figure:
        axes = figure.subplots()
        for row, (name, values) in enumerate(found.items()):
            _draw_seeds(axes, row, values, LOOKS[name].ink)
        axes.set_yticks(range(len(found)), list(found), color=INKS["ink"])
        axes.set_ylim(len(found) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.08)
        axes.set_xlabel(f"{shortened(sweep.metric.name)}, one dot per seed; the line is the mean")
        svg = to_svg(figure, "seeds", "; ".join(f"{name}: {_listed(values)}" for name, values in found.items()))
    rows = tuple((name, told_value(values.mean), told_value(values.sd), _listed(values)) for name, values in found.items())
    return Chart(f"{sweep.metric.name} over seeds", svg, ("setting", "mean", "standard deviation", "values"), rows)


def importance(sweep: SweepSummary) -> Chart | None:
    """Return a bar for each parameter's share of importance; or None if importance is not known."""
    shares = sorted((sweep.importance or {}).items(), key=lambda item: -item[1])
    if not shares:
        return None
    shown = shares[:MOST_BARS]
    with drawing(460, 55 + 24 * len(shown)) as figure:
        axes = figure.subplots()
        axes.barh(range(len(shown)), [share for _, share in shown], color=INKS["one"], height=0.6)
        for row, (_, share) in enumerate(shown):
            axes.annotate(f"{share:.0%}", (share, row), (4, 0), textcoords="offset points", va="center", color=INKS["muted"])
        axes.set_yticks(range(len(shown)), [tail(name, 28) for name, _ in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_xlim(0, max(1.15 * max(share for _, share in shown), 0.01))
        axes.set_xticks([])
        axes.grid(False)
        svg = to_svg(figure, "importance", "; ".join(f"{name} {share:.0%}" for name, share in shown))
    return Chart("Importance", svg, ("parameter", "share"), tuple((name, f"{share:.1%}") for name, share in shares))


def learning(sweep: SweepSummary) -> Chart | None:
    """Return the metric over epochs, one line per trial; those stopped early end in a cross. None if no trial has a curve."""
    drawn = [trial for trial in sweep.settings if trial.points]
    if not drawn:
        return None
    with drawing(940, 340) as figure:
        axes = figure.subplots()
        titles = {f"trial{trial.number}": tooltip(sweep, trial) for trial in drawn}
        for trial in drawn:
            _draw_curve(axes, sweep, trial)
        axes.set_xlabel("epoch")
        axes.set_ylabel(sweep.metric.name)
        draw_key(figure, sweep, drawn, as_lines=True)
        svg = to_svg(
            figure, "learning", f"{sweep.metric.name} over epochs of {len(drawn)} trials. The numbers are below.", titles
        )
    columns = ("trial", "state", "evaluations", "last epoch", "first", "maximum", "minimum", "last")
    return Chart("Learning curves", svg, columns, tuple(_curve_row(trial) for trial in drawn))


def cost(sweep: SweepSummary) -> Chart | None:
    """Return the metric against the time of each trial, or its epochs if times are not known; None without either."""
    by_time = _spots(sweep, lambda trial: trial.time_s)
    spots = by_time or _spots(sweep, lambda trial: trial.epochs)
    if not spots:
        return None
    what = "seconds of the trial" if by_time else "epochs of the trial"
    table = {"epochs": lambda trial: told_value(trial.epochs), "time": lambda trial: lasted(trial.time_s)}
    return _scatter(sweep, spots, "Value by cost", "cost", what, table)


def progress(sweep: SweepSummary) -> Chart | None:
    """Return the best value so far against the epochs trained so far, trial by trial; None if epochs are not known."""
    trials = [trial for trial in sweep.settings if finite(trial.epochs) is not None]
    if not any(trial.value(sweep.metric) is not None for trial in trials):
        return None
    spent = list(accumulate(float(trial.epochs or 0) for trial in trials))
    so_far = _best_so_far(sweep, trials)
    with drawing(460, 300) as figure:
        axes = figure.subplots()
        axes.plot(spent, so_far, color=INKS["ink"], linewidth=1.4, drawstyle="steps-post", zorder=1)
        valued = [(trial, at, trial.value(sweep.metric)) for trial, at in zip(trials, spent, strict=True)]
        titles = draw_spots(axes, sweep, [(trial, at, value) for trial, at, value in valued if value is not None])
        _label(axes, sweep, "epochs trained so far, in order of trials")
        draw_key(figure, sweep, [trial for trial, _, value in valued if value is not None])
        svg = to_svg(
            figure,
            "progress",
            f"Best {sweep.metric.name} so far against epochs trained; it ends at {told_value(so_far[-1])}",
            titles,
        )
    rows = tuple(
        (str(t.number), f"{at:,.4g}", told_value(finite(value))) for t, at, value in zip(trials, spent, so_far, strict=True)
    )
    return Chart(
        "Best so far",
        svg,
        ("trial", "epochs so far", "best so far"),
        rows,
    )


def pareto(sweep: SweepSummary) -> Chart | None:
    """Return the first metric against the second, or against speed, with the front; None if fewer than two trials have both."""
    partner, reach = front_partner(sweep)
    spots = _spots(sweep, reach)
    if len(spots) < 2:
        return None
    table = {
        partner: lambda trial: told_value(reach(trial)),
        "on the front": lambda trial: "yes" if trial.number in sweep.pareto else "",
    }
    front = sorted((x, y) for trial, x, y in spots if trial.number in sweep.pareto)
    return _scatter(sweep, spots, f"{sweep.metric.name} and {partner}", "pareto", partner, table, front)


def front_partner(sweep: SweepSummary) -> tuple[str, Callable[[TrialSummary], float | None]]:
    """Return the second axis of the front and how to read it from a trial."""
    if len(sweep.metrics) > 1:
        second = sweep.metrics[1]
        return second.name, lambda trial: trial.value(second)
    return SPEED, lambda trial: trial.speed


def _scatter(
    sweep: SweepSummary,
    spots: Sequence[Spot],
    title: str,
    name: str,
    across: str,
    table: dict[str, Callable[[TrialSummary], str]],
    front: Sequence[tuple[float, float]] = (),
) -> Chart:
    with drawing(460, 300) as figure:
        axes = figure.subplots()
        if front:
            axes.plot(*np.transpose(front), color=INKS["two"], linewidth=1.2, linestyle=(0, (3, 2)), zorder=1)
        titles = draw_spots(axes, sweep, spots)
        _label(axes, sweep, across)
        draw_key(figure, sweep, [trial for trial, _, _ in spots])
        svg = to_svg(
            figure, name, f"{sweep.metric.name} against {across} of {len(spots)} trials. The numbers are below.", titles
        )
    return Chart(title, svg, *table_of(sweep, table))


def _label(axes: Axes, sweep: SweepSummary, across: str) -> None:
    axes.set_xlabel(shortened(across, 48))
    less = ", lower is better" if sweep.metric.sign < 0 else ""
    axes.set_ylabel(f"{shortened(sweep.metric.name)}{less}")
    axes.margins(0.07)


def _spots(sweep: SweepSummary, reach: Callable[[TrialSummary], float | None]) -> list[Spot]:
    found = [(trial, finite(reach(trial)), trial.value(sweep.metric)) for trial in sweep.valued]
    return [(trial, x, y) for trial, x, y in found if x is not None and y is not None]


def _best_so_far(sweep: SweepSummary, trials: Sequence[TrialSummary]) -> list[float]:
    signed = [value if value is None else value * sweep.metric.sign for value in (t.value(sweep.metric) for t in trials)]
    best = np.fmax.accumulate([np.nan if value is None else value for value in signed])
    return [float(value) * sweep.metric.sign for value in best]


def _draw_curve(axes: Axes, sweep: SweepSummary, trial: TrialSummary) -> None:
    name = role(sweep, trial)
    look = LOOKS[name]
    x, y = zip(*trial.points, strict=True)
    dots = "o" if len(x) == 1 else ""
    style = {"color": INKS[look.ink], "alpha": look.alpha * thinning(sweep, trial), "zorder": look.layer}
    thick = 2.6 if name in ("best", "default") else 1.3
    axes.plot(x, y, marker=dots, markersize=3, linewidth=thick, gid=f"trial{trial.number}", **style)  # type: ignore[arg-type]
    if trial.state == "pruned":
        axes.plot(x[-1], y[-1], "x", markersize=5, **{**style, "alpha": 0.7})  # type: ignore[arg-type]


def _curve_row(trial: TrialSummary) -> tuple[str, ...]:
    values = [value for _, value in trial.points]
    numbers = (values[0], max(values), min(values), values[-1])
    return (str(trial.number), trial.state, str(len(values)), f"{trial.points[-1][0]:.4g}", *map(told_value, numbers))


def _seeds_by_name(sweep: SweepSummary) -> dict[str, Seeds]:
    noise = sweep.noise
    if noise is None:
        return {}
    return {name: values for name, values in (("default", noise.default), ("best", noise.best)) if values and values.values}


def _draw_seeds(axes: Axes, row: int, values: Seeds, ink: str) -> None:
    axes.plot(values.values, [row] * len(values.values), "o", color=INKS[ink], markersize=8, alpha=0.6, markeredgewidth=0)
    if values.mean is not None:
        axes.plot([values.mean] * 2, [row - 0.28, row + 0.28], color=INKS["ink"], linewidth=2)


def _listed(values: Seeds) -> str:
    return ", ".join(map(told_value, values.values))
