"""A sweep file: a run file plus a `search:` part. Read, checked against the run it changes, and turned into trials."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from rayprob.config import strict_yaml
from rayprob.config.kinds import SWEEP_FILE
from rayprob.config.spec import Spec, read_kind, with_overrides
from rayprob.errors import SpecError
from rayprob.models.backbones import check_image_size
from rayprob.registry import unknown
from rayprob.runs.paths import SweepFolder
from rayprob.runs.spec import Run
from rayprob.runs.tracking import of_group
from rayprob.sweep.space import RESOLUTION, Parameter, Params, applies, as_list, grid_cells, value_at, with_params

# The metrics that trials can be ranked by, with their direction: numbers of the evaluation kept, and costs.
METRICS: dict[str, Literal["max", "min"]] = {
    "mAP": "max",
    "OF1": "max",
    "CF1": "max",
    "best_OF1": "max",
    "nll_nats": "min",
    "images_per_s": "max",
    "elapsed_s": "min",
}
SEARCHED_ELSEWHERE = {"name", "folder", "search"}
OWN_SETTINGS = "the run file's own settings"  # how a trial without parameters is described
MOST_CELLS = 100_000


class SchedulerSpec(Spec):
    """How unpromising trials are stopped early.

    `asha` is asynchronous successive halving (Li et al., MLSys 2020): at `grace_epochs`, and at each `reduction_factor` times
    as many, the best 1 / reduction_factor of the trials seen so far continue. `hyperband` combines it over several values of
    `grace_epochs`. Both are Optuna's pruners.
    """

    name: Literal["none", "asha", "hyperband"] = "none"
    """none, asha or hyperband."""
    grace_epochs: PositiveFloat = 1.0
    """Epochs that every trial trains before it can be stopped."""
    reduction_factor: int = Field(default=3, ge=2)
    """One of this many trials continues at each rung."""


class ConfirmSpec(Spec):
    """The default and the best trained again with other seeds, to distinguish a gain from noise."""

    seeds: int = Field(default=0, ge=0)
    """Number of new seeds to train the best trial and the default with; 0 skips this."""


class SearchSpec(Spec):
    """What is searched, how, and by which metric."""

    metric: tuple[str, ...]
    """The metric that trials are ranked by; two metrics give a Pareto front."""
    space: dict[str, Parameter]
    """The keys of the run file to search, each with its values."""
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    """tpe, random or grid."""
    trials: PositiveInt | None = None
    """Number of draws (per grid combination, if there is a grid)."""
    scheduler: SchedulerSpec = SchedulerSpec()
    """How unpromising trials are stopped early."""
    default: bool = True
    """Train the run file's own settings as trial 0."""
    confirm: ConfirmSpec = ConfirmSpec()
    """Train the best trial and the default again with new seeds."""
    split: str | None = None
    """Rank trials on this split instead of the run file's evaluation.split."""
    max_concurrent: PositiveInt | Literal["auto"] = "auto"
    """Number of trials to run at the same time; auto runs as many as fit on the cluster."""
    seed: int = 0
    """Seed of the sampler."""

    @field_validator("metric", mode="before")
    @classmethod
    def _one_or_two_known_metrics(cls, value: Any) -> Any:
        names = list(value) if isinstance(value, list | tuple) else [value]
        for name in names:
            if not isinstance(name, str) or name not in METRICS:
                raise ValueError(unknown(str(name), list(METRICS), "metric"))
        if not 1 <= len(set(names)) == len(names) <= 2:
            raise ValueError(f"takes one metric, or two for a Pareto front, of {', '.join(METRICS)}")
        return tuple(names)

    @model_validator(mode="after")
    def _parts_go_together(self) -> Self:
        if not self.space:
            raise ValueError("space is empty; name at least one key of the run file with its values, such as optimizer.lr")
        if len(self.metric) > 1 and self.scheduler.name != "none":
            raise ValueError(f"scheduler {self.scheduler.name} stops trials by one metric, but two are given; leave one out")
        if self.trials is None and not self.is_all_grid:
            raise ValueError("trials is missing; set how many to draw, such as trials: 20 (only an all-grid search needs none)")
        if self.sampler == "grid" and (ranges := [key for key, p in self.space.items() if p.uniform or p.loguniform]):
            raise ValueError(
                f"sampler grid needs listed values, but {', '.join(ranges)} is a range; use grid: [...] or quniform"
            )
        if self.num_cells > MOST_CELLS:
            raise ValueError(f"space has {self.num_cells:,} combinations, one trial each; allowed: at most {MOST_CELLS:,}")
        return self

    @property
    def is_all_grid(self) -> bool:
        """Whether every combination of listed values is tried."""
        return self.sampler == "grid" or all(parameter.kind == "grid" for parameter in self.space.values())

    @property
    def num_cells(self) -> int:
        """The number of combinations of the grid."""
        return math.prod(parameter.num_listed for parameter in self.space.values() if parameter.kind in self._grid_kinds)

    def cells(self) -> list[dict[str, Any]]:
        """Return the combinations of the grid, or one empty combination if there is no grid."""
        return grid_cells(self.space, self._grid_kinds)

    @property
    def _grid_kinds(self) -> tuple[str, ...]:
        return ("grid", "choice", "quniform") if self.sampler == "grid" else ("grid",)

    @property
    def modes(self) -> tuple[Literal["max", "min"], ...]:
        """The direction of each metric."""
        return tuple(METRICS[name] for name in self.metric)


class Sweep(Spec):
    """A run, and the search that varies it; `description` is the first comment of the sweep file.

    Example::

        sweep = rp.Sweep.read("tune_configs/demo-sweep.yaml", ["search.trials=4"])
        rp.tune(sweep)
    """

    run: Run
    """The run file that trials change."""
    search: SearchSpec
    """What is searched."""
    description: str = ""
    """Free text that the report shows."""

    @classmethod
    def read(cls, path: str | Path, overrides: Sequence[str] = ()) -> Self:
        """Read a sweep file. Raises SpecError if the file has no `search` part or the space does not fit the run file."""
        return with_overrides(partial(cls._read, path), overrides)

    @classmethod
    def _read(cls, path: str | Path, overrides: Sequence[str]) -> Self:
        value = read_kind(path, overrides, SWEEP_FILE)
        search = value.pop("search", None)
        if search is None:
            raise SpecError(f"{path} has no part `search`; add it, with its space and metric")
        if isinstance(search, dict) and not search.get("metric"):
            raise SpecError(
                f"{path}: search has no metric, so trials cannot be ranked; add search.metric, "
                f"one of {', '.join(METRICS)} (mAP on holdout is the usual one)"
            )
        spec = SearchSpec.parse(search, where=str(path), under="search")
        sweep = cls(run=_judged_on(Run.parse(value, where=str(path)), spec), search=spec, description=_description(path))
        sweep.check()
        return sweep

    def to_yaml(self) -> str:
        """Return the sweep file with all of its defaults, as `read` takes it."""
        value = {**self.base(), "search": self.search.model_dump(mode="json", exclude_none=True)}
        return strict_yaml.dump(value)

    @property
    def folder(self) -> str:
        """The folder of the sweep."""
        return self.run.folder or f"sweeps/{self.run.name}"

    def base(self) -> dict[str, Any]:
        """Return the run file with all of its defaults, as plain data."""
        return self.run.model_dump(mode="json")

    def trial_run(self, number: int, params: Params, seed: int | None = None, where: str = "") -> Run:
        """Return the run of trial `number`. Raises SpecError naming, after `where`, the parameters that are invalid."""
        where += f"trial {number} ({described(params) or OWN_SETTINGS})"
        value = with_params(self.base(), params, self.search.space, where)
        name = f"{self.run.name}-{number:03d}"
        value |= {"name": name, "folder": SweepFolder(self.folder).trial(number)}
        if seed is not None:
            value["seed"] = seed
        if self.run.tracking:
            value["tracking"] = of_group(self.run.tracking, self.run.name)
        run = Run.parse(value, where=where)
        check_image_size(run.model.backbone, run.transforms.train.size_px, where)
        return run

    def check(self) -> None:
        """Raise SpecError for a key that the run file does not have, and for any listed value that is invalid."""
        base = self.base()
        if self.search.scheduler.name == "hyperband" and self.run.duration.epochs is None:
            raise SpecError("scheduler hyperband allocates epochs: set duration.epochs instead of steps or samples")
        for key, parameter in self.search.space.items():
            where = f"search.space.{key}"
            parts = [part for value in parameter.values or () if (part := parameter.part(value)) is not None]
            if taken := SEARCHED_ELSEWHERE & {key, *(inner for part in parts for inner in part)}:
                raise SpecError(f"{where}: {min(taken)} sets where a trial is stored and cannot be searched; leave it out")
            self._check_when(key, parameter, base)
            if not parts:
                met = self._met(parameter)
                _require_key(self.trial_run(0, met, where=f"{where}: ").model_dump(mode="json") if met else base, key, where)
            for value in parameter.examples:
                self._try(key, value, where)

    def _check_when(self, key: str, parameter: Parameter, base: dict[str, Any]) -> None:
        """Raise SpecError for a condition that never holds, because its parameter would never be searched."""
        for other, wanted in parameter.when.items():
            where = f"search.space.{key}.when.{other}"
            space = self.search.space
            if other not in space:
                _require_key(base, other, where)
            elif space[other].values is None:
                continue
            known = space[other].values if other in space else [value_at(base, other)]
            missing = [value for value in as_list(wanted) if value not in (known or [])]
            if len(missing) == len(as_list(wanted)):
                raise SpecError(
                    f"{where} never holds: {other} is never {missing[0]!r}; allowed: {', '.join(map(str, known or []))}"
                )

    def _try(self, key: str, value: Any, where: str) -> None:
        """Build the run that one value makes, together with first values of what its `when` needs."""
        self.trial_run(0, {**self._met(self.search.space[key]), key: value}, where=f"{where}: ")

    def _met(self, parameter: Parameter) -> dict[str, Any]:
        """Return first values of the searched parameters that a parameter's `when` asks for, which may bring its key along."""
        return {other: as_list(wanted)[0] for other, wanted in parameter.when.items() if other in self.search.space}

    def defaults(self) -> dict[str, Any]:
        """Return the run file's own values of the searched keys; for named parts, the name of the part that it contains."""
        base = self.base()
        params: dict[str, Any] = {}
        for key, parameter in self.search.space.items():
            found = parameter.found_in(base, key)
            if found is not None and applies(parameter, params, base):
                params[key] = found
        return params


def described(params: Params) -> str:
    """Return parameters as readable text: `optimizer.lr=0.003 loss.name=focal`."""
    return " ".join(f"{key}={short(value)}" for key, value in params.items())


def short(value: Any) -> str:
    """Return a value with at most four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _judged_on(run: Run, search: SearchSpec) -> Run:
    if search.split is None:
        return run
    evaluation = run.evaluation.model_copy(update={"split": search.split, "spends_val": search.split == "val"})
    return run.model_copy(update={"evaluation": evaluation})


def _require_key(base: dict[str, Any], key: str, where: str) -> None:
    if key == RESOLUTION:
        return
    node: Any = base
    for depth, part in enumerate(parts := key.split(".")):
        if not isinstance(node, dict) or part not in node:
            known = [*node] if isinstance(node, dict) else []
            under = f"key under {'.'.join(parts[:depth])}:" if depth else "key of the run file"
            raise SpecError(
                f"{where}: "
                + unknown(part, [*known, *([] if depth else [RESOLUTION])], under)
                + "; a name of your own needs parts: {choice: {NAME: {loss.name: focal}, ...}}"
            )
        node = node[part]


def _description(path: str | Path) -> str:
    lines = []
    for line in strict_yaml.decoded(Path(path).read_bytes(), str(path)).splitlines():
        if not line.startswith("#") or not line.strip("# "):
            break
        lines.append(line.strip("# "))
    return " ".join(lines)
