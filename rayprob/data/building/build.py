"""A recipe becomes a dataset: shards written in parallel by Ray tasks, continued after a stop, committed at the end.

Images never pass through Ray's object store: a task reads them from the source, writes them to the target, and returns counts.
"""

import logging
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from rayprob.cluster import import_ray, is_running, require_cluster, start_ray, told_when_long
from rayprob.config.spec import differing_keys, fingerprint
from rayprob.data.building.commit import check_rejects, commit, remove_reports, require_reports
from rayprob.data.building.duplicates import find_copies
from rayprob.data.building.plan import plan
from rayprob.data.building.recipe import Recipe
from rayprob.data.building.shard import BuiltShard, Copy, ShardJob, read_report, write_shard
from rayprob.data.manifest.facts import read_facts
from rayprob.data.sources.source import SourceData, read_source
from rayprob.errors import DatasetError, RayprobError, StorageError
from rayprob.files import storage, uris

log = logging.getLogger(__name__)
RunTasks = Callable[[Callable[[ShardJob], BuiltShard], Sequence[ShardJob]], Iterator[BuiltShard]]
MOST_ENDING_S = 60.0  # for tasks that were cancelled
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
    """The facts of the dataset that was built, and how much of it this call wrote."""

    root: str
    facts: dict[str, Any]
    already_built: bool = False
    images_written: int = 0
    shards_continued: int = 0
    writing_s: float = 0.0  # without reading the source and starting Ray
    elapsed_s: float = 0.0

    def __repr__(self) -> str:
        splits = ", ".join(f"{split} {count:,}" for split, count in self.facts["splits"].items())
        done = "already built" if self.already_built else f"{self.images_written:,} images written in {self.elapsed_s:.1f} s"
        return f"{self.root}: {splits}; {done}; fingerprint {self.facts['fingerprint']}"


def build(recipe: Recipe, *, run_tasks: RunTasks, on_progress: Callable[[BuildProgress], None] = lambda _: None) -> Summary:
    """Build the dataset of a recipe; a stopped build is resumed, and nothing happens where it is built already.

    `run_tasks` maps the writer over the jobs, in any order: `on_ray()` or `in_process`. SIGINT leaves as a
    KeyboardInterrupt whose message says how to go on. Raises SourceError, StorageError, DatasetError, and RunError
    where the cluster of RAY_ADDRESS does not answer.
    """
    started_at_s = time.monotonic()
    if storage.exists(storage.join(recipe.root, "dataset.json")):
        return Summary(recipe.root, _facts_of_same_recipe(recipe), already_built=True)
    if run_tasks is not in_process:
        require_cluster()
    source = read_source(recipe)
    check_rejects(recipe, source.missing)
    jobs = _jobs(recipe, source)
    _remove_leftovers(recipe.root, jobs)
    done = {job.plan.name: shard for job in jobs if (shard := _done(job))}
    _check_room(recipe, [job for job in jobs if job.plan.name not in done])
    images_written, writing_s = _write(jobs, done, run_tasks, on_progress)
    require_reports(recipe.root, jobs)
    copies = find_copies(recipe, lambda: (read_report(job.report)[1] for job in jobs))
    if recipe.duplicates == "drop" and copies:
        again_s = _write(_dropping(jobs, copies), {}, run_tasks, on_progress)[1]
        writing_s, copies = writing_s + again_s, []
    facts = commit(recipe, source, jobs, copies)
    return Summary(
        root=recipe.root,
        facts=facts,
        images_written=images_written,
        shards_continued=len(done),
        writing_s=writing_s,
        elapsed_s=time.monotonic() - started_at_s,
    )


def in_process(write: Callable[[ShardJob], BuiltShard], jobs: Sequence[ShardJob]) -> Iterator[BuiltShard]:
    """Write the shards one after the other in this process."""
    return map(write, jobs)


def on_ray(**init: Any) -> RunTasks:
    """Return a mapper that writes shards as Ray tasks, at most two per CPU under way.

    It joins the cluster of RAY_ADDRESS; without one it starts Ray on this machine with the arguments `init`, and stops it.
    """

    def run_tasks(write: Callable[[ShardJob], BuiltShard], jobs: Sequence[ShardJob]) -> Iterator[BuiltShard]:
        if not jobs:
            return iter(())
        was_running = is_running()
        if not was_running:
            start_ray(**init)
        return _map_on_ray(write, jobs, shut_down=not was_running)

    return run_tasks


def _map_on_ray(write: Callable[[ShardJob], BuiltShard], jobs: Sequence[ShardJob], *, shut_down: bool) -> Iterator[BuiltShard]:
    ray = import_ray()
    task = ray.remote(num_cpus=1, max_retries=2)(write)
    bound = 2 * max(int(ray.cluster_resources().get("CPU", 1)), 1)
    waiting = iter(jobs)
    under_way = [task.remote(job) for job in islice(waiting, bound)]
    try:
        while under_way:
            with told_when_long("a task that writes a shard: it needs 1 CPU; `ray status` shows what is free"):
                (ready,), under_way = ray.wait(under_way, num_returns=1)
            under_way += [task.remote(job) for job in islice(waiting, 1)]
            yield ray.get(ready)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, RayprobError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        raise DatasetError(f"Ray lost a task that wrote a shard: {error}; the same command continues") from error
    finally:
        for ref in under_way:
            ray.cancel(ref)
        if shut_down:
            ray.shutdown()
        elif under_way:
            # Until they have ended they write, and the next build would meet their files.
            ray.wait(under_way, num_returns=len(under_way), timeout=MOST_ENDING_S)


def _facts_of_same_recipe(recipe: Recipe) -> dict[str, Any]:
    facts = read_facts(recipe.root)
    ours = recipe.model_dump(mode="json", exclude={"target"})
    theirs = {key: value for key, value in facts.get("recipe", {}).items() if key != "target"}
    if differing := differing_keys(theirs, ours):
        raise DatasetError(
            f"{recipe.root} was built from another recipe: {'; '.join(differing)}; "
            "remove that folder to build it again, or give another target"
        )
    remove_reports(recipe.root)
    return facts


def _jobs(recipe: Recipe, source: SourceData) -> list[ShardJob]:
    root = uris.absolute(recipe.root)
    jobs = [
        ShardJob(
            plan=shard,
            root=root,
            images=uris.absolute(source.folders[shard.source]),
            label_space=source.label_space,
            check=recipe.check,
            encode=recipe.encode,
            rest=source.rest[shard.source],
        )
        for shard in plan(source.images, recipe, source.label_space.names)
    ]
    if recipe.duplicates != "drop":
        return jobs
    among = fingerprint([job.fingerprint for job in jobs])
    return [replace(job, among=among) for job in jobs]


def _dropping(jobs: Sequence[ShardJob], copies: Sequence[Copy]) -> list[ShardJob]:
    """Return the jobs that write shards with copies again without them; the same command finds them done after a stop."""
    of_shard: dict[str, list[Copy]] = {}
    for copy in copies:
        of_shard.setdefault(copy.shard, []).append(copy)
    before = {name: read_report(job.report)[0].dropped for job in jobs if (name := job.plan.name) in of_shard}
    return [replace(job, dropped=(*before[name], *of_shard[name])) for job in jobs if (name := job.plan.name) in of_shard]


def _remove_leftovers(root: str, jobs: Sequence[ShardJob]) -> None:
    """Remove what a killed build left half-written, and the shards of an unfinished build that had another plan."""
    for folder in (root, storage.join(root, ".build"), storage.join(root, "manifest")):
        for name in storage.list_names(folder):
            if TEMPORARY.search(name):
                storage.remove(storage.join(folder, name))
    planned = {f"{job.plan.name}.parquet" for job in jobs}
    for name in set(storage.list_names(storage.join(root, ".build"))) - planned:
        storage.remove(storage.join(root, name.removesuffix(".parquet")))
        storage.remove(storage.join(root, ".build", name))


def _done(job: ShardJob) -> BuiltShard | None:
    """Return the facts of a shard that an earlier call finished; None where it is to be written, or written again."""
    if not storage.exists(job.report):
        return None
    facts, _ = read_report(job.report)
    tar = storage.join(job.root, job.plan.name)
    # A shard with rejects is written again: somebody may have mended its images.
    if facts.rejected or facts.job != job.fingerprint or not storage.exists(tar):
        return None
    return facts if storage.size_bytes(tar) == facts.size_bytes else None


def _check_room(recipe: Recipe, jobs: Sequence[ShardJob]) -> None:
    if recipe.encode or not storage.is_local(recipe.root):
        return
    needed_bytes = sum(image.size_bytes for job in jobs for image in job.plan.samples)
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
    jobs: Sequence[ShardJob], done: dict[str, BuiltShard], run_tasks: RunTasks, on_progress: Callable[[BuildProgress], None]
) -> tuple[int, float]:
    """Write the shards that are not done; returns the number of images looked at and the seconds that it took."""
    planned = {job.plan.name: len(job.plan.samples) for job in jobs}
    finished = set(done)
    rejected = 0

    def report() -> None:
        images = sum(planned[name] for name in finished)
        on_progress(BuildProgress(len(finished), len(jobs), images, sum(planned.values()), rejected))

    try:
        written = run_tasks(write_shard, [job for job in jobs if job.plan.name not in done])
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
