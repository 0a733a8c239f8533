"""A systems file: which run files to compare, on what, and how each is tuned and judged."""

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from rayprob.calibrate.crossfit import NONE
from rayprob.config.kinds import SYSTEMS_FILE, FileKind
from rayprob.config.spec import Spec, read_kind
from rayprob.errors import SpecError
from rayprob.metrics.bootstrap import DRAWS
from rayprob.runs.finished import REPORTED
from rayprob.runs.optimizers import OptimizerSpec
from rayprob.runs.schedules import ScheduleSpec
from rayprob.runs.spec import Run
from rayprob.runs.tracking import of_group
from rayprob.train.refit import RefitSpec

LEARNING_RATES = (3e-4, 1e-3, 3e-3, 1e-2)


class HeadTrainingSpec(Spec):
    """How heads are trained on the frozen features of `source`: the same for every system, apart from the learning rate."""

    optimizer: OptimizerSpec = OptimizerSpec(weight_decay=1e-2, clip_norm=1.0)
    """The optimizer; each learning rate is tried in it."""
    schedule: ScheduleSpec = ScheduleSpec()
    """The learning-rate schedule."""
    epochs: PositiveFloat = 20.0
    """Passes over the features of the training split."""
    global_batch: PositiveInt = 64
    """Samples per optimizer step."""
    patience: PositiveInt | None = None
    """Stop after this many epochs without a better holdout mAP; null never stops early."""


class SystemsSpec(Spec):
    """What to compare. Every system gets the same number of seeds and, unless `lr` is null, the same learning rates to try.

    They are tried with the first seed, and the one with the best holdout mAP is used for all; `split` is only evaluated.
    """

    files: tuple[str, ...] = Field(min_length=1)
    """Run files or patterns such as systems/*.yaml, relative to this file; the first is the one to compare with."""
    source: str | None = None
    """Folder of a finished run on whose frozen features heads are trained; null trains each run file end to end."""
    seeds: PositiveInt = 3
    """Number of seeds, 0, 1, 2 and so on."""
    lr: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] | None = LEARNING_RATES
    """Learning rates to try for each system; null trains each at that of its own run file, which needs `source: null`."""
    refit: HeadTrainingSpec = HeadTrainingSpec()
    """How heads are trained on the features of the source."""
    split: str = REPORTED
    """The split to report on."""
    prior: str = NONE
    """A label prior to add afterwards for a second table: none, auto, coco, or the path of one."""
    draws: PositiveInt = DRAWS
    """Bootstrap draws of the images, for intervals."""
    seed: NonNegativeInt = 0
    """Seed of these draws."""

    @model_validator(mode="after")
    def _own_rates_end_to_end(self) -> Self:
        if self.lr is None and self.source is not None:
            raise ValueError(
                "lr: null needs source: null; the rate of a run file is for the whole network, not for its head alone"
            )
        return self


@dataclass(frozen=True)
class System:
    """A run file under a name, and why it is left out, "" if it is not."""

    name: str
    file: str
    run: Run
    left_out: str = ""


class SystemsFile(Spec):
    """A systems file: its name, its folder, and the part `systems`."""

    file_kind: ClassVar[FileKind | None] = SYSTEMS_FILE

    name: str = "systems"
    """Name of the comparison."""
    folder: str | None = None
    """Folder of all its runs and results; null is systems/NAME."""
    systems: SystemsSpec
    """What is compared."""

    @classmethod
    def read(cls, path: str | Path, overrides: Sequence[str] = ()) -> Self:
        """Read a systems file; paths of run files become relative to the working folder. Raises SpecError."""
        spec = cls.parse(read_kind(path, overrides, SYSTEMS_FILE), where=str(path))
        beside = os.path.dirname(path)
        files = tuple(os.path.join(beside, file) for file in spec.systems.files)
        return spec.model_copy(update={"systems": spec.systems.model_copy(update={"files": files})})

    @property
    def folder_of_all(self) -> str:
        """The folder of all runs and results."""
        return self.folder or f"systems/{self.name}"


def open_systems(spec: SystemsSpec) -> list[System]:
    """Return the systems in the order of the files. Raises SpecError for a pattern without files and a name used twice.

    On features, those with another backbone than the first are left out: they differ in what is frozen.
    """
    files = dict.fromkeys(file for pattern in spec.files for file in _found(pattern))
    runs = [(file, Run.read(file)) for file in files]
    first = runs[0][1]
    systems = [System(run.name, file, run, _why_left_out(run, first, spec.source)) for file, run in runs]
    by_name: dict[str, System] = {}
    for system in systems:
        if system.name in by_name:
            raise SpecError(f"{system.file} and {by_name[system.name].file} have the name {system.name}; rename one of them")
        by_name[system.name] = system
    return systems


def rates_of(spec: SystemsSpec, system: System) -> tuple[float, ...]:
    """Return the learning rates to try for a system: one for a head that is fitted without any."""
    rates = spec.lr or (system.run.optimizer.lr,)
    return rates[:1] if system.run.model.head.needs_refit else rates


def refit_spec(spec: SystemsSpec, system: System, lr: float, seed: int, group: str) -> RefitSpec:
    """Return how the head of a system is trained on the features of the source; services track it in `group`."""
    common, run = spec.refit, system.run
    return RefitSpec(
        plugins=run.plugins,
        head=run.model.head,
        loss=run.loss,
        auxiliary=run.auxiliary,
        optimizer=common.optimizer.model_copy(update={"lr": lr}),
        schedule=common.schedule,
        epochs=common.epochs,
        global_batch=common.global_batch,
        patience=common.patience,
        seed=seed,
        metric="mAP",
        tracking=of_group(run.tracking, group),
        start="labels",
    )


def _found(pattern: str) -> list[str]:
    if not glob.has_magic(pattern):
        return [pattern]
    files = sorted(glob.glob(pattern))
    if not files:
        raise SpecError(f"systems.files: no file matches {pattern}; paths are relative to the systems file")
    return files


def _why_left_out(run: Run, first: Run, source: str | None) -> str:
    if source is None:
        return "its head can only be trained on the features of a finished run" if run.model.head.needs_refit else ""
    ours, theirs = (
        {**one.model.model_dump(exclude={"head"}), "data": one.data, "transforms": one.transforms} for one in (run, first)
    )
    if others := [key for key in theirs if ours.get(key) != theirs[key]] + [key for key in ours if key not in theirs]:
        return f"it differs in {', '.join(others)}, and heads are compared on the same frozen features"
    if run.auxiliary and run.auxiliary.why_features:
        return f"auxiliary.{run.auxiliary.why_features}, which are frozen here; compare: outputs works on them"
    return ""
