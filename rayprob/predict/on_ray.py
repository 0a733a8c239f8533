"""`--parquet FILE --ray`: Ray Data actors write the parts of a table; each loads the bundle once.

Only part numbers pass through Ray. An actor finds, reads and decodes its images itself, so no image enters the object store,
and writes its part next to the table's path; memory per actor is bounded by the records of one part and a few batches.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rayprob import plugins
from rayprob.cluster import import_ray, is_running, require_cluster, start_ray, told_when_long
from rayprob.errors import RayprobError, RunError, as_error
from rayprob.files.uris import absolute
from rayprob.predict.job import Asking, PredictJob
from rayprob.predict.table import PART_IMAGES, Progress, TablePlan, WrittenTable, write_part, write_parts


@dataclass(frozen=True)
class TableJob:
    """A job and the path of its table; every node sees the same paths."""

    job: PredictJob
    path: str
    part_images: int
    plugin_folders: tuple[str, ...] = ()

    def open(self) -> tuple[Asking, TablePlan]:
        """Return the predictor with its question, and the plan of the table."""
        plugins.look_in(self.plugin_folders)
        asking, images = self.job.open()
        return asking, TablePlan.of(self.path, asking, images, part_images=self.part_images)


class PartWriter:
    """An actor that opens the job once and then writes parts."""

    def __init__(self, table: TableJob, num_threads: int | None) -> None:
        if num_threads:
            torch.set_num_threads(num_threads)
        self._asking, self._plan = table.open()

    def __call__(self, rows: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Write the parts of a block and return the block, with the kind and message of each part's error, or "".

        An error is returned, not raised: Ray Data would wrap it in layers from which it cannot be recovered.
        """
        met = [self._write(part) for part in rows["id"].tolist()]
        return {"id": rows["id"], "kind": np.array([kind for kind, _ in met]), "message": np.array([text for _, text in met])}

    def _write(self, part: int) -> tuple[str, str]:
        try:
            write_part(self._plan, part, self._asking.outcomes)
        except RayprobError as error:
            return type(error).__name__, str(error)
        return "", ""


def write_table_on_ray(job: PredictJob, path: str, on_progress: Progress, *, part_images: int = PART_IMAGES) -> WrittenTable:
    """Write the table of a job on the cluster of RAY_ADDRESS, else on this machine; resumes as `write_table` does.

    Raises an actor's error, and RunError if Ray lost an actor.
    """
    require_cluster()
    table = TableJob(job.absolute(), absolute(path), part_images, tuple(plugins.folders()))
    _, plan = table.open()
    return write_parts(plan, lambda missing: _write_on_ray(table, missing), on_progress)


def _write_on_ray(table: TableJob, missing: Sequence[int]) -> Iterator[int]:
    if not missing:
        return
    ray = import_ray()
    started_here = not is_running()
    if started_here:
        start_ray()
    try:
        rows = iter(_parts(table, missing, ray.cluster_resources()).iter_rows())
        while row := _next_of(rows):
            if row["kind"]:
                raise as_error(row)
            yield int(row["id"])
    except ray.exceptions.RayError as error:
        raise RunError(f"Ray lost an actor that wrote the table: {error}; run the same command to continue") from error
    finally:
        if started_here:
            ray.shutdown()


def _next_of(rows: Iterator[dict[str, Any]]) -> dict[str, Any] | None:
    with told_when_long("an actor that writes a part: it needs a GPU or a CPU; `ray status` shows what is free"):
        return next(rows, None)


def _parts(table: TableJob, missing: Sequence[int], resources: Mapping[str, float]) -> Any:
    """Return the Ray dataset of finished parts; an actor for each GPU of the cluster, else for each CPU."""
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False  # the command shows its own
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    num_gpus = int(resources.get("GPU", 0))
    num_actors = min(len(missing), max(1, num_gpus or int(resources.get("CPU", 1))))
    each = {"num_gpus": 1} if num_gpus else {"num_cpus": 1}
    blocks = ray.data.from_items([{"id": part} for part in missing], override_num_blocks=len(missing))
    return blocks.map_batches(
        PartWriter,
        fn_constructor_args=(table, None if num_gpus else 1),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=num_actors, max_tasks_in_flight_per_actor=1),
        **each,
    )
