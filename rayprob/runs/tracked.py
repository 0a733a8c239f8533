"""Opens the sinks of a run, and keeps their notes in tracking.json, such as the id of the run that the next start continues."""

import json
import logging
import platform
import threading
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic import Field

from rayprob import __version__
from rayprob.errors import RunError, one_line
from rayprob.files import storage
from rayprob.files.documents import Shape, read_json
from rayprob.runs.delivery import Delivery
from rayprob.runs.folder import tracked_facts
from rayprob.runs.paths import RunFolder
from rayprob.runs.spec import Run, described
from rayprob.runs.tracking import SinkSpec, TrackedRun
from rayprob.runs.tracking.sink import Notes, build_sink

ALWAYS = {"tensorboard": SinkSpec(name="tensorboard")}
PACKAGES = ("torch", "ray")
log = logging.getLogger(__name__)


class _Known(Shape):
    """tracking.json: what earlier starts recorded, and what each sink noted."""

    recorded: dict[str, int] = Field(default={})
    sinks: dict[str, dict[str, Any]] = Field(default={})


class SinkNotes:
    """The notes of a run's sinks in its folder; sinks may add theirs from several threads."""

    def __init__(self, folder: str) -> None:
        self._uri = RunFolder(folder).tracking
        self._lock = threading.Lock()
        remedy = "remove it, and the next start creates a new run in each tracking service"
        known = read_json(self._uri, _Known, error=RunError, remedy=remedy) if storage.exists(self._uri) else {}
        self.recorded: dict[str, int] = known.get("recorded", {})
        self.of_sinks: dict[str, Notes] = known.get("sinks", {})

    def add_recorded(self, last: Mapping[str, int]) -> None:
        """Note the last steps of rows that earlier starts recorded."""
        kinds = {*self.recorded, *last}
        self.recorded = {kind: max(self.recorded.get(kind, 0), last.get(kind, 0)) for kind in kinds}
        self._write()

    def keep(self, name: str, notes: Notes) -> None:
        """Note what a sink returned when it opened, if it is new."""
        with self._lock:
            if self.of_sinks.get(name, {}) != notes:
                self.of_sinks[name] = notes
                self._write()

    def _write(self) -> None:
        storage.write_text(self._uri, json.dumps({"recorded": self.recorded, "sinks": self.of_sinks}, indent=1))


def open_sinks(folder: str, step: int, run: Run | None, last: Mapping[str, int], warn: Callable[[str], None]) -> list[Delivery]:
    """Return the sinks of a run that starts at `step`: TensorBoard, and those of its run file.

    `last` has the last step of each kind of row that earlier starts recorded. Raises what creating a sink raises.
    """
    specs = {**ALWAYS, **(run.tracking if run else {})}
    notes = SinkNotes(folder)
    if specs.keys() - ALWAYS.keys():
        notes.add_recorded(last)
    told = _told(run, folder, step, notes.recorded) if run else TrackedRun(name="", folder=folder, step=step)
    sinks = {name: build_sink(spec, told) for name, spec in specs.items()}
    return [Delivery(name, sink, notes.of_sinks.get(name, {}), notes.keep, warn) for name, sink in sinks.items()]


def summarise(run: Run, numbers: Mapping[str, float]) -> None:
    """Pass numbers of a finished run to the services that tracked it; what they raise is a warning."""
    if not run.tracking:
        return
    try:
        noted = SinkNotes(run.run_folder)
        told = _told(run, run.run_folder, 0, noted.recorded)
        for name, notes in noted.of_sinks.items():
            if name in run.tracking:
                build_sink(run.tracking[name], told).summarise(notes, numbers)
    except Exception as error:  # whatever a service's library raises
        log.warning("the numbers of this evaluation are not in tracking: %s", one_line(error))


def _told(run: Run, folder: str, step: int, recorded: Mapping[str, int]) -> TrackedRun:
    recorded_of_run = described(run)
    facts = {**_versions(), **tracked_facts(folder), "run_fingerprint": recorded_of_run["run_fingerprint"], "folder": folder}
    return TrackedRun(run.name, folder, step, recorded_of_run["run"], facts, dict(recorded))


def _versions() -> dict[str, str]:
    return {
        "version": __version__,
        "python": platform.python_version(),
        **{name: found for name in PACKAGES if (found := _version(name))},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
