"""A sweep's summary.json as frozen values: `rayprob tune` writes no other keys, and the page reads nothing else."""

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from rayprob.config.faults import faults_of
from rayprob.errors import RunError
from rayprob.files import storage
from rayprob.files.documents import read_json
from rayprob.runs.paths import SweepFolder

WRITER = "`rayprob tune` on the same sweep file writes it again"


@dataclass(frozen=True)
class Metric:
    """A metric that the sweep optimises."""

    name: str
    mode: Literal["max", "min"] = "max"

    @property
    def sign(self) -> int:
        """1 if higher is better, -1 if lower is better."""
        return 1 if self.mode == "max" else -1


@dataclass(frozen=True)
class Range:
    """The search range of a parameter: choices or bounds."""

    kind: str
    choices: tuple[Any, ...] | None = None
    low: float | None = None
    high: float | None = None
    step: float | None = None


@dataclass(frozen=True)
class TrialSummary:
    """One training of the sweep; a confirm trial repeats trial `of` with another seed."""

    number: int
    kind: Literal["default", "search", "confirm"] = "search"
    state: Literal["finished", "pruned", "failed", "stopped", "running"] = "finished"
    params: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    of: int | None = None
    values: dict[str, float | None] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)
    epochs: float | None = None
    elapsed_s: float | None = None
    lasted_s: float | None = None  # from its start to its end, including process start-up
    images_per_s: float | None = None
    micro_batch: int | None = None
    reason: str = ""
    folder: str = ""
    curve: tuple[tuple[float, float | None], ...] = ()

    def value(self, metric: Metric) -> float | None:
        """Return its value of a metric, None if it has none or a value that is not a finite number."""
        return finite(self.values.get(metric.name))

    @property
    def speed(self) -> float | None:
        """Images per second; None if it was not measured, which a summary may record as 0."""
        return finite(self.images_per_s) or None

    @property
    def time_s(self) -> float | None:
        """How long it took; None if unknown."""
        return finite(self.elapsed_s) or None

    @property
    def points(self) -> tuple[tuple[float, float], ...]:
        """The (epoch, first metric) of its evaluations with a finite value, in order of time."""
        return tuple(sorted((epoch, value) for epoch, value in self.curve if finite(value) is not None and value is not None))


@dataclass(frozen=True)
class Seeds:
    """One setting trained with several seeds."""

    values: tuple[float, ...]
    mean: float | None = None
    sd: float | None = None


@dataclass(frozen=True)
class Noise:
    """The default and the best over seeds."""

    default: Seeds | None = None
    best: Seeds | None = None
    gain: float | None = None
    gain_se: float | None = None


@dataclass(frozen=True)
class Reported:
    """Numbers on val of the winner, and of the default if the sweep file asks for it."""

    best: dict[str, float | None] | None = None
    default: dict[str, float | None] | None = None


@dataclass(frozen=True)
class SweepSummary:
    """A sweep as in its summary.json; `best` and `default` are trial numbers."""

    name: str
    metrics: tuple[Metric, ...]
    trials: tuple[TrialSummary, ...]
    kind: str = "sweep"
    description: str = ""
    split: str = "holdout"
    sampler: str = ""
    scheduler: str = "none"
    dataset: str = ""
    dataset_fingerprint: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    elapsed_s: float | None = None
    space: dict[str, Range] = field(default_factory=dict)
    importance: dict[str, float] | None = None
    pareto: tuple[int, ...] = ()
    best: int | None = None
    default: int | None = None
    noise: Noise | None = None
    val: Reported | None = None
    total_epochs: float | None = None
    full_epochs: float | None = None

    @property
    def metric(self) -> Metric:
        """The metric that decides: the first if there are two."""
        return self.metrics[0]

    @cached_property
    def best_trial(self) -> TrialSummary | None:
        """The winner."""
        return self._trial(self.best)

    @cached_property
    def default_trial(self) -> TrialSummary | None:
        """The trial with the run file's own settings."""
        return self._trial(self.default)

    @cached_property
    def settings(self) -> tuple[TrialSummary, ...]:
        """One trial per setting: all except those that repeat a setting with another seed."""
        return tuple(trial for trial in self.trials if trial.kind != "confirm")

    @cached_property
    def valued(self) -> tuple[TrialSummary, ...]:
        """The settings that reached a value of the metric."""
        return tuple(trial for trial in self.settings if trial.value(self.metric) is not None)

    @property
    def ranked(self) -> list[str]:
        """The searched parameters, the most important first if that is known."""
        importance = self.importance or {}
        return sorted(self.space, key=lambda name: -importance.get(name, 0.0))

    def count(self, state: str) -> int:
        """Return how many trials are in a state."""
        return sum(trial.state == state for trial in self.trials)

    def _trial(self, number: int | None) -> TrialSummary | None:
        return next((trial for trial in self.trials if trial.number == number), None)


def open_sweep(folder: str) -> SweepSummary:
    """Read a sweep's summary. Raises RunError if it is missing or invalid, with its faults."""
    uri = SweepFolder(folder).summary
    if not storage.exists(uri):
        raise RunError(f"{folder} has no summary.json; give the folder of a sweep that `rayprob tune` has run")
    return parse_summary(read_json(uri, error=RunError, remedy=WRITER), uri)


def parse_summary(value: dict[str, Any], where: str) -> SweepSummary:
    """Return a summary from plain data. Raises RunError that names its faults and `where` they are."""
    try:
        sweep = TypeAdapter(SweepSummary).validate_python(value)
    except ValidationError as error:
        raise RunError(f"{where}: {'; '.join(faults_of(SweepSummary, error)[:5])}; {WRITER}") from error
    _check(sweep, where)
    return sweep


def finite(value: float | None) -> float | None:
    """Return a finite number unchanged, and None for infinity and nan."""
    return value if value is not None and math.isfinite(value) else None


def _check(sweep: SweepSummary, uri: str) -> None:
    if not sweep.metrics:
        raise RunError(f"{uri}: metrics is empty; one or two are needed; {WRITER}")
    numbers = [trial.number for trial in sweep.trials]
    if len(set(numbers)) < len(numbers):
        double = next(number for number in numbers if numbers.count(number) > 1)
        raise RunError(f"{uri}: trials: number {double} occurs more than once; {WRITER}")
    named = (sweep.best, sweep.default, *sweep.pareto)
    strangers = [number for number in named if number is not None and number not in numbers]
    if strangers:
        raise RunError(f"{uri}: trial {strangers[0]}, which best, default or pareto names, does not exist; {WRITER}")
