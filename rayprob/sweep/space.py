"""The search space of a sweep: parameters with their possible values, and how parameters change a run file."""

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, field_validator, model_validator

from rayprob.config.spec import Spec, assigned
from rayprob.errors import SpecError

RESOLUTION = "resolution_px"
# A run has the second filled in from the first: a search that sets only the first has the second filled in again.
FILLED_IN = {"model.head.prior": "model.head.components"}
MOST_STEPS = 10_000
KINDS = ("choice", "grid", "uniform", "loguniform", "quniform")

Params = Mapping[str, Any]


class Parameter(Spec):
    """The values that one parameter may take: exactly one of the five kinds.

    `choice` and `grid` list values, or name parts of a run file: {focal: {loss.name: focal, loss.gamma: 2}, ...}. A choice is
    drawn; every value of a grid is combined with every other grid's. `uniform` and `loguniform` take [low, high], `quniform`
    takes [low, high, step]. With `when`, the parameter exists only if others have the given values.
    """

    choice: list[Any] | dict[str, dict[str, Any]] | None = None
    """Values to draw from, or named parts of a run file."""
    grid: list[Any] | dict[str, dict[str, Any]] | None = None
    """Values to try exhaustively, combined with every value of every other grid."""
    uniform: tuple[float, float] | None = None
    """[low, high], drawn uniformly."""
    loguniform: tuple[float, float] | None = None
    """[low, high], drawn uniformly on a log scale; both above 0."""
    quniform: tuple[float, float, float] | None = None
    """[low, high, step], drawn uniformly from the multiples."""
    when: dict[str, Any] = Field(default={})
    """Search this parameter only if others have these values, such as {loss.name: focal} or {loss.name: [focal,
    asymmetric]}.
    """

    @field_validator("choice", "grid", mode="after")
    @classmethod
    def _values_are_told_apart(cls, values: list[Any] | dict[str, dict[str, Any]] | None) -> Any:
        if isinstance(values, list) and len({_told_apart(value) for value in values}) < len(values):
            raise ValueError(f"lists a value twice: {values}")
        if values is not None and not values:
            raise ValueError("is empty; list at least one value")
        return values

    @model_validator(mode="after")
    def _one_kind_that_holds_something(self) -> "Parameter":
        kinds = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(kinds) != 1:
            raise ValueError(f"a parameter takes exactly one of {', '.join(KINDS)}; found {', '.join(kinds) or 'none'}")
        if self.values is None:
            low, high = self.bounds
            if not low < high:
                raise ValueError(f"{kinds[0]} from {low:g} to {high:g} is empty; put the lower end first")
            if not math.isfinite(high - low):
                raise ValueError(f"{kinds[0]} from {low:g} to {high:g} is wider than the largest number; narrow it")
            if self.loguniform and low <= 0:
                raise ValueError(f"loguniform from {low:g}: both ends must be above 0; use uniform, or a small positive end")
            if self.quniform and not 0 < self.quniform[2] <= high - low:
                raise ValueError(f"quniform's step {self.quniform[2]:g} is not between 0 and {high - low:g}, its range")
            if self.num_listed > MOST_STEPS:
                raise ValueError(f"quniform has {self.num_listed:,} values; allowed: at most {MOST_STEPS:,}, or use uniform")
        return self

    @property
    def kind(self) -> str:
        """Which of the five kinds this is."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def values(self) -> list[Any] | None:
        """The listed values or the names of the parts; None for a range."""
        listed = self.choice if self.choice is not None else self.grid
        return None if listed is None else list(listed)

    @property
    def bounds(self) -> tuple[float, float]:
        """The ends of a range."""
        ends = self.uniform or self.loguniform or self.quniform
        assert ends is not None
        return ends[0], ends[1]

    @property
    def steps(self) -> list[float] | None:
        """The values of a stepped range; None for anything else."""
        if self.quniform is None:
            return None
        low, _, step = self.quniform
        return [low + step * place for place in range(self.num_listed)]

    @property
    def num_listed(self) -> int:
        """How many values are listed or stepped through; 1 for a range without steps."""
        if self.values is not None:
            return len(self.values)
        if self.quniform is None:
            return 1
        low, high, step = self.quniform
        count = (high - low) / step + 1e-9
        return math.floor(count) + 1 if count < sys.maxsize else sys.maxsize

    @property
    def examples(self) -> list[Any]:
        """Values that represent the parameter: each listed value, or the ends of a range and one or two values inside it."""
        if self.values is not None:
            return self.values
        low, high = self.bounds
        return self.steps[:2] + [self.steps[-1]] if self.steps else [low, low + 0.37 * (high - low), high]

    def part(self, value: Any) -> dict[str, Any] | None:
        """Return the part of a run file that a value names; None for plain values."""
        named = self.choice if self.choice is not None else self.grid
        return named[value] if isinstance(named, dict) else None

    def found_in(self, base: Mapping[str, Any], key: str) -> Any:
        """Return the run file's value of this parameter; for named parts, the name of the first that matches it; else None."""
        named = self.choice if self.choice is not None else self.grid
        if isinstance(named, dict):
            return next((name for name, part in named.items() if all(value_at(base, k) == v for k, v in part.items())), None)
        return value_at(base, "transforms.train.size_px" if key == RESOLUTION else key)

    def describe(self) -> dict[str, Any]:
        """Return the parameter as plain data, for summary.json."""
        if self.values is not None:
            return {"kind": self.kind, "choices": self.values}
        low, high = self.bounds
        return {"kind": self.kind, "low": low, "high": high, **({"step": self.quniform[2]} if self.quniform else {})}


def applies(parameter: Parameter, params: Params, base: Mapping[str, Any]) -> bool:
    """Return whether a parameter's `when` holds for the parameters chosen so far, or else for the run file's values."""
    for key, wanted in parameter.when.items():
        found = params[key] if key in params else value_at(base, key)
        if found not in as_list(wanted):
            return False
    return True


def as_list(wanted: Any) -> list[Any]:
    """Return the values of a condition of `when` as a list."""
    return wanted if isinstance(wanted, list) else [wanted]


def value_at(value: Mapping[str, Any], key: str) -> Any:
    """Return the value of a dotted key, or None if it is missing."""
    node: Any = value
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def with_params(base: dict[str, Any], params: Params, space: Mapping[str, Parameter], where: str) -> dict[str, Any]:
    """Return the run file `base` with the parameters applied, as plain data; `where` names the trial in errors."""
    changes: list[tuple[str, Any]] = []
    for key, value in params.items():
        part = space[key].part(value) if key in space else None
        changes += [(key, value)] if part is None else part.items()
    changed = dict(changes)
    for source, filled_in in FILLED_IN.items():
        if changed.get(source) is not None and filled_in not in changed:
            base = _without(base, filled_in)
    for key, to in changes:
        base = _assigned(base, key, to, where)
    return base


def _without(value: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return a copy of `value` that lacks a dotted key."""
    parent, dot, rest = key.partition(".")
    if not dot:
        return {name: part for name, part in value.items() if name != parent}
    below = value.get(parent)
    return {**value, parent: _without(below, rest)} if isinstance(below, Mapping) else dict(value)


def _assigned(value: dict[str, Any], key: str, to: Any, where: str) -> dict[str, Any]:
    if key != RESOLUTION:
        return assigned(value, key, to, where)
    if isinstance(to, bool) or not isinstance(to, int | float) or not (isinstance(to, int) or to.is_integer()):
        raise SpecError(f"{where}: {RESOLUTION} must be a whole number of pixels (found {to!r:.80})")
    return at_resolution(value, int(to), where)


def at_resolution(value: dict[str, Any], size_px: int, where: str) -> dict[str, Any]:
    """Return the run file trained at `size_px`, evaluated at the same multiple of it as before, in no more memory than before.

    Memory is proportional to the number of pixels: micro batches set in the file shrink when images grow.
    """
    trained_px = value_at(value, "transforms.train.size_px")
    evaluated_px = value_at(value, "transforms.evaluate.size_px")
    if trained_px:
        value = assigned(value, "transforms.evaluate.size_px", round(evaluated_px * size_px / trained_px), where)
    value = assigned(value, "transforms.train.size_px", size_px, where)
    if value_at(value, "model.image_size_px"):
        value = assigned(value, "model.image_size_px", size_px, where)
    growth = (size_px / trained_px) ** 2 if trained_px else 1.0
    for key in ("placement.micro_batch", "evaluation.micro_batch"):
        stated = value_at(value, key)
        if isinstance(stated, int) and growth > 1:
            value = assigned(value, key, shrunk(stated, growth), where)
    return value


def shrunk(micro_batch: int, growth: float) -> int:
    """Return the largest divisor of `micro_batch` that fits into the same memory if samples take `growth` times as much."""
    most = max(1, math.floor(micro_batch / growth))
    return max(divisor for divisor in range(1, most + 1) if micro_batch % divisor == 0)


def _told_apart(value: Any) -> str:
    """Return a key that is equal for values that define the same trial: 1 and 1.0, but not 1 and true."""
    return repr(int(value) if isinstance(value, float) and value.is_integer() else value)


def grid_cells(space: Mapping[str, Parameter], kinds: Sequence[str] = ("grid",)) -> list[dict[str, Any]]:
    """Return every combination of the values of the parameters of these kinds, the last parameter moving fastest."""
    cells: list[dict[str, Any]] = [{}]
    for key, parameter in space.items():
        listed = parameter.values if parameter.values is not None else parameter.steps
        if parameter.kind in kinds and listed is not None:
            cells = [{**cell, key: value} for cell in cells for value in listed]
    return cells
