"""`rayprob tune` on a systems file: trains every system, judges it, and writes the table.

Everything is resumed: a finished run is not trained again, and a judged one not judged again.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from rayprob import plugins
from rayprob.config.spec import fingerprint
from rayprob.data.tasks import RunAll, Wording, as_ray_tasks, in_process
from rayprob.errors import RunError, SpecError
from rayprob.files import storage
from rayprob.files.documents import read_json
from rayprob.runs.bundle import bundle_fingerprint
from rayprob.runs.finished import REPORTED, holdout_split, open_bundle
from rayprob.runs.folder import open_run
from rayprob.runs.kinds import require_finished
from rayprob.runs.paths import RunFolder, SystemsFolder
from rayprob.runs.spec import Run
from rayprob.sweep.tune import alone_in, clear_folder
from rayprob.systems.spec import System, SystemsFile, SystemsSpec, open_systems, rates_of
from rayprob.systems.table import SystemRow, cells_of, chosen_lr
from rayprob.systems.work import FailedSystem, Numbers, RunJob, TrainedSystem, judge, train_once
from rayprob.train.features import FeatureSource, split_features
from rayprob.train.training import Tell

R = TypeVar("R")
WORDING = Wording(does="trains or judges a system", did="trained or judged a system", remedy="run the same command to continue")


@dataclass(frozen=True)
class SystemsCompared:
    """A finished comparison: one row per system, and those that were left out with the reason."""

    name: str
    folder: str
    spec: SystemsSpec
    rows: tuple[SystemRow, ...]
    left_out: tuple[System, ...]
    num_images: int
    dataset: str
    elapsed_s: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return {
            "name": self.name,
            "systems": self.spec.model_dump(mode="json"),
            "dataset": self.dataset,
            "num_images": self.num_images,
            "elapsed_s": self.elapsed_s,
            "left_out": [{"name": one.name, "file": one.file, "why": one.left_out} for one in self.left_out],
            "rows": [row.to_dict() for row in self.rows],
        }


def compare_systems(file: SystemsFile, tell: Tell = lambda event: None, *, fresh: bool = False) -> SystemsCompared:
    """Train and judge the systems of a file, and write results.json; `tell` gets events of kinds plan, features and done.

    A system that cannot be trained or judged is left out with the reason. `fresh` removes the folder first. Raises SpecError
    for files that do not fit together and if the first system fails, RunError for a source that is not a finished run, and for
    a folder of another comparison or that another process uses, KeyboardInterrupt when a signal has stopped a run that trains
    end to end, which is saved.
    """
    began_s = time.monotonic()
    spec, folder = file.systems, file.folder_of_all
    systems = open_systems(spec)
    if fresh:
        clear_folder(folder, SystemsFolder(folder).identity_file, "systems")
    _claim(file, folder)
    with alone_in(folder):
        dataset, num_images = _prepare(spec, [one for one in systems if not one.left_out], tell)
        work = _Work(spec, folder, tell, systems)
        rates, trained = work.train()
        judged = work.judge(rates)
        rows = tuple(_rows(work.kept, rates, trained, judged, spec))
        left_out = tuple(one for one in work.systems if one.left_out)
        compared = SystemsCompared(file.name, folder, spec, rows, left_out, num_images, dataset, time.monotonic() - began_s)
        storage.write_text(SystemsFolder(folder).results, json.dumps(compared.to_dict(), indent=1))
    return compared


@dataclass
class _Work:
    """The tasks of a comparison, and the systems that are left."""

    spec: SystemsSpec
    folder: str
    tell: Tell
    systems: list[System]

    @property
    def kept(self) -> list[System]:
        return [one for one in self.systems if not one.left_out]

    def train(self) -> tuple[dict[str, float], list[TrainedSystem]]:
        """Train all kept systems; return the learning rate of each, and all runs."""
        to_try = [self._job(one, lr, 0) for one in self.kept for lr in rates_of(self.spec, one)]
        num_tasks = len(to_try) + len(self.kept) * (2 * self.spec.seeds - 1)
        self.tell({"kind": "plan", "systems": len(self.kept), "tasks": num_tasks})
        tried = self._results(train_once, to_try)
        rates = {one.name: chosen_lr([run for run in tried if run.system == one.name]) for one in self.kept}
        again = [self._job(one, rates[one.name], seed) for one in self.kept for seed in range(1, self.spec.seeds)]
        trained = tried + self._results(train_once, again)
        for run in trained:
            if run.has_diverged and run.lr == rates.get(run.system):
                self._leave_out(FailedSystem(run.system, f"its loss diverged with lr {run.lr:g} and seed {run.seed}"))
        return rates, trained

    def judge(self, rates: dict[str, float]) -> dict[tuple[str, int], Numbers]:
        """Judge all kept systems; return the numbers by name and seed."""
        jobs = [self._job(one, rates[one.name], seed) for one in self.kept for seed in range(self.spec.seeds)]
        return {(name, seed): numbers for name, seed, numbers in self._results(judge, jobs)}

    def _job(self, system: System, lr: float, seed: int) -> RunJob:
        return RunJob(self.spec, system, lr, seed, self.folder, tuple(plugins.folders()))

    def _results(self, task: Callable[[RunJob], R | FailedSystem], jobs: Sequence[RunJob]) -> list[R]:
        run_all: RunAll = in_process if self.spec.source is None else as_ray_tasks(WORDING)
        found: list[R] = []
        for result in run_all(task, jobs) if jobs else ():
            self.tell({"kind": "done"})
            if isinstance(result, FailedSystem):
                self._leave_out(result)
            else:
                found.append(result)
        return found

    def _leave_out(self, failed: FailedSystem) -> None:
        """Raise SpecError for the first system, with which all others are compared."""
        if failed.system == self.systems[0].name:
            raise SpecError(f"{self.systems[0].file}, with which the others are compared, cannot be: {failed.why}")
        self.systems = [
            replace(one, left_out=failed.why) if one.name == failed.system and not one.left_out else one for one in self.systems
        ]


def _prepare(spec: SystemsSpec, systems: Sequence[System], tell: Tell) -> tuple[str, int]:
    """Return the root of the dataset and the number of images reported on, having computed the features of the source."""
    if spec.source is None:
        datasets = {one.name: one.run.data.open() for one in systems}
        first = datasets[systems[0].name]
        for name, dataset in datasets.items():
            if dataset.fingerprint != first.fingerprint:
                raise SpecError(
                    f"{name} is trained on {dataset.root}, {systems[0].name} on {first.root}; systems need equal images"
                )
        for one in systems:
            _require_untouched(spec.split, one.run)
        return str(first.root), len(first.split(spec.split))
    source = FeatureSource.open(open_run(spec.source), open_bundle(spec.source))
    holdout = holdout_split(source.run.model_dump())
    _require_untouched(spec.split, source.run)
    for split in (source.run.data.train_split, holdout, spec.split):
        split_features(source, str(split), tell)
    return str(source.dataset.root), len(source.dataset.split(spec.split))


def _require_untouched(split: str, run: Run) -> None:
    """Raise SpecError for a split to report on by which a run was trained or chosen."""
    used = {str(run.data.train_split): "trained", str(holdout_split(run.model_dump())): "chosen"}
    if split in used:
        raise SpecError(
            f"systems.split {split} is what {run.name} is {used[split]} on, so its numbers would be too good; report on "
            f"another split, such as {REPORTED}"
        )


def _claim(file: SystemsFile, folder: str) -> None:
    """Record what is compared, or raise RunError if the folder has another comparison; files may be added."""
    known_uri = SystemsFolder(folder).identity_file
    spec = file.systems.model_dump(mode="json", exclude={"files", "draws", "seed", "split", "prior", "seeds", "lr"})
    made_of, source = fingerprint(spec), file.systems.source
    of_source = _fingerprint_of(source) if source is not None else None
    if not storage.exists(known_uri):
        said = {"fingerprint": made_of, "source_fingerprint": of_source, "systems": spec}
        storage.write_text(known_uri, json.dumps(said, indent=1))
        return
    known = read_json(known_uri, error=RunError, remedy="choose another folder")
    remedy = "choose another folder, or start with --fresh"
    if known.get("fingerprint") != made_of:
        raise RunError(f"{folder} has systems that were trained otherwise ({known_uri}); {remedy}")
    if known.get("source_fingerprint", of_source) != of_source:  # older folders do not have it
        raise RunError(f"{folder} has systems on the features of an earlier bundle of {source} ({known_uri}); {remedy}")


def _fingerprint_of(source: str) -> str:
    """Return the fingerprint of a run's bundle. Raises RunError for a run that is not finished."""
    require_finished(source)
    return bundle_fingerprint(RunFolder(source).bundle)


def _rows(
    systems: Sequence[System],
    rates: dict[str, float],
    trained: Sequence[TrainedSystem],
    judged: dict[tuple[str, int], Numbers],
    spec: SystemsSpec,
) -> Iterator[SystemRow]:
    by_system = {one.name: [judged[one.name, seed] for seed in range(spec.seeds)] for one in systems}
    cells = cells_of(by_system)
    for one in systems:
        runs = [run for run in trained if run.system == one.name]
        first = [run for run in runs if run.seed == 0]
        kept = next(run for run in first if run.lr == rates[one.name])
        yield SystemRow(
            name=one.name,
            file=one.file,
            description=describe(one),
            lr=kept.lr,
            tried={f"{run.lr:g}": run.holdout_mAP for run in sorted(first, key=lambda run: run.lr)},
            parameters=kept.parameters,
            images_per_s=kept.images_per_s,
            pretrained=_pretrained(one, spec),
            cells=cells[one.name],
        )


def describe(system: System) -> str:
    """Return the first sentence of the comment at the top of a system's file; "" without one."""
    lines = []
    for line in storage.read_bytes(system.file).decode(errors="replace").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    return " ".join(lines).partition(". ")[0].rstrip(".")


def _pretrained(system: System, spec: SystemsSpec) -> str:
    run = system.run if spec.source is None else open_run(spec.source)
    return str(run.model.weights or "from scratch")
