"""What every Ray Train worker runs: its place and device from Ray, then the Ray-free `fit`."""

import os
import time
from dataclasses import asdict
from typing import Any

import ray.train
import ray.train.torch

from rayprob import plugins
from rayprob.errors import RayprobError, RunError
from rayprob.files import patience
from rayprob.loader.order import Place
from rayprob.runs.folder import note_failure, note_fault, read_failure
from rayprob.runs.spec import received
from rayprob.train.faults import comes_from_another_rank, fault_text, last_frame, repeated
from rayprob.train.loop import fit


def work(config: dict[str, Any]) -> dict[str, Any]:
    """Train this worker's rank of `config["run"]`; return the outcome, or the failure that a restart cannot fix.

    An error of rayprob's own is noted in the folder and raised, which ends the other ranks too; the group that Ray then starts
    finds the note and returns it instead of failing again. Another exception is noted when it occurs for the second time.
    Anything else (a lost node, a killed process) leaves no note, and the new group resumes from the last checkpoint.
    """
    plugins.look_in(config["plugin_folders"])
    with patience.patient(config["run"]["placement"]["storage_patience_s"]):
        return _work(config["run"])


def _work(described: dict[str, Any]) -> dict[str, Any]:
    folder = described["folder"]  # absolute, since this process works elsewhere
    failure = read_failure(folder)
    if failure:
        return {"failure": failure}
    context = ray.train.get_context()
    place = Place(context.get_world_rank(), context.get_world_size(), context.get_local_world_size())
    try:
        run = received(described)
        outcome = fit(run, place, ray.train.torch.get_device(), report=ray.train.report, heed=Drains().new)
    except RayprobError as error:
        note_failure(folder, error)
        if place.world_size > 1:
            raise
        return {"failure": read_failure(folder)}
    except Exception as error:
        if not comes_from_another_rank(error):
            _note_fault(folder, place, error)
        raise
    return {"outcome": asdict(outcome)}


def _note_fault(folder: str, place: Place, error: Exception) -> None:
    """Note an exception; if the previous group ended with the same one, note that the run cannot continue."""
    fault = fault_text(error)
    group = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"  # each group has its own port
    if note_fault(folder, place.rank, group, fault):
        note_failure(folder, RunError(f"{repeated(fault)} ({last_frame(error)})"))


class Drains:
    """The nodes of this run that Ray is draining, for example after a cloud's notice that it reclaims a node."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def new(self) -> dict[str, Any] | None:
        """Return newly draining nodes, and in how many seconds they end; None if there are none. A barrier of all ranks."""
        info = ray.train.get_preemption_info()
        nodes = set(info.preempted_node_ids) - self._known if info else set()
        if info is None or not nodes:
            return None
        self._known |= nodes
        left_s = info.deadline_ms / 1000 - time.time() if info.deadline_ms else None
        return {"nodes": sorted(nodes), "ranks": info.preempted_ranks, "seconds_left": left_s}
