"""A sweep and a comparison of systems in the table of runs, from their summaries, their ledger and their lock."""

import fcntl
from pathlib import Path
from typing import Any

from rayprob.files import storage
from rayprob.runs.listing.row import (
    FINISHED,
    RUNNING,
    STOPPED,
    FoundFolder,
    ListedRun,
    dataset_of,
    json_mapping,
    last_lines,
    last_name,
    yaml_mapping,
)
from rayprob.runs.paths import SweepFolder, SystemsFolder


def listed_sweep(found: FoundFolder) -> ListedRun:
    """Return what the folder of a sweep tells; `done` and `total` count its trials. Raises what reading its files raises."""
    paths = SweepFolder(found.folder)
    sweep = yaml_mapping(paths.sweep_file)
    summary = json_mapping(paths.summary) if found.has(paths.summary) else {}
    trials = summary.get("trials", [])
    search, best = sweep.get("search") or {}, summary.get("best")
    metric = search.get("metric", "mAP")
    first = metric[0] if isinstance(metric, list) else metric
    values: dict[str, Any] = next((trial.get("values", {}) for trial in trials if trial["number"] == best), {})
    ledger = last_lines(found, paths.ledger)
    asked, ended = ([row for row in ledger if row.get("kind") == kind] for kind in ("ask", "end"))
    speeds = sorted(trial["images_per_s"] for trial in trials if trial.get("images_per_s"))
    is_done = bool(summary) and len(ended) == len(asked) and not any(t.get("state") == "running" for t in trials)
    state, because = _state_by_lock(found, is_done, "every trial has ended")
    return ListedRun(
        folder=found.folder,
        name=str(sweep.get("name", last_name(found.folder))),
        kind="sweep",
        state=state,
        because=because,
        dataset=dataset_of(sweep.get("data") or {}),
        done=len(ended),
        total=max(len(asked), search.get("trials") or 0),
        metric=str(first),
        split=str(summary.get("split") or (sweep.get("evaluation") or {}).get("split", "holdout")),
        best=values.get(first),
        images_per_s=speeds[len(speeds) // 2] if speeds else None,
        written_s=max(found.modified_s(path) for path in (paths.ledger, paths.summary, paths.sweep_file)),
    )


def listed_systems(found: FoundFolder) -> ListedRun:
    """Return what the folder of a comparison tells; `best` is the best mean mAP. Raises what reading its files raises."""
    paths = SystemsFolder(found.folder)
    results = json_mapping(paths.results) if found.has(paths.results) else {}
    rows = results.get("rows", [])
    state, because = _state_by_lock(found, bool(results), "it has its results")
    means = [row["cells"]["mAP"]["value"] for row in rows if "mAP" in row.get("cells", {})]
    return ListedRun(
        folder=found.folder,
        name=str(results.get("name", last_name(found.folder))),
        kind="systems",
        state=state,
        because=because,
        dataset=last_name(str(results.get("dataset", ""))),
        done=len(rows) or None,
        total=len(rows) or None,
        split=str((results.get("systems") or {}).get("split", "")),
        best=max(means, default=None),
        written_s=max(found.modified_s(path) for path in (paths.results, paths.identity_file)),
    )


def _state_by_lock(found: FoundFolder, is_done: bool, because: str) -> tuple[str, str]:
    lock = SweepFolder(found.folder).lock
    if found.has(lock) and storage.is_local(lock) and _is_locked(storage.local_path(lock)):
        return RUNNING, "a process holds its lock"
    return (FINISHED, because) if is_done else (STOPPED, "no process holds its lock")


def _is_locked(path: Path) -> bool:
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
