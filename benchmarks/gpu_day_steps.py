"""The steps of a long list of commands, and the ledger of those that are done, so that the list can be continued."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Step:
    """A command, and the file or folder that it makes."""

    name: str
    command: tuple[str, ...]
    makes: Path
    num_files: int | None = None  # the step is done if the folder has as many, whoever made them
    keeps_output: bool = False  # whether standard output is what it makes

    def shell(self) -> str:
        """Return the command as a line of shell."""
        return shlex.join(self.command) + (f" > {shlex.quote(str(self.makes))}" if self.keeps_output else "")


@dataclass
class Ledger:
    """The steps that are done, in a JSON file: their commands, and how long they took."""

    path: Path
    done: dict[str, dict[str, object]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path.exists():
            self.done = json.loads(self.path.read_text())

    def is_done(self, step: Step) -> bool:
        """Return whether a step's result is there, made by the same command; a changed command is run again."""
        if step.num_files is not None:
            return step.makes.is_dir() and sum(1 for _ in os.scandir(step.makes)) >= step.num_files
        return step.makes.exists() and self.done.get(step.name, {}).get("command") == list(step.command)

    def take(self, step: Step, run: Callable[[Step], int]) -> int:
        """Run a step that is not done, and record it; return its exit code."""
        if self.is_done(step):
            print(f"# {step.name}: done before", flush=True)
            return 0
        print(f"# {step.name}\n$ {step.shell()}", flush=True)
        step.makes.parent.mkdir(parents=True, exist_ok=True)
        began_s = time.monotonic()
        if code := run(step):
            print(f"# {step.name}: exit code {code}; the same command continues from here", file=sys.stderr, flush=True)
            return code
        self.done[step.name] = {"command": list(step.command), "seconds": round(time.monotonic() - began_s, 1)}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        written = self.path.with_suffix(".tmp")
        written.write_text(json.dumps(self.done, indent=1))
        written.replace(self.path)
        return 0


def run_step(step: Step) -> int:
    """Run a step in a process of its own, and return its exit code."""
    words = [sys.executable, "-m", *step.command] if step.command[0] == "rayprob" else list(step.command)
    if not step.keeps_output:
        return waited_for(subprocess.Popen(words, cwd=ROOT))
    unfinished = step.makes.with_suffix(".tmp")
    with unfinished.open("wb") as output:
        code = waited_for(subprocess.Popen(words, cwd=ROOT, stdout=output))
    if code == 0:
        unfinished.replace(step.makes)
    return code


def waited_for(process: subprocess.Popen[bytes]) -> int:
    """Return the exit code of a process; Ctrl-C and SIGTERM do not end this one before it, which saves its work first."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGTERM:  # Ctrl-C reaches the process from the terminal
            process.send_signal(number)

    previous = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return process.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
