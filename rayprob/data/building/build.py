"""A recipe becomes a dataset, or adds to one: shards written in parallel by Ray tasks, continued after a stop, committed last.

Images never pass through Ray's object store: a task reads them from the source, writes them to the target, and returns counts.
"""

import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rayprob.cluster import require_cluster
from rayprob.config.spec import fingerprint
from rayprob.data.building.before import Before, may_differ, recipe_differences
from rayprob.data.building.commit import commit, remove_reports, require_reports
from rayprob.data.building.differences import Differences, differences, fitting
from rayprob.data.building.duplicates import find_copies
from rayprob.data.building.list_files import ATTEMPTS
from rayprob.data.building.plan import plan
from rayprob.data.building.recipe import Recipe
from rayprob.data.building.rejects import check_rejects
from rayprob.data.building.shard import BuiltShard, Copy, ShardJob, read_report, write_shard
from rayprob.data.building.shard_jobs import ShardJobs
from rayprob.data.manifest.facts import is_dataset, read_facts
from rayprob.data.manifest.shard_list import Shards, shard_uri
from rayprob.data.manifest.versions import VERSIONS, split_version
from rayprob.data.sources.parts import parts_read_by
from rayprob.data.sources.source import SourceData, read_source
from rayprob.data.tasks import RunAll, Wording, as_ray_tasks, cluster_joined
from rayprob.data.tasks import in_process as in_process
from rayprob.errors import DatasetError, StorageError
from rayprob.files import storage

log = logging.getLogger(__name__)
RunTasks = Callable[[Callable[[ShardJob], BuiltShard], Sequence[ShardJob]], Iterator[BuiltShard]]
TEMPORARY = re.compile(r"\.(tar|parquet|json|jsonl)\.[0-9a-f]{8}\.tmp$")


@dataclass(frozen=True)
class BuildProgress:
    """How far a build is: shards and images done, of how many, and how many images were rejected so far."""

    shards: int
    num_shards: int
    images: int
    num_images: int
    rejected: int


@dataclass(frozen=True, repr=False)
class Summary:
    """The facts of the dataset that was built, and how much of it this call wrote.

    `grown` says where the source of a dataset that was to grow differs from it; None if the dataset did not grow.
    """

    root: str
    facts: dict[str, Any]
    already_built: bool = False
    images_written: int = 0
    shards_continued: int = 0
    writing_s: float = 0.0  # without reading the source and starting Ray
    elapsed_s: float = 0.0
    grown: Differences | None = None
    images_before: int = 0

    @property
    def images_added(self) -> int:
        """How many images a dataset grew by."""
        return sum(map(int, self.facts["splits"].values())) - self.images_before

    def __repr__(self) -> str:
        splits = ", ".join(f"{split} {count:,}" for split, count in self.facts["splits"].items())
        done = "already built" if self.already_built else f"{self.images_written:,} images written in {self.elapsed_s:.1f} s"
        return f"{self.root}: {splits}; {done}; fingerprint {self.facts['fingerprint']}"


def build(
    recipe: Recipe,
    *,
    run_tasks: RunTasks,
    on_progress: Callable[[BuildProgress], None] = lambda _: None,
    grow: bool = False,
) -> Summary:
    """Build the dataset of a recipe; a stopped build is resumed, and nothing happens where it is built already.

    With `grow`, images that the source has and the dataset does not are added to a dataset that is built already, as a new
    version of it; what is there stays as it is. `run_tasks` maps the writer over the jobs, in any order: `on_ray()` or
    `in_process`. SIGINT leaves as a KeyboardInterrupt whose message says how to continue. Raises SourceError, StorageError,
    DatasetError, and RunError where the cluster of RAY_ADDRESS does not answer.
    """
    started_at_s = time.monotonic()
    is_built = _is_built(recipe)
    if is_built and not grow:
        return Summary(recipe.root, _facts_of_same_recipe(recipe), already_built=True)
    before = Before.open(recipe) if is_built else None
    if run_tasks is not in_process:
        require_cluster()
    source = _read(recipe, run_tasks)
    changed = None
    if before:
        source = fitting(before, source, recipe)
        before = before.with_lasting_rejects(source.images, recipe)
        changed = differences(before, source, recipe)
    check_rejects(recipe, source.missing, before)
    threads = (os.cpu_count() or 1) if run_tasks is in_process else 1
    jobs = ShardJobs(recipe, source, plan(source.images, recipe, source.label_space.names, before), threads)
    if recipe.duplicates == "drop":
        jobs.among = fingerprint([*([before.facts["fingerprint"]] if before else []), *(job.fingerprint for job in jobs)])
    _remove_leftovers(recipe.root, jobs)
    reported = [place for place, shard in enumerate(jobs.outlines) if storage.exists(jobs.report(shard))]
    done = {shard.name: shard for place in reported if (shard := _done(jobs[place]))}
    _check_room(recipe, jobs.without(done))
    images_written, writing_s = _write(jobs, done, run_tasks, on_progress)
    require_reports(recipe.root, jobs.outlines)
    copies = _copies(recipe, jobs, before)
    if recipe.duplicates == "drop" and copies:
        again_s = _write(jobs.dropping(copies), {}, run_tasks, on_progress)[1]
        writing_s, copies = writing_s + again_s, []
    facts = commit(recipe, source, jobs.outlines, copies, before)
    return Summary(
        root=recipe.root,
        facts=facts,
        images_written=images_written,
        shards_continued=len(done),
        writing_s=writing_s,
        elapsed_s=time.monotonic() - started_at_s,
        grown=changed,
        images_before=len(before.ids_N) if before else 0,
    )


def on_ray(**init: Any) -> RunAll:
    """Return a mapper that writes shards as Ray tasks, at most two per CPU at a time.

    It joins the cluster of RAY_ADDRESS; without one it starts Ray on this machine with the arguments `init`, and stops it.
    """
    return as_ray_tasks(Wording("writes a shard", "wrote a shard", "the same command continues"), **init)


def _read(recipe: Recipe, run_tasks: RunTasks) -> SourceData:
    """Read the source: in tasks of the cluster that will write the shards, else in threads, for Ray takes seconds to start."""
    if run_tasks is in_process:
        return read_source(recipe)
    with cluster_joined() as is_in_cluster:
        if not is_in_cluster:
            return read_source(recipe)
        wording = Wording("reads a part of the source", "read a part of the source", "the same command starts again")
        with parts_read_by(as_ray_tasks(wording, in_order=True)):
            return read_source(recipe)


def _is_built(recipe: Recipe) -> bool:
    """Return whether the dataset is there, of which no report is left then. Raises DatasetError for a target of a version."""
    folder, version = split_version(recipe.root)
    if version:
        raise DatasetError(f"target {recipe.root} is a version of a dataset; give {folder}, whose newest version grows")
    if not is_dataset(recipe.root):
        return False
    _remove_reports_of_dataset(recipe.root)
    return True


def _facts_of_same_recipe(recipe: Recipe) -> dict[str, Any]:
    facts = read_facts(recipe.root)
    if differing := recipe_differences(recipe, facts):
        grow = "use --grow to add new images by this recipe, " if all(map(may_differ, differing)) else ""
        folder = "its dataset.json" if facts.get("in_place") else "that folder"
        raise DatasetError(
            f"{recipe.root} was built from another recipe: {'; '.join(differing)}; {grow}remove {folder} to build it again, or "
            "give another target"
        )
    return facts


def _remove_reports_of_dataset(root: str) -> None:
    """Remove reports of shards that the dataset has: left by a build that was killed after its last step."""
    names = storage.list_names(storage.join(root, ".build"))
    shards = {*Shards.read(root, read_facts(root))} if names else set()
    reports = [storage.join(root, ".build", name) for name in names if name.endswith(".parquet")]
    for uri in reports:
        if read_report(uri)[0].file in shards:
            storage.remove(uri)
    if names and not storage.list_names(storage.join(root, ".build")):
        remove_reports(root)


def _copies(recipe: Recipe, jobs: ShardJobs, before: Before | None) -> list[Copy]:
    """Return the images whose bytes another one has, of a dataset that grows only new ones."""
    reports = [jobs.report(shard) for shard in jobs.outlines]
    tars = {shard.tar for shard in jobs.outlines if shard.tar}
    if before is None:
        return find_copies(recipe, lambda: (read_report(uri)[1] for uri in reports), tars)

    def tables() -> Iterator[pa.Table]:
        yield from before.tables()
        yield from (read_report(uri)[1] for uri in reports)

    def stays(sample_id: int) -> bool:
        return bool(before.has(np.array([sample_id]))[0])

    return find_copies(recipe, tables, tars | before.tars, stays) if reports else []


def _remove_leftovers(root: str, jobs: ShardJobs) -> None:
    """Remove what a killed build left half-written, lists of one that added nothing, and shards of one with another plan."""
    for folder in (root, *(storage.join(root, name) for name in (".build", "manifest", VERSIONS))):
        for name in storage.list_names(folder):
            if TEMPORARY.search(name) or name in ATTEMPTS.values():
                storage.remove(storage.join(folder, name))
    planned = {f"{shard.name}.parquet" for shard in jobs.outlines}
    for name in set(storage.list_names(storage.join(root, ".build"))) - planned:
        storage.remove(storage.join(root, name.removesuffix(".parquet")))
        storage.remove(storage.join(root, ".build", name))


def _done(job: ShardJob) -> BuiltShard | None:
    """Return the facts of a shard that an earlier call finished; None if it must be written again."""
    facts, _ = read_report(job.report)
    tar = shard_uri(job.root, job.plan.file)
    # A shard with rejects is written again: its images may have been repaired.
    if facts.rejected or facts.job != job.fingerprint or not storage.exists(tar):
        return None
    return facts if storage.size_bytes(tar) == facts.size_bytes else None


def _check_room(recipe: Recipe, jobs: ShardJobs) -> None:
    if recipe.encode or not storage.is_local(recipe.root):
        return
    needed_bytes = sum(shard.size_bytes for shard in jobs.outlines if not shard.tar)
    folder = storage.local_path(recipe.root).absolute()
    free_bytes = shutil.disk_usage(_nearest_existing(folder)).free
    if needed_bytes > free_bytes:
        raise StorageError(
            f"{recipe.root} needs {needed_bytes / 1e9:.1f} GB more and its disk has {free_bytes / 1e9:.1f} GB free; "
            "make room or choose another target, then the same command continues"
        )


def _nearest_existing(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def _write(
    jobs: ShardJobs, done: dict[str, BuiltShard], run_tasks: RunTasks, on_progress: Callable[[BuildProgress], None]
) -> tuple[int, float]:
    """Write the shards that are not done; returns the number of images checked, and the seconds."""
    planned = {shard.name: shard.num_samples for shard in jobs.outlines}
    finished = set(done)
    rejected = 0

    def report() -> None:
        images = sum(planned[name] for name in finished)
        on_progress(BuildProgress(len(finished), len(jobs), images, sum(planned.values()), rejected))

    try:
        written = run_tasks(write_shard, jobs.without(done))
        began_at_s = time.monotonic()
        report()
        for facts in written:
            finished.add(facts.name)
            rejected += len(facts.rejected)
            report()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"stopped; {len(finished)} of {len(jobs)} shards are done; the same command continues"
        ) from None
    return sum(planned[name] for name in finished - set(done)), time.monotonic() - began_at_s
