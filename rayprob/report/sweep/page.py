"""`rayprob report` on a sweep's folder: its summary becomes one page. Read, draw, write."""

import shlex
from dataclasses import dataclass

from rayprob.files import storage
from rayprob.report.html import NONE, fill
from rayprob.report.sweep import words
from rayprob.report.sweep.charts import cost, front_partner, importance, learning, pareto, progress, seeds
from rayprob.report.sweep.looks import Chart, lasted, parameter_of
from rayprob.report.sweep.parallel import parallel
from rayprob.report.sweep.slices import resolution_parameter, resolution_rows, slices
from rayprob.report.sweep.words import SURE, figure, improvement, searched
from rayprob.runs.finished import REPORTED
from rayprob.runs.paths import RunFolder, SweepFolder
from rayprob.runs.sweep_summary import SweepSummary, TrialSummary, finite, open_sweep
from rayprob.text import counted

STATES = ("finished", "pruned", "failed", "stopped", "running")
MOST_REASON = 400  # letters


@dataclass(frozen=True)
class WrittenSweep:
    """The path of a sweep's page, and what it shows."""

    path: str
    size_bytes: int
    num_trials: int


@dataclass(frozen=True)
class Tile:
    """A key number at the top of the page."""

    name: str
    value: str
    hint: str
    aside: str = ""


@dataclass(frozen=True)
class Compared:
    """A named pair: the default's and the winner's."""

    name: str
    default: str
    best: str
    searched: str = ""
    has_changed: bool = False


def sweep_report(folder: str, out: str | None = None) -> WrittenSweep:
    """Write the page of a sweep's folder from only its summary, by default to report.html in it.

    Raises RunError if the summary is missing or invalid.
    """
    sweep = open_sweep(folder)
    html = render(sweep, folder).encode()
    path = out or SweepFolder(folder).report_page
    storage.write_bytes(path, html)
    return WrittenSweep(path, len(html), len(sweep.trials))


def render(sweep: SweepSummary, folder: str) -> str:
    """Return the whole page; `folder` is used in its commands."""
    resolution = resolution_parameter(sweep)
    values = {
        "sweep": sweep,
        "says": words,
        "tiles": tiles(sweep),
        "notes": notes(sweep),
        "parameters": parameters(sweep),
        "reported": reported(sweep),
        "commands": commands(sweep, folder),
        "noise_says": noise_says(sweep),
        "partner": front_partner(sweep)[0],
        "charts": charts(sweep),
        "slices": slices(sweep),
        "front": [trial for trial in sweep.trials if trial.number in sweep.pareto],
        "reach": front_partner(sweep)[1],
        "resolution": resolution,
        "resolution_rows": resolution_rows(sweep, resolution) if resolution else (),
        "trials": sorted(sweep.trials, key=lambda trial: _rank(sweep, trial)),
        "reasons": [trial for trial in sweep.trials if trial.reason],
        "cell": parameter_of,
        "lasted": lasted,
        "made": made(sweep, folder),
        "command": f"rayprob report {shlex.quote(folder)}",
        "most_reason": MOST_REASON,
    }
    return fill("sweep.html", values)


def charts(sweep: SweepSummary) -> dict[str, Chart | None]:
    """Return the charts by name, None for a chart without data."""
    drawn = (seeds, parallel, importance, learning, cost, progress, pareto)
    return {draw.__name__: draw(sweep) for draw in drawn}


def tiles(sweep: SweepSummary) -> list[Tile]:
    """Return the key numbers: the best, its gain, the trials, the epochs, the time."""
    best = sweep.best_trial
    value = best.value(sweep.metric) if best else None
    where = f"trial {best.number} on {sweep.split}" if best else "no trial reached a value"
    of_state = {state: sweep.count(state) for state in STATES}
    told_tiles = [Tile(f"best {sweep.metric.name}", figure(value), where), _gain(sweep)]
    told_tiles.append(Tile("trials", f"{len(sweep.trials):,}", words.counts(of_state)))
    told_tiles += [tile for tile in (_epochs(sweep), _reported_tile(sweep)) if tile]
    if sweep.elapsed_s is not None:
        told_tiles.append(Tile("time", lasted(sweep.elapsed_s), "of the whole sweep"))
    return told_tiles


def notes(sweep: SweepSummary) -> list[str]:
    """Return what a reader should know before the numbers."""
    found = []
    if sweep.split == REPORTED:
        found.append(f"The sweep chose the winner on {REPORTED}, so its numbers on {REPORTED} are optimistic.")
    if sweep.default_trial is None:
        found.append("The run file's own settings were not tried, so the gain over them is unknown.")
    open_trials = sweep.count("running") + sweep.count("stopped")
    if open_trials:
        found.append(
            f"{counted(open_trials, 'trial')} not finished: run the same `rayprob tune` command again to continue them."
        )
    if not sweep.valued:
        found.append("No trial reached a value, so there are no charts; see the table of trials for the reasons.")
    return found


def parameters(sweep: SweepSummary) -> list[Compared]:
    """Return the searched parameters of the default and the winner."""
    default, best = sweep.default_trial, sweep.best_trial
    return [
        Compared(name, _cell(default, name), _cell(best, name), searched(span), _have_changed(default, best, name))
        for name, span in sweep.space.items()
    ]


def reported(sweep: SweepSummary) -> list[Compared]:
    """Return the winner's and the default's numbers on val, as far as the sweep evaluated them."""
    best = (sweep.val.best if sweep.val else None) or {}
    default = (sweep.val.default if sweep.val else None) or {}
    return [Compared(name, figure(finite(default.get(name))), figure(finite(value))) for name, value in best.items()]


def commands(sweep: SweepSummary, folder: str) -> list[str]:
    """Return the commands that train the winner."""
    best = sweep.best_trial
    if best is None:
        return []
    trial = [RunFolder(storage.join(folder, best.folder)).run_file] if best.folder else []
    return [f"rayprob train {shlex.quote(path)}" for path in (SweepFolder(folder).best_file, *trial)]


def noise_says(sweep: SweepSummary) -> str:
    """Return whether the gain exceeds the noise between seeds, or why that is unknown."""
    best = sweep.best_trial
    if best is None or sweep.noise is None:
        return "No setting was trained with several seeds, so the noise of the metric is unknown."
    if best.number == sweep.default:
        return "The default is the best, so there is no gain; its values over seeds show the noise of the metric."
    return words.on_noise(sweep.noise, sweep.metric, improvement(sweep), best.value(sweep.metric))


def made(sweep: SweepSummary, folder: str) -> list[tuple[str, str]]:
    """Return how the sweep was made, fact by fact, leaving out what its summary does not contain."""
    facts = [
        ("folder", folder),
        ("dataset", sweep.dataset),
        ("dataset fingerprint", sweep.dataset_fingerprint),
        ("chosen on", sweep.split),
        ("sampler", sweep.sampler),
        ("scheduler", sweep.scheduler),
        ("time", lasted(sweep.elapsed_s)),
        ("versions", ", ".join(f"{name} {version}" for name, version in sweep.versions.items())),
    ]
    return [(name, value) for name, value in facts if value and value != NONE]


def _gain(sweep: SweepSummary) -> Tile:
    gain, error = improvement(sweep), sweep.noise.gain_se if sweep.noise else None
    if gain is None:
        return Tile("gain over the default", NONE, "unknown")
    shown = figure(gain * sweep.metric.sign, signed=True)
    if sweep.best == sweep.default:
        return Tile("gain over the default", "none", "the default is the best")
    if error is None:
        return Tile("gain over the default", shown, "one seed each: the standard error is unknown")
    hint = "standard error over seeds" if gain > SURE * error else "less than twice its standard error: may be noise"
    return Tile("gain over the default", shown, hint, f"±\N{NO-BREAK SPACE}{figure(error)}")


def _epochs(sweep: SweepSummary) -> Tile | None:
    if sweep.total_epochs is None:
        return None
    shown = f"{sweep.total_epochs:,.4g}"
    if not sweep.full_epochs:
        return Tile("epochs trained", shown, "of all trials")
    saved = 1 - sweep.total_epochs / sweep.full_epochs
    hint = f"{saved:.0%} saved by early stopping" if saved > 0 else "nothing saved by early stopping"
    return Tile("epochs trained", shown, hint, f"of {sweep.full_epochs:,.4g}")


def _reported_tile(sweep: SweepSummary) -> Tile | None:
    value = finite(sweep.val.best.get(sweep.metric.name)) if sweep.val and sweep.val.best else None
    return None if value is None else Tile(f"{REPORTED} {sweep.metric.name}", figure(value), "the winner, evaluated once")


def _cell(trial: TrialSummary | None, name: str) -> str:
    return NONE if trial is None else parameter_of(trial, name)


def _have_changed(default: TrialSummary | None, best: TrialSummary | None, name: str) -> bool:
    return default is not None and best is not None and default.params.get(name) != best.params.get(name)


def _rank(sweep: SweepSummary, trial: TrialSummary) -> tuple[bool, float, int]:
    value = trial.value(sweep.metric)
    return value is None, -(value or 0.0) * sweep.metric.sign, trial.number
