"""The checkpoints of a run on disk.

A checkpoint is two files, `step-00000100.pt` (tensors) and `step-00000100.json` (progress). The second is written last,
so a checkpoint that is listed is complete. The files are the run's own rather than Ray Train's, so a run resumes in the same
way under Ray, under a process launcher and in a test, from any URI, even if Ray loses a report together with its worker.
"""

import hashlib
import io
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError

from rayprob.config.faults import faults_of
from rayprob.config.spec import fingerprint
from rayprob.errors import ModelError, RunError, StorageError
from rayprob.files import storage
from rayprob.files.documents import Count, Shape, read_json, require_shape
from rayprob.loader.order import Cursor
from rayprob.models.tensor_files import read_tensors
from rayprob.runs.paths import RunFolder

VERSION = 1  # of the file format; rayprob 0.1 does not record it
SKIPPED = "the checkpoint is skipped"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """The progress of a run: its position in the stream, the number of steps done, and its best evaluation so far."""

    step: int = 0
    cursor: Cursor = field(default_factory=lambda: Cursor(0, 0))
    best_score: float | None = None
    best_step: int | None = None
    stale_evaluations: int = 0
    elapsed_s: float = 0.0
    is_stopped_early: bool = False
    open_losses: tuple[float, ...] = ()  # of the steps since the last logged one


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint on disk; `score` is its evaluation's mAP, None for a checkpoint between evaluations.

    `sha256` is that of its tensor file; None in early checkpoints of rayprob 0.1.
    """

    folder: str
    step: int
    score: float | None
    progress: Progress
    sha256: str | None = None

    @property
    def name(self) -> str:
        return f"step-{self.step:08d}"

    def load(self) -> dict[str, Any]:
        """Return the saved tensors, on the CPU. Raises RunError if they are missing or damaged, StorageError if the store does
        not answer.
        """
        uri = storage.join(RunFolder(self.folder).checkpoints, f"{self.name}.pt")
        content = storage.read_bytes(uri) if storage.exists(uri) else b""
        try:
            if self.sha256 and hashlib.sha256(content).hexdigest() != self.sha256:
                raise ValueError(f"the sha256 of its {len(content):,} bytes differs from what was written")
            tensors = read_tensors(content, uri)
            if not isinstance(tensors, dict):
                raise ValueError(f"it contains {type(tensors).__name__}, not a state")
        except (ModelError, ValueError) as error:
            raise RunError(
                f"checkpoint {uri} cannot be read ({error}); remove its two files to continue from an older one"
            ) from error
        return tensors


def save_checkpoint(folder: str, tensors: dict[str, Any], progress: Progress, score: float | None) -> Checkpoint:
    """Write a state below `folder`; it replaces a checkpoint of the same step."""
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    sha256 = hashlib.sha256(buffer.getbuffer()).hexdigest()
    checkpoint = Checkpoint(folder, progress.step, score, progress, sha256)
    base = RunFolder(folder).checkpoints
    storage.write_bytes(storage.join(base, f"{checkpoint.name}.pt"), buffer.getvalue())
    facts = {
        "version": VERSION,
        "step": checkpoint.step,
        "score": score,
        "progress": asdict(progress),
        "sha256": sha256,
    }
    text = json.dumps({**facts, "fingerprint": fingerprint(facts)})
    storage.write_text(storage.join(base, f"{checkpoint.name}.json"), text)
    return checkpoint


def list_checkpoints(folder: str) -> list[Checkpoint]:
    """Return the complete checkpoints below `folder`, oldest first."""
    base = RunFolder(folder).checkpoints
    names = [name for name in storage.list_names(base) if re.fullmatch(r"step-\d{8}\.json", name)]
    found = [_from_facts(folder, storage.join(base, name)) for name in names]
    return [checkpoint for checkpoint in found if checkpoint is not None]


def latest(checkpoints: list[Checkpoint]) -> Checkpoint | None:
    """Return the checkpoint with the most steps."""
    return max(checkpoints, key=lambda checkpoint: checkpoint.step, default=None)


def best_first(checkpoints: list[Checkpoint]) -> list[Checkpoint]:
    """Return the checkpoints that have a score, best first; ties in order of step."""
    scored = [checkpoint for checkpoint in checkpoints if checkpoint.score is not None]
    return sorted(scored, key=lambda checkpoint: (-(checkpoint.score or 0.0), checkpoint.step))


def load_first(checkpoints: Sequence[Checkpoint]) -> tuple[Checkpoint, dict[str, Any]] | None:
    """Return the first checkpoint that can be read, and its tensors; None if there are none. Warns about those before it.

    Raises RunError if none of them can be read.
    """
    for place, checkpoint in enumerate(checkpoints):
        try:
            return checkpoint, checkpoint.load()
        except RunError as error:
            if place + 1 == len(checkpoints):
                raise
            log.warning("%s; using the checkpoint of step %d instead", error, checkpoints[place + 1].step)
    return None


def newest_first(checkpoints: list[Checkpoint]) -> list[Checkpoint]:
    """Return the checkpoints, those with the most steps first."""
    return sorted(checkpoints, key=lambda checkpoint: -checkpoint.step)


def prune(folder: str, keep_best: int) -> None:
    """Remove all checkpoints except the two newest (in case one is damaged) and the `keep_best` best ones."""
    checkpoints = list_checkpoints(folder)
    kept = {checkpoint.step for checkpoint in [*best_first(checkpoints)[:keep_best], *newest_first(checkpoints)[:2]]}
    for checkpoint in checkpoints:
        if checkpoint.step not in kept:
            # The .json is removed first, so that a partial removal does not look like a complete checkpoint.
            for ending in (".json", ".pt"):
                storage.remove(storage.join(RunFolder(folder).checkpoints, checkpoint.name + ending))


class _Damaged(RunError):
    """The .json of a checkpoint is damaged; another checkpoint may be usable."""


class _Facts(Shape):
    """The .json of a checkpoint. Keys with a default are missing in some files of rayprob 0.1."""

    step: Count
    score: float | None
    progress: dict[str, Any]
    sha256: str | None = None


def _from_facts(folder: str, uri: str) -> Checkpoint | None:
    try:
        facts = read_json(uri, error=_Damaged, remedy=SKIPPED)
        _require_known_version(facts.get("version", VERSION), uri)
        return _checked(folder, facts, uri)
    except StorageError:
        if storage.exists(uri):
            raise
        return None  # a running run has removed it since it was listed
    except _Damaged as error:
        log.warning("%s", error)
        return None


def _require_known_version(version: object, uri: str) -> None:
    if isinstance(version, int) and version > VERSION:
        raise RunError(
            f"checkpoint {uri} has format version {version}, but this rayprob reads at most {VERSION}; resume with the rayprob "
            "that wrote it, or start over with --fresh"
        )


def _checked(folder: str, facts: dict[str, Any], uri: str) -> Checkpoint:
    """Return the checkpoint of these facts. Raises _Damaged if they differ from what was written."""
    written = {name: value for name, value in facts.items() if name != "fingerprint"}
    # Early checkpoints of rayprob 0.1 have no version, `open_losses` or `sha256`.
    if facts.keys() & {"version", "fingerprint"} and facts.get("fingerprint") != fingerprint(written):
        raise _Damaged(f"{uri}: its fingerprint does not match its content; {SKIPPED}")
    require_shape(facts, _Facts, uri, error=_Damaged, remedy=SKIPPED)
    try:
        progress = PROGRESS.validate_json(json.dumps(facts["progress"]), strict=True)
    except ValidationError as error:
        raise _Damaged(f"{uri}: {faults_of(Progress, error, 'progress')[0]}; {SKIPPED}") from error
    step, score = facts["step"], facts["score"]
    if not uri.endswith(f"step-{step:08d}.json") or progress.step != step:
        raise _Damaged(f"{uri} is of step {step}, but its progress is of step {progress.step}; {SKIPPED}")
    return Checkpoint(folder, step, None if score is None else float(score), progress, facts.get("sha256"))


PROGRESS = TypeAdapter(Progress)
