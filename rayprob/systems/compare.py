"""`rayprob tune` on a systems file: trains every system, judges it, and writes the table.

Everything is resumed: a finished run is not trained again, and a judged one not judged again.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from rayprob import plugins
from rayprob.config.spec import fingerprint
from rayprob.data.tasks import RunAll, Wording, as_ray_tasks, in_process
from rayprob.errors import RunError
from rayprob.files import storage
from rayprob.files.documents import read_json
from rayprob.runs.finished import holdout_split, open_bundle
from rayprob.runs.folder import open_run
from rayprob.runs.paths import SystemsFolder
from rayprob.systems.spec import System, SystemsFile, SystemsSpec, open_systems, rates_of
from rayprob.systems.table import SystemRow, cells_of, chosen_lr
from rayprob.systems.work import Numbers, RunJob, TrainedSystem, judge, train_once
from rayprob.train.features import FeatureSource, split_features
from rayprob.train.training import Tell

J = TypeVar("J")
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


def compare_systems(file: SystemsFile, tell: Tell = lambda event: None) -> SystemsCompared:
    """Train and judge the systems of a file, and write results.json; `tell` gets events of kinds plan, features and done.

    Raises SpecError for files that do not fit together, RunError for a source that is not a finished run and for a folder of
    another comparison, KeyboardInterrupt when a signal has stopped a run that trains end to end, which is saved.
    """
    began_s = time.monotonic()
    spec, folder = file.systems, file.folder_of_all
    systems = open_systems(spec)
    kept = [system for system in systems if not system.left_out]
    dataset, num_images = _prepare(spec, kept, tell)
    _claim(file, folder)
    run_all = in_process if spec.source is None else as_ray_tasks(WORDING)
    to_try = [(one, lr) for one in kept for lr in rates_of(spec, one)]
    num_tasks = len(to_try) + len(kept) * (2 * spec.seeds - 1)
    tell({"kind": "plan", "systems": len(kept), "tasks": num_tasks})
    job = _Jobs(spec, folder)
    tried = _results(run_all, train_once, [job(one, lr, 0) for one, lr in to_try], tell)
    rates = {one.name: chosen_lr([run for run in tried if run.system == one.name]) for one in kept}
    again = [job(one, rates[one.name], seed) for one in kept for seed in range(1, spec.seeds)]
    trained = tried + _results(run_all, train_once, again, tell)
    to_judge = [job(one, rates[one.name], seed) for one in kept for seed in range(spec.seeds)]
    judged = {(name, seed): numbers for name, seed, numbers in _results(run_all, judge, to_judge, tell)}
    rows = _rows(kept, rates, trained, judged, spec, num_images)
    left_out = tuple(one for one in systems if one.left_out)
    compared = SystemsCompared(file.name, folder, spec, tuple(rows), left_out, num_images, dataset, time.monotonic() - began_s)
    storage.write_text(SystemsFolder(folder).results, json.dumps(compared.to_dict(), indent=1))
    return compared


@dataclass(frozen=True)
class _Jobs:
    spec: SystemsSpec
    folder: str

    def __call__(self, system: System, lr: float, seed: int) -> RunJob:
        return RunJob(self.spec, system, lr, seed, self.folder, tuple(plugins.folders()))


def _prepare(spec: SystemsSpec, systems: Sequence[System], tell: Tell) -> tuple[str, int]:
    """Return the root of the dataset and the number of images reported on, having computed the features of the source."""
    if spec.source is None:
        dataset = systems[0].run.data.open()
        return str(dataset.root), len(dataset.split(spec.split))
    source = FeatureSource.open(open_run(spec.source), open_bundle(spec.source))
    holdout = holdout_split(source.run.model_dump())
    for split in (source.run.data.train_split, holdout, spec.split):
        split_features(source, str(split), tell)
    return str(source.dataset.root), len(source.dataset.split(spec.split))


def _claim(file: SystemsFile, folder: str) -> None:
    """Record what is compared, or raise RunError if the folder has another comparison; files may be added."""
    known_uri = SystemsFolder(folder).identity_file
    spec = file.systems.model_dump(mode="json", exclude={"files", "draws", "seed", "split", "prior", "seeds", "lr"})
    made_of = fingerprint(spec)
    if not storage.exists(known_uri):
        storage.write_text(known_uri, json.dumps({"fingerprint": made_of, "systems": spec}, indent=1))
        return
    known = read_json(known_uri, error=RunError, remedy="choose another folder")
    if known.get("fingerprint") != made_of:
        raise RunError(f"{folder} has systems that were trained otherwise ({known_uri}); choose another folder, or remove it")


def _results(run_all: RunAll, task: Callable[[J], R], jobs: Sequence[J], tell: Tell) -> list[R]:
    return list(_told(run_all(task, jobs), tell)) if jobs else []


def _told(results: Iterable[R], tell: Tell) -> Iterator[R]:
    for result in results:
        tell({"kind": "done"})
        yield result


def _rows(
    systems: Sequence[System],
    rates: dict[str, float],
    trained: Sequence[TrainedSystem],
    judged: dict[tuple[str, int], Numbers],
    spec: SystemsSpec,
    num_images: int,
) -> Iterator[SystemRow]:
    by_system = {one.name: [judged[one.name, seed] for seed in range(spec.seeds)] for one in systems}
    cells = cells_of(by_system, num_images=num_images, seed=spec.seed)
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
