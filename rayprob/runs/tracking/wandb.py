"""Weights & Biases: a run of a project, online or offline (WANDB_MODE), with the run file as config and rows as history."""

import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from rayprob.errors import SpecError, one_line
from rayprob.files import storage
from rayprob.runs.tracking.sink import NUMBERS, Notes, ServiceSpec, Sink, TrackedRun, scalars


class WandbSpec(ServiceSpec):
    """A run of Weights & Biases per run; `wandb: PROJECT` sets the project alone. Needs `pip install 'rayprob[wandb]'`.

    The API key is never part of a run file: `wandb login` stores it, or WANDB_API_KEY has it. With WANDB_MODE=offline nothing
    is sent; `wandb sync RUN/wandb/offline-run-*` does that later.
    """

    package: ClassVar[str] = "wandb"
    short: ClassVar[str] = "project"

    project: str = "rayprob"
    """The project."""
    entity: str | None = None
    """The user or team; by default that of the API key."""


class WandbSink(Sink):
    """Writes through a run object of its own; rows of one step become one entry of the history."""

    def __init__(self, spec: WandbSpec, run: TrackedRun) -> None:
        import wandb

        self._spec, self._run = spec, run
        self._wandb: Any = wandb
        self._open: Any = None
        self._sent: Mapping[str, int] = {}
        self._first_step = 0
        if wandb.setup().settings.mode == "online":
            self._require_key()

    def open(self, known: Notes) -> Notes:
        """Continue the run of an earlier start, or create one."""
        run_id = known.get("id") or secrets.token_hex(4)
        self._open = self._started(run_id)
        self._first_step = self._open.starting_step
        if known and not self._first_step:  # an offline run does not know what earlier starts logged
            self._sent = self._run.recorded
        return {"id": run_id}

    def record(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Log the numbers of a step or an evaluation, unless an earlier start has; facts of a start join the config."""
        if kind == "start":
            facts = {name: value for name, value in values.items() if isinstance(value, int | str)}
            self._open.config.update({"start": facts}, allow_val_change=True)
        elif kind in NUMBERS and step >= self._first_step and step > self._sent.get(kind, -1):
            self._open.log({f"{kind}/{name}": value for name, value in scalars(values)}, step=step)

    def close(self, ending: str) -> None:
        """End the run; one that was stopped is not failed."""
        self._open.finish(exit_code=1 if ending == "failed" else 0)

    def summarise(self, known: Notes, numbers: Mapping[str, float]) -> None:
        """Set numbers in the summary of the run."""
        run = self._started(known["id"])
        run.summary.update(dict(numbers))
        run.finish()

    def _started(self, run_id: str) -> Any:
        commit = self._run.facts.get("git_commit")
        settings = self._wandb.Settings(silent=True, console="off", disable_git=True, disable_code=True, git_commit=commit)
        return self._wandb.init(
            project=self._spec.project,
            entity=self._spec.entity,
            group=self._spec.group,
            name=self._run.name,
            id=run_id,
            resume="allow",
            reinit="create_new",
            dir=self._folder(),
            config={**self._run.settings, "rayprob": self._run.facts},
            settings=settings,
        )

    def _require_key(self) -> None:
        try:
            has_key = self._wandb.login(verify=False, timeout=1)
        except Exception as error:
            raise SpecError(_keyless(one_line(error))) from error
        if not has_key:
            raise SpecError(_keyless("there is no API key"))

    def _folder(self) -> Path:
        """Return where W&B keeps its own files: in the folder of the run, if that is local."""
        is_local = storage.is_local(self._run.folder)
        folder = storage.local_path(self._run.folder) if is_local else Path(tempfile.gettempdir())
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def _keyless(why: str) -> str:
    return f"tracking.wandb cannot log in: {why}; run `wandb login`, set WANDB_API_KEY, or set WANDB_MODE=offline to send later"


SINKS = {"wandb": WandbSink}
