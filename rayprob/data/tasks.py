"""Maps a function over jobs, in this process or as Ray tasks; jobs contain paths to data, so that little passes through Ray."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeVar

from rayprob.cluster import import_ray, is_running, start_ray, told_when_long
from rayprob.errors import DatasetError, RayprobError

J = TypeVar("J")
R = TypeVar("R")
MOST_ENDING_S = 60.0  # for tasks that were cancelled


class RunAll(Protocol):
    """Yields the result of a task for each job, in any order. Jobs may be generated lazily."""

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


def as_ray_tasks(wording: Wording, **init: Any) -> RunAll:
    """Return a mapper that runs Ray tasks, at most two per CPU under way.

    It joins the cluster of RAY_ADDRESS; without one it starts Ray on this machine with the arguments `init`, and stops it.
    """

    def run_all(task: Callable[[J], R], jobs: Iterable[J], /) -> Iterator[R]:
        if not jobs:
            return iter(())
        was_running = is_running()
        if not was_running:
            start_ray(**init)
        return _map_on_ray(task, jobs, wording, shut_down=not was_running)

    return run_all


def _map_on_ray(task: Callable[[J], R], jobs: Iterable[J], wording: Wording, *, shut_down: bool) -> Iterator[R]:
    ray = import_ray()
    remote = ray.remote(num_cpus=1, max_retries=2)(task)
    bound = 2 * max(int(ray.cluster_resources().get("CPU", 1)), 1)
    waiting = iter(jobs)
    under_way: list[Any] = []
    try:
        under_way.extend(remote.remote(job) for job in islice(waiting, bound))
        while under_way:
            with told_when_long(f"a task that {wording.does}: it needs 1 CPU; `ray status` shows what is free"):
                (ready,), under_way = ray.wait(under_way, num_returns=1)
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
