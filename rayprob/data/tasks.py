"""Maps a function over jobs, in this process or as Ray tasks; jobs contain paths to data, so that little passes through Ray."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeVar

from rayprob.cluster import cluster_address, import_ray, is_running, start_ray, told_when_long
from rayprob.errors import DatasetError, RayprobError

J = TypeVar("J")
R = TypeVar("R")
THREADS = 16
MOST_ENDING_S = 60.0  # for tasks that were cancelled


class RunAll(Protocol):
    """Yields the result of a task for each job, in any order. Jobs may be generated lazily."""

    def __call__(self, task: Callable[[J], R], jobs: Iterable[J], /) -> Iterator[R]:
        """Yield `task(job)` for each job."""
        ...


class InOrder(Protocol):
    """Yields the result of a task for each job, in the order of the jobs."""

    def __call__(self, task: Callable[[J], R], jobs: Iterable[J], /) -> Iterator[R]:
        """Yield `task(job)` for each job."""
        ...


@dataclass(frozen=True)
class Wording:
    """The wording of messages about a task."""

    does: str  # "writes a shard"
    did: str
    remedy: str  # if Ray loses one


def in_process(task: Callable[[J], R], jobs: Iterable[J], /) -> Iterator[R]:
    """Do the jobs one after the other in this process."""
    return map(task, jobs)


def in_threads(task: Callable[[J], R], jobs: Iterable[J], /) -> Iterator[R]:
    """Do the jobs in threads of this process, which mostly wait for a disk or a store."""
    return read_ahead(task, jobs, THREADS)


def read_ahead(read: Callable[[J], R], jobs: Iterable[J], depth: int) -> Iterator[R]:
    """Yield `read(job)` in order, with at most `depth` running at the same time."""
    with ThreadPoolExecutor(depth) as pool:
        waiting = iter(jobs)
        under_way: deque[Future[R]] = deque(pool.submit(read, job) for job in islice(waiting, depth))
        while under_way:
            found = under_way.popleft().result()
            under_way.extend(pool.submit(read, job) for job in islice(waiting, 1))
            yield found


@contextmanager
def cluster_joined() -> Iterator[bool]:
    """Join the cluster of RAY_ADDRESS while the block runs; yields whether this process is in a cluster. Raises RunError."""
    if is_running() or cluster_address() is None:
        yield is_running()
        return
    start_ray()
    try:
        yield True
    finally:
        import_ray().shutdown()


def as_ray_tasks(wording: Wording, *, in_order: bool = False, **init: Any) -> RunAll:
    """Return a mapper that runs at most two Ray tasks per CPU at a time; `in_order` yields results in the order of the jobs.

    It joins the cluster of RAY_ADDRESS; without one it starts Ray on this machine with the arguments `init`, and stops it.
    """

    def run_all(task: Callable[[J], R], jobs: Iterable[J], /) -> Iterator[R]:
        if not jobs:
            return iter(())
        was_running = is_running()
        if not was_running:
            start_ray(**init)
        return _map_on_ray(task, jobs, wording, in_order=in_order, shut_down=not was_running)

    return run_all


def _map_on_ray(task: Callable[[J], R], jobs: Iterable[J], wording: Wording, *, in_order: bool, shut_down: bool) -> Iterator[R]:
    ray = import_ray()

    def run(job: J) -> R:  # Ray accepts only functions, but a task may be a partial
        return task(job)

    remote = ray.remote(num_cpus=1, max_retries=2)(run)
    bound = 2 * max(int(ray.cluster_resources().get("CPU", 1)), 1)
    waiting = iter(jobs)
    under_way: list[Any] = []
    try:
        under_way.extend(remote.remote(job) for job in islice(waiting, bound))
        while under_way:
            with told_when_long(
                f"a task that {wording.does}; if none runs yet, `ray status` shows whether the 1 CPU that each needs is free"
            ):
                (ready,), _ = ray.wait(under_way[:1] if in_order else under_way, num_returns=1)
                under_way.remove(ready)
            under_way.extend(remote.remote(job) for job in islice(waiting, 1))
            yield ray.get(ready)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, RayprobError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        raise DatasetError(f"Ray lost a task that {wording.did}: {error}; {wording.remedy}") from error
    finally:
        for ref in under_way:
            ray.cancel(ref)
        if shut_down:
            ray.shutdown()
        elif under_way:
            # They write files until they have ended, which the next build would find.
            ray.wait(under_way, num_returns=len(under_way), timeout=MOST_ENDING_S)
