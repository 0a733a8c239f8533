"""The text of a sweep's page, computed from its numbers: values, ranges, and the sentence above each chart."""

import math
from collections.abc import Mapping
from typing import Any

from rayprob.report.html import NONE
from rayprob.runs.sweep_summary import Metric, Noise, Range, SweepSummary, TrialSummary
from rayprob.text import counted

NOT_SET = "not set"
SURE = 2  # standard errors
FEW_TRIALS = 30
SAMPLERS = {"tpe": "Optuna's TPE", "random": "random search", "grid": "grid search"}
SCHEDULERS = {"asha": "ASHA", "hyperband": "Hyperband"}
SCALES = {"uniform": "", "loguniform": ", logarithmic", "quniform": ""}


def told(value: Any) -> str:
    """Return a parameter's value as written in a run file."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return f"{value:.6g}"
    return f'"{value}"' if isinstance(value, str) and _reads_as_another_type(value) else str(value)


def _reads_as_another_type(text: str) -> bool:
    """Return whether a text without quotes would be a number, a boolean or null, which may be values of the same parameter."""
    try:
        float(text)
    except ValueError:
        return text in ("null", "true", "false")
    return True


def brief(value: Any) -> str:
    """Return a parameter's value with the digits that a reader needs."""
    return f"{value:.3g}" if isinstance(value, float) and abs(value) < 1000 else told(value)


def figure(value: float | None, *, signed: bool = False) -> str:
    """Return a metric with three decimals, or more if three would show only zeros; a dash for None."""
    if value is None:
        return NONE
    plus = "+" if signed else ""
    return f"{value:{plus}.3f}" if 0.001 <= abs(value) < 1000 or value == 0 else f"{value:{plus}.3g}"


def plain(value: float | None) -> str:
    """Return a count that need not be whole, or a dash."""
    return NONE if value is None else f"{value:,.4g}"


def searched(span: Range) -> str:
    """Return where a parameter was searched."""
    if span.choices is not None:
        return ", ".join(map(told, span.choices))
    step = f" in steps of {told(span.step)}" if span.step else ""
    return f"{told(span.low)} to {told(span.high)}{step}{SCALES.get(span.kind, '')}"


def tail(name: str, most: int = 20) -> str:
    """Return a dotted key short enough to fit next to an axis, cut at the front because its end distinguishes keys."""
    return name if len(name) <= most else "…" + name[1 - most :]


def settings_of(trial: TrialSummary) -> str:
    """Return a trial's parameters in one line."""
    return ", ".join(f"{name} {brief(value)}" for name, value in trial.params.items()) or "the run file's own settings"


def improvement(sweep: SweepSummary) -> float | None:
    """Return by how much the best is better than the default: over seeds if there are several, else from one trial each."""
    noise = sweep.noise
    if noise and noise.default and noise.best:
        pair = noise.default.mean, noise.best.mean
    else:
        trials = sweep.default_trial, sweep.best_trial
        pair = tuple(trial.value(sweep.metric) if trial else None for trial in trials)  # type: ignore[assignment]
    return None if pair[0] is None or pair[1] is None else (pair[1] - pair[0]) * sweep.metric.sign


def on_search(sweep: SweepSummary) -> str:
    """What was searched, how, and by which metric."""
    spaces = "; ".join(f"{name} ({searched(span)})" for name, span in sweep.space.items()) or "no parameter"
    count = sum(trial.kind == "search" for trial in sweep.trials)
    ways = SAMPLERS.get(sweep.sampler, sweep.sampler or "an unnamed sampler")
    stops = f", poor trials stopped early by {SCHEDULERS[sweep.scheduler]}" if sweep.scheduler in SCHEDULERS else ""
    goals = " and ".join(f"{'highest' if metric.mode == 'max' else 'lowest'} {metric.name}" for metric in sweep.metrics)
    on = f" on {sweep.dataset}" if sweep.dataset else ""
    repeats = sum(trial.kind == "confirm" for trial in sweep.trials)
    again = f" {repeats} trials repeat the default and the best setting with other seeds." if repeats else ""
    trials = f"{counted(count, 'trial')}{on} over {spaces}, chosen by {ways}{stops}"
    return f"{trials}; the goal is the {goals} on {sweep.split}.{again}"


def on_winner(sweep: SweepSummary) -> str:
    """What the winner is and how many settings it was chosen from."""
    best = sweep.best_trial
    if best is None:
        return "No trial reached a value, so there is no winner."
    if best.number == sweep.default:
        value = figure(best.value(sweep.metric))
        return f"Nothing beat the run file's own settings: trial {best.number}, {sweep.metric.name} {value}."
    chosen = f"the best of {len(sweep.valued)} settings" if len(sweep.valued) > 1 else "the only setting with a value"
    return (
        f"Trial {best.number} is {chosen} on {sweep.split}. The best of many is optimistic: it was chosen by the number "
        f"shown, so expect a slightly lower value on new data."
    )


def on_noise(noise: Noise, metric: Metric, gain: float | None, chosen: float | None) -> str:
    """Whether the gain over the default exceeds the noise between seeds; `chosen` is the value that the best was chosen by."""
    if gain is None:
        return "The default or the best has no mean over seeds, so the gain cannot be compared with the noise."
    text = f"The best is {figure(abs(gain))} {'better' if gain >= 0 else 'worse'} than the default in mean {metric.name}"
    if noise.gain_se is None or not math.isfinite(noise.gain_se):
        return f"{text}; its standard error is unknown (that needs two seeds each), so this may be noise."
    text += f", with a standard error of {figure(noise.gain_se)} over seeds"
    return f"{text}: {sureness(gain, noise.gain_se)}.{_leaning(noise, chosen)}"


def sureness(gain: float, gain_se: float) -> str:
    """Return whether a gain, which is positive where the best is better, exceeds the noise between seeds."""
    if gain > SURE * gain_se:
        return "more than twice its standard error"
    return "this is not a gain" if gain < 0 else "less than twice its standard error, so it may well be noise"


def _leaning(noise: Noise, chosen: float | None) -> str:
    values = noise.best.values if noise.best else ()
    if chosen is None or not any(math.isclose(value, chosen, rel_tol=1e-9) for value in values):
        return ""
    return " The mean of the best includes the run that it was chosen by, so it is still slightly optimistic."


def on_importance(sweep: SweepSummary) -> str:
    """How reliable the importances are."""
    if not sweep.importance:
        return "Too few trials have a value to estimate importance."
    name, share = max(sweep.importance.items(), key=lambda item: item[1])
    settings = f"{len(sweep.valued)} settings have a value"
    text = f"{name} explains {share:.0%} of how the value varies over the space (fANOVA; {settings})."
    if len(sweep.valued) < FEW_TRIALS:
        return f"{text} With so few, the shares are rough: trust only the order of the large ones."
    return text


def on_curves(sweep: SweepSummary) -> str:
    """How much early stopping saved."""
    pruned = sweep.count("pruned")
    if not pruned:
        return "No trial was stopped early."
    text = f"{pruned} of {len(sweep.trials)} trials were stopped early (faint, ending in a cross)"
    if not sweep.total_epochs or not sweep.full_epochs:
        return f"{text}."
    return f"{text}: {sweep.total_epochs:,.4g} epochs trained instead of the {sweep.full_epochs:,.4g} that full trials take."


def on_pareto(sweep: SweepSummary, partner: str) -> str:
    """Which trials no other trial beats in both metrics."""
    if not sweep.pareto:
        return "The sweep has no Pareto front."
    listed = ", ".join(map(str, sweep.pareto))
    which = f"Trial {listed} is" if len(sweep.pareto) == 1 else f"Trials {listed} are"
    return f"{which} on the front: no other trial is better in both {sweep.metric.name} and {partner}."


def counts(found: Mapping[str, int]) -> str:
    """Return counts of states as text, leaving out zeros."""
    return ", ".join(f"{count} {state}" for state, count in found.items() if count) or "none"
