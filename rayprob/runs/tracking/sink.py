"""A sink gets each row of a run's history, next to metrics.jsonl; it knows the run, and the options of its run file."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, SerializeAsAny, SerializerFunctionWrapHandler, model_serializer

from rayprob.config.parts import PartSpec
from rayprob.registry import PartTable, choose, unknown

NUMBERS = ("step", "evaluation")  # the kinds of rows that are curves
Notes = dict[str, Any]  # plain values that a sink keeps in the run's folder, such as the id of its run


class SinkSpec(PartSpec):
    """A service that gets the history of the run: `mlflow`, `wandb`, one of a plugin, or `tensorboard`, which every run has."""

    kind: ClassVar[str] = "tracking service"
    package: ClassVar[str] = ""  # which it needs, and which the extra of that name installs
    short: ClassVar[str] = ""  # the option that a text sets which stands for all options: `mlflow: URI`

    name: str
    """The key under tracking; it is not repeated here."""

    @classmethod
    def table(cls) -> "Mapping[str, Callable[..., Sink]]":
        return SINKS

    @classmethod
    def under_its_key(cls, name: str, value: object) -> object:
        """Return the options in a run file, `value`, as this kind of part takes them, with the name that is their key."""
        options = {} if value is None else {cls.short: value} if isinstance(value, str) and cls.short else value
        return {**options, "name": name} if isinstance(options, Mapping) else options

    @model_serializer(mode="wrap")
    def _written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in self._without_unused_keys(handler(self)).items() if key != "name"}

    def of_group(self, name: str) -> Self:
        """Return these options for a run that belongs to the sweep or the comparison `name`."""
        return self

    def absolute(self) -> Self:
        """Return these options without relative paths, for processes that work in other folders."""
        return self


class ServiceSpec(SinkSpec):
    """What services for many runs have in common."""

    group: str | None = None
    """The group of the run; by default the name of its sweep or comparison of systems, if it belongs to one."""

    def of_group(self, name: str) -> Self:
        """Return these options with the group `name`, unless they name one."""
        return self if self.group else self.model_copy(update={"group": name})


@dataclass(frozen=True)
class TrackedRun:
    """What a sink knows of a run.

    `recorded` has the last step of each kind of row that earlier starts recorded. A run that resumes records the rows after its
    checkpoint again, with equal values.
    """

    name: str
    folder: str
    step: int  # at which this start begins
    settings: dict[str, Any] = field(default_factory=dict)  # the run file, as plain data
    facts: dict[str, str] = field(default_factory=dict)  # dataset, versions, commit
    recorded: dict[str, int] = field(default_factory=dict)


class Sink:
    """Base class of the sinks, whose methods do nothing. A sink is created with `(spec, run)`, in the process of rank 0 only.

    Creating it raises a RayprobError for settings that cannot work, before the run starts. What other methods raise is logged
    once and does not end the run. They are called one after another, by another thread than the run's if the sink `is_remote`.
    """

    is_remote: ClassVar[bool] = True

    def open(self, known: Notes) -> Notes:
        """Connect, and return what the next start of the run needs to know, as its `known`; {} at first.

        A remote sink then gets all rows of the run up to now, so that it can add those which it lacks.
        """
        return {}

    def record(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Add a row; `kind` is "start", "step", "evaluation", "notice" or "warning"."""

    def show_images(self, step: int, images_BCHW: NDArray[np.uint8], captions: Sequence[str]) -> None:
        """Show example images with their label names."""

    def flush(self) -> None:
        """Make what was recorded visible."""

    def close(self, ending: str) -> None:
        """End: "finished", "early", "stopped" on request, or "failed"."""

    def summarise(self, known: Notes, numbers: Mapping[str, float]) -> None:
        """Set numbers of the finished run, such as val/mAP; called without `open`, and again with each new evaluation."""


def named_by_keys(value: object) -> object:
    """Return the part `tracking` of a run file with each option of a service as its spec takes it. Raises ValueError."""
    if not isinstance(value, Mapping):
        return value
    for name in value:
        if name not in SINKS:
            raise ValueError(unknown(str(name), SINKS, SinkSpec.kind))
    return {
        name: options if isinstance(options, SinkSpec) else SinkSpec.of(name).under_its_key(name, options)
        for name, options in value.items()
    }


Tracking = Annotated[dict[str, SerializeAsAny[SinkSpec]], BeforeValidator(named_by_keys)]


def of_group(tracking: Mapping[str, SinkSpec], name: str) -> dict[str, SinkSpec]:
    """Return the services of a run that belongs to the sweep or the comparison `name`."""
    return {service: spec.of_group(name) for service, spec in tracking.items()}


SINKS: PartTable[Callable[..., Sink]] = PartTable("SINKS", {})  # each module of this package adds its own


def build_sink(spec: SinkSpec, run: TrackedRun) -> Sink:
    """Return the sink of a run. Raises what its class raises."""
    return choose(SINKS, spec.name, SinkSpec.kind)(spec, run)


def scalars(values: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Return every finite number in `values` with its tag: its name, nested mappings joined by slashes, with `_` for spaces.

    Names that would share a tag, such as the labels `hot dog` and `hot_dog`, keep their spaces instead.
    """
    found = list(_numbers(values))
    shared = Counter(_underscored(name) for name, _ in found)
    tags = ((name if shared[_underscored(name)] > 1 else _underscored(name), number) for name, number in found)
    return [(tag, number) for tag, number in tags if np.isfinite(number)]


def _numbers(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield f"{prefix}{name}", float(value)


def _underscored(name: str) -> str:
    return name.replace(" ", "_")
