"""A run in the table of runs: its progress, its best mAP and whether it runs, by its folder and the ends of its history."""

import json
import os
import platform
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rayprob.errors import one_line
from rayprob.files import storage
from rayprob.runs.listing.row import (
    FAILED,
    FINISHED,
    RUNNING,
    STOPPED,
    WHOLE_BYTES,
    FoundFolder,
    ListedRun,
    dataset_of,
    json_mapping,
    last_name,
    yaml_mapping,
)
from rayprob.runs.paths import RunFolder, is_bundle

HEAD_BYTES, TAIL_BYTES = 2**16, 2**18  # of a longer history
RECENT_S = 600.0  # a run of another machine that has written since then counts as running


def listed_run(found: FoundFolder) -> ListedRun:
    """Return what the folder of a run tells. Raises what reading its files raises."""
    paths = RunFolder(found.folder)
    run = yaml_mapping(paths.run_file)
    history = _History.read(found)
    state, because = _state_of_run(found, history)
    evaluation, model = run.get("evaluation") or {}, run.get("model") or {}
    return ListedRun(
        folder=found.folder,
        name=str(run.get("name", last_name(found.folder))),
        kind="refit" if model.get("weights_part") == "features" and model.get("frozen") == "backbone" else "run",
        state=state,
        because=because,
        dataset=dataset_of(run.get("data") or {}),
        done=history.epochs("step"),
        total=history.epochs("total_steps"),
        split=str(evaluation.get("split", "holdout")),
        best=_best(found, history),
        images_per_s=history.images_per_s,
        written_s=found.modified_s(paths.history) or found.modified_s(paths.run_file),
    )


@dataclass(frozen=True)
class _History:
    """The rows at the start and the end of a run's history, or all of them if it is short."""

    rows: tuple[dict[str, Any], ...]
    is_whole: bool

    @classmethod
    def read(cls, found: FoundFolder) -> "_History":
        uri = RunFolder(found.folder).history
        size = found.size_bytes(uri)
        if size <= WHOLE_BYTES:
            return cls(_rows(storage.read_bytes(uri) if size else b""), is_whole=True)
        head = storage.read_bytes(uri, 0, HEAD_BYTES)
        tail = storage.read_bytes(uri, size - TAIL_BYTES, TAIL_BYTES).partition(b"\n")[2]
        return cls((*_rows(head), *_rows(tail)), is_whole=False)

    def epochs(self, key: str) -> float | None:
        """Return steps in epochs: those of the last row (`step`), or of the whole run (`total_steps`)."""
        starts = [row for row in self.rows if row["kind"] == "start" and row.get("steps_per_epoch")]
        row = (self.rows if key == "step" else starts)[-1:]
        return row[0][key] / starts[-1]["steps_per_epoch"] if starts and key in row[0] else None

    @property
    def images_per_s(self) -> float | None:
        """The median speed of the logged steps."""
        speeds = sorted(row["images_per_s"] for row in self.rows if row["kind"] == "step" and row.get("images_per_s"))
        return speeds[len(speeds) // 2] if speeds else None

    @property
    def process(self) -> tuple[str, int] | None:
        """Host and process of the last start, if it is among the rows for certain."""
        starts = [row for row in self.rows if row["kind"] == "start" and "pid" in row and "host" in row]
        return (starts[-1]["host"], starts[-1]["pid"]) if starts and self.is_whole else None


def _rows(content: bytes) -> tuple[dict[str, Any], ...]:
    """Return the rows of whole lines; a line that is cut or damaged is left out."""
    rows = []
    for line in content.splitlines(keepends=True):
        try:
            row = json.loads(line) if line.endswith(b"\n") else None
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and isinstance(row.get("kind"), str) and isinstance(row.get("step"), int):
            rows.append(row)
    return tuple(rows)


def _best(found: FoundFolder, history: _History) -> float | None:
    """Return the mAP of the evaluation that is kept: from the newest checkpoint, which knows it for a history of any length."""
    kept = [row.get("mAP") for row in history.rows if row["kind"] == "evaluation" and row.get("is_best")]
    if kept and history.is_whole:
        return kept[-1]
    base = RunFolder(found.folder).checkpoints
    names = sorted(name for name in storage.list_names(base) if re.fullmatch(r"step-\d{8}\.json", name))
    uri = storage.join(base, names[-1]) if names else ""
    progress = json_mapping(uri).get("progress", {}) if uri else {}
    return progress.get("best_score") if uri else (kept[-1] if kept else None)


def _state_of_run(found: FoundFolder, history: _History) -> tuple[str, str]:
    paths = RunFolder(found.folder)
    if found.has(paths.bundle) and is_bundle(paths.bundle):
        return FINISHED, "it has its bundle"
    if found.has(paths.failure):
        failure = json_mapping(paths.failure)
        return FAILED, one_line(failure.get("message", paths.failure))
    process = history.process
    if process is not None and process[0] == platform.node():
        is_alive = _is_alive(process[1], found.modified_s(paths.history))
        told = f"process {process[1]} of this machine"
        return (RUNNING, f"{told} is alive") if is_alive else (STOPPED, f"{told} has ended")
    written_s = max(found.modified_s(path) for path in (paths.history, paths.identity_file))
    ago_s = time.time() - written_s
    if ago_s < RECENT_S and not found.has(paths.stop):
        return RUNNING, f"it wrote {ago_s:.0f} s ago"
    if found.has(paths.stop):
        return STOPPED, "it was asked to stop"
    return STOPPED, f"it has not written for {ago_s / 60:.0f} min" if found.has(paths.history) else "it has not started"


def _is_alive(pid: int, written_s: float) -> bool:
    """Return whether a process of this machine is alive, and is not a later one of the same number."""
    if not os.path.exists("/proc/self/stat"):
        return _answers(pid)
    try:
        since_boot = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        booted_s = re.search(r"^btime (\d+)$", Path("/proc/stat").read_text(), re.M)
    except OSError:
        return False
    started_s = int(since_boot) / os.sysconf("SC_CLK_TCK") + (int(booted_s[1]) if booted_s else 0)
    return started_s <= written_s + 2  # the time of the boot is in whole seconds


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
