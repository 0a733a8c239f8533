"""What `lr-find` shows a person."""

import shlex
from collections.abc import Sequence

from rich.console import Console

from rayprob.cli.terminal import show_line
from rayprob.train.lr_range import LrRange


def show_lr_range(console: Console, found: LrRange, run_file: str, overrides: Sequence[str], figure: str) -> None:
    """Print the suggestion, what it was read from, and the command that takes it."""
    left = f"left at {found.diverged_at:.2g}" if found.diverged_at else "had not left at the end"
    show_line(
        console,
        f"{len(found.lrs)} steps from {found.lrs[0]:.2g} to {found.lrs[-1]:.2g}: the loss falls steepest at "
        f"{found.steepest:.2g}, is lowest at {found.lowest:.2g}, and {left}",
    )
    show_line(console, f"suggestion: optimizer.lr {found.suggestion:.2g}, a tenth of where the loss is lowest")
    for note in found.notes:
        show_line(console, f"note: {note}")
    show_line(console, f"picture: {figure}")
    show_line(console, f"next: {train_command(run_file, overrides, found.suggestion)}")


def train_command(run_file: str, overrides: Sequence[str], lr: float) -> str:
    """Return the command that trains the run, with the overrides it was asked with, at a learning rate."""
    kept = [text for text in overrides if text.partition("=")[0].strip() != "optimizer.lr"]
    assigned = [*kept, f"optimizer.lr={lr:.2g}"]
    return shlex.join(["rayprob", "train", run_file, *(part for text in assigned for part in ("--set", text))])
