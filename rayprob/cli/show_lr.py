"""The output of `lr-find`."""

import shlex
from collections.abc import Sequence

from rich.console import Console

from rayprob.cli.terminal import show_line
from rayprob.train.lr_range import LrRange


def show_lr_range(console: Console, found: LrRange, run_file: str, overrides: Sequence[str], figure: str) -> None:
    """Print the suggestion, what it is based on, and the command that uses it."""
    left = f"diverges at {found.diverged_at:.2g}" if found.diverged_at else "does not diverge"
    show_line(
        console,
        f"{len(found.lrs)} steps from {found.lrs[0]:.2g} to {found.lrs[-1]:.2g}: the loss falls fastest at "
        f"{found.steepest:.2g}, is lowest at {found.lowest:.2g}, and {left}",
    )
    show_line(console, f"suggestion: optimizer.lr {found.suggestion:.2g}, a tenth of the learning rate with the lowest loss")
    for note in found.notes:
        show_line(console, f"note: {note}")
    show_line(console, f"picture: {figure}")
    show_line(console, f"next: {train_command(run_file, overrides, found.suggestion)}")


def train_command(run_file: str, overrides: Sequence[str], lr: float) -> str:
    """Return the command that trains the run at a learning rate, with the given overrides."""
    kept = [text for text in overrides if text.partition("=")[0].strip() != "optimizer.lr"]
    assigned = [*kept, f"optimizer.lr={lr:.2g}"]
    return shlex.join(["rayprob", "train", run_file, *(part for text in assigned for part in ("--set", text))])
