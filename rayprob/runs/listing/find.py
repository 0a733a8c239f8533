"""Finds the runs, sweeps and comparisons of systems below a folder or URI, and reads them side by side."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from rayprob.data.manifest.facts import FACTS_FILE
from rayprob.errors import RunError, StorageError, one_line
from rayprob.files import storage, uris
from rayprob.files.storage import FolderEntry
from rayprob.runs.listing.of_runs import listed_run
from rayprob.runs.listing.of_sweeps import listed_sweep, listed_systems
from rayprob.runs.listing.row import BROKEN, FoundFolder, ListedRun, last_name
from rayprob.runs.paths import RunFolder, SweepFolder, SystemsFolder

THREADS = 16  # object stores answer slowly, but many at a time
READ = {"run": listed_run, "sweep": listed_sweep, "systems": listed_systems}
ENTERED_ON_REQUEST = ("sweep", "systems", "example")
NOT_ENTERED = ("__pycache__", "node_modules", "site-packages")


def list_runs(folder: str | os.PathLike[str] = ".", *, every: bool = False) -> list[ListedRun]:
    """Return the runs, sweeps and comparisons of systems in a folder and below it, the newest first.

    The runs of a sweep or a comparison, and those below an example (a run or sweep file alone), are listed only if `folder` is
    that folder, or for `every` one. A folder that cannot be read is listed as broken. Raises RunError if `folder` does not
    exist.

    Example::

        best = max((row for row in rp.list_runs("runs") if row.best is not None), key=lambda row: row.best)
        best.folder, best.best, best.state
    """
    root = os.fspath(folder)
    if not storage.exists(root):
        raise RunError(f"{root} does not exist; give the folder that contains runs, such as runs")
    with ThreadPoolExecutor(THREADS) as pool:
        rows = list(pool.map(_listed, _found_below(root, pool, every=every)))
    return sorted(rows, key=lambda row: (-row.written_s, row.folder))


def _listed(found: FoundFolder | ListedRun) -> ListedRun:
    """Return what a folder tells; one that cannot be read is broken, with the reason."""
    if isinstance(found, ListedRun):
        return found
    try:
        return READ[found.kind](found)
    except Exception as error:  # damage takes any form, and must not hide the other runs
        return _broken(found.folder, found.kind, error)


def _broken(folder: str, kind: str, error: Exception) -> ListedRun:
    return ListedRun(folder, last_name(folder), kind, BROKEN, one_line(error))


def _found_below(root: str, pool: ThreadPoolExecutor, *, every: bool) -> Iterator[FoundFolder | ListedRun]:
    """Yield the folders to list, level by level; each real folder once."""
    level, seen = [root], set[str]()
    while level:
        below: list[str] = []
        for folder, entries in zip(level, pool.map(_entries, level), strict=True):
            if storage.is_local(folder):
                if (real := os.path.realpath(storage.local_path(folder))) in seen:
                    continue
                seen.add(real)
            if isinstance(entries, ListedRun):
                yield entries
                continue
            by_name = {entry.name: entry for entry in entries}
            kind = _kind(folder, by_name)
            if kind in READ:
                yield FoundFolder(folder, kind, by_name)
            if kind == "" or (kind in ENTERED_ON_REQUEST and (every or folder == root)):
                below += [uris.join(folder, entry.name) for entry in entries if _is_entered(entry)]
        level = below


def _entries(folder: str) -> list[FolderEntry] | ListedRun:
    try:
        return storage.list_entries(folder)
    except StorageError as error:
        return _broken(folder, "folder", error)


def _kind(folder: str, entries: dict[str, FolderEntry]) -> str | None:
    """Return what a folder is; "" for one whose subfolders may contain some, None for one that contains no runs.

    A run and a sweep have their identity or history next to their file; with the file alone, a folder is an `example`.
    """
    run, sweep = RunFolder(folder), SweepFolder(folder)

    def has(*files: str) -> bool:
        return any(last_name(file) in entries for file in files)

    if has(run.run_file) and has(run.identity_file, run.history):
        return "run"
    if has(sweep.summary) or (has(sweep.sweep_file) and has(sweep.identity_file, sweep.ledger)):
        return "sweep"
    if has(SystemsFolder(folder).identity_file):
        return "systems"
    if has(run.run_file, sweep.sweep_file):
        return "example"
    return None if FACTS_FILE in entries else ""


def _is_entered(entry: FolderEntry) -> bool:
    return entry.is_folder and not entry.name.startswith(".") and entry.name not in NOT_ENTERED
