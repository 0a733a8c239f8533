"""A run's folder: which run it belongs to, whether the run can continue in it, and the notes that processes leave there.

`paths.py` lists its files.
"""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from rayprob import __version__, plugins
from rayprob.config.spec import differing_keys
from rayprob.data.joined.dataset import AnyDataset
from rayprob.errors import RayprobError, RunError
from rayprob.files import storage
from rayprob.files.documents import Shape, read_json
from rayprob.runs.checkpoints import latest, list_checkpoints
from rayprob.runs.data_spec import DataSpec
from rayprob.runs.kinds import require_run
from rayprob.runs.paths import RunFolder
from rayprob.runs.spec import Run, identity
from rayprob.text import counted

GIT_S = 5.0  # at most, for the commit of the working folder


class _Facts(Shape):
    """run.json: which run the folder belongs to."""

    identity: dict[str, Any]
    dataset_fingerprint: str
    plugins: dict[str, str] = Field(default={})  # modules, and where they were when the run was started
    plugin_sums: dict[str, str] = Field(default={})  # the sha256 of each module's file; 0.1 has neither
    git_commit: str = ""  # of a run that is tracked


class _Failure(Shape):
    """failed.json: why the run cannot continue."""

    kind: str
    message: str


class _Fault(Shape):
    """fault-RANK.json: what ended an attempt."""

    attempt: str
    fault: str


@dataclass(frozen=True)
class Claim:
    """What a run finds in its folder: nothing (step 0), a checkpoint to continue from, or its own finished result."""

    folder: str
    step: int
    is_finished: bool
    is_new: bool


def claim(run: Run, dataset: AnyDataset) -> Claim:
    """Claim `run.run_folder` for this run, or confirm that it already is. Raises RunError if it belongs to another run."""
    folder = run.run_folder
    facts = {"identity": identity(run), "dataset_fingerprint": dataset.fingerprint, "rayprob": __version__}
    if run.plugins:
        facts["plugins"] = {name: str(plugins.file_of(name)) for name in run.plugins}
        facts["plugin_sums"] = {name: plugins.sum_of(name) for name in run.plugins}
    if run.tracking and (commit := _commit_here()):
        facts["git_commit"] = commit
    is_new = not is_claimed(folder)
    if not is_new:
        _require_same(folder, _read_facts(folder), facts)
    elif storage.list_names(folder):
        raise RunError(f"{folder} is not empty and is not a run folder; set another folder, or empty this one")
    paths = RunFolder(folder)
    for note in (paths.stop, paths.failure, *paths.faults()):
        storage.remove(note)
    storage.write_text(paths.run_file, run.to_yaml())
    storage.write_text(paths.identity_file, json.dumps(facts, indent=1))
    last = latest(list_checkpoints(folder))
    return Claim(folder, last.step if last else 0, paths.has_bundle, is_new)


def recorded_data(run: Run) -> DataSpec:
    """Return the run's data, at the version that the run's folder records if the dataset has grown since."""
    facts = _read_facts(run.run_folder) if is_claimed(run.run_folder) else {}
    return run.data.at(facts.get("dataset_fingerprint"))


def tracked_facts(folder: str) -> dict[str, str]:
    """Return the `dataset_fingerprint` that the folder of a run records, and its `git_commit` if that is known."""
    facts = _read_facts(folder) if is_claimed(folder) else {}
    return {name: facts[name] for name in ("dataset_fingerprint", "git_commit") if name in facts}


def let_go(claim: Claim) -> None:
    """Give up a claim to a folder in which the run cannot start, so that a changed run can claim it."""
    if claim.is_new:
        paths = RunFolder(claim.folder)
        for path in (paths.identity_file, paths.run_file):
            storage.remove(path)


@contextmanager
def kept_once_started(claim: Claim) -> Iterator[None]:
    """Give up a claim if the block, in which the run starts, raises or is interrupted by Ctrl-C."""
    try:
        yield
    except BaseException:
        let_go(claim)
        raise


def is_claimed(folder: str) -> bool:
    """Return whether a folder belongs to a run."""
    return storage.exists(RunFolder(folder).identity_file)


def clear(run: Run) -> None:
    """Remove a run's folder, for a fresh start. Raises RunError if it is not a run folder."""
    folder = run.run_folder
    if not storage.exists(folder):
        return
    if not storage.is_local(folder):
        raise RunError(f"--fresh removes local run folders only; remove {folder} yourself, or choose another name")
    if not is_claimed(folder) and storage.list_names(folder):
        raise RunError(f"{folder} is not a run folder, so --fresh does not remove it; set another folder")
    storage.remove_folder(folder)


def open_run(folder: str) -> Run:
    """Return the run of this folder. Raises RunError if it is not a run folder."""
    require_run(folder)
    uri = RunFolder(folder).run_file
    load_plugins(folder)
    return Run.read_text(storage.read_bytes(uri), where=uri).model_copy(update={"folder": folder})


def load_plugins(folder: str) -> None:
    """Load the plugins of the run in a folder, where there is a run. Raises RunError that says where a missing one was."""
    named = _read_facts(folder).get("plugins", {}) if is_claimed(folder) else {}
    for name, file in named.items():
        plugins.load([name], RunError, of=f"the run in {folder}", was=file)


def ask_to_stop(folder: str) -> None:
    """Ask all ranks to save and stop after their current step."""
    storage.write_text(RunFolder(folder).stop, "")


def stop_is_asked(folder: str) -> bool:
    """Return whether this run was asked to stop."""
    return storage.exists(RunFolder(folder).stop)


def note_failure(folder: str, error: RayprobError) -> None:
    """Record an error that would occur again after a restart."""
    storage.write_text(RunFolder(folder).failure, json.dumps({"kind": type(error).__name__, "message": str(error)}))


def read_failure(folder: str) -> dict[str, str] | None:
    """Return the recorded failure, if there is one."""
    uri = RunFolder(folder).failure
    if not storage.exists(uri):
        return None
    try:
        return read_json(uri, _Failure, remedy="start the run again")
    except RunError as error:
        return {"kind": "RunError", "message": f"the run failed, but the file with the reason is damaged: {error}"}


def _read_facts(folder: str) -> dict[str, Any]:
    remedy = (
        "the file records whose folder this is: restore it from a copy, set another name, or start over with --fresh "
        "(which removes that run)"
    )
    return read_json(RunFolder(folder).identity_file, _Facts, remedy=remedy)


def note_fault(folder: str, rank: int, attempt: str, fault: str) -> bool:
    """Record what ended an attempt of a rank; return whether the same fault ended an earlier attempt."""
    known = known_fault(folder, rank)
    storage.write_text(RunFolder(folder).fault(rank), json.dumps({"attempt": attempt, "fault": fault}))
    return known.get("fault") == fault and known.get("attempt") != attempt


def known_fault(folder: str, rank: int) -> dict[str, str]:
    """Return the `attempt` and `fault` that were last recorded for a rank; empty if there is no readable note."""
    uri = RunFolder(folder).fault(rank)
    try:
        return read_json(uri, _Fault, remedy="") if storage.exists(uri) else {}
    except RunError:  # the error being recorded matters more than this note
        return {}


def _commit_here() -> str:
    """Return the commit of the git repository that contains the working folder; "" without one."""
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=GIT_S, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""


def _require_same(folder: str, old: dict[str, Any], new: dict[str, Any]) -> None:
    changed = differing_keys(old["identity"], new["identity"])
    if old["dataset_fingerprint"] != new["dataset_fingerprint"]:
        changed.append(f"dataset fingerprint: {old['dataset_fingerprint']} -> {new['dataset_fingerprint']}")
    sums = new.get("plugin_sums", {})
    edited = [name for name, known in old.get("plugin_sums", {}).items() if sums.get(name, known) != known]
    changed += [f"plugins {name}: its file {new['plugins'][name]} has changed" for name in edited]
    if changed:
        listed = "\n".join(f"  {line}" for line in changed)
        raise RunError(
            f"{folder} contains a run that differs from this one in {counted(len(changed), 'key')}:\n{listed}\n"
            "set another folder (--set folder=...), undo the changes, or start over with --fresh (which removes that run)"
        )
