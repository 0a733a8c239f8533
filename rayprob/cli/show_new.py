"""The output of `rayprob new`: what it found, what it wrote, and what to run next."""

import shlex
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from rayprob.cli.terminal import show_line
from rayprob.project.fitting import Network
from rayprob.project.found import Found
from rayprob.project.write import Written
from rayprob.text import first_of, printable

SHOWN_LABELS = 8
MOST_FREQUENT = 5


def show_found(console: Console, found: Found, network: Network) -> None:
    """Print the splits and labels of a folder of images, and the source of the weights."""
    show_line(console, f"found in {found.folder}:")
    for name, split in found.splits.items():
        dropped = f", {split.num_unlabelled:,} unlabelled ones are dropped" if split.num_unlabelled else ""
        known = len(found.labels) * (split.num_labelled + split.num_unlabelled) - split.num_unknown
        unknown = f"; labels are known in {known:,} cases, unknown in {split.num_unknown:,}" if split.num_unknown else ""
        show_line(console, f"  {name}: {split.num_labelled:,} labelled images{dropped}{unknown}")
    show_line(console, f"  {len(found.labels):,} labels: {first_of(found.labels, SHOWN_LABELS)}")
    show_line(console, f"  prevalence in train: {_prevalence(found.splits['train'].prevalence)}")
    show_line(
        console, f"  a label that an image does not list is {' or '.join({split.rest for split in found.splits.values()})}"
    )
    if found.short_side_px:
        show_line(console, f"  median short side: {found.short_side_px:,} px")
    if "val" not in found.splits:
        show_line(
            console, "  no val split: the run is evaluated on holdout, on which it was chosen, so its numbers are optimistic"
        )
    if not network.is_at_hand:
        show_line(console, f"weights: {network.weights} of {network.backbone}, downloaded when training starts")


def _prevalence(of_label: Mapping[str, float]) -> str:
    """Return the prevalence of the most frequent labels, and of the rarest."""
    ordered = sorted(of_label.items(), key=lambda item: -item[1])
    shown = [f"{printable(label)} {share:.1%}" for label, share in ordered]
    return ", ".join(shown) if len(shown) <= MOST_FREQUENT + 1 else ", ".join([*shown[:MOST_FREQUENT], "...", shown[-1]])


def show_written(console: Console, written: Written) -> None:
    """Print the files of a project and the commands to run in it."""
    show_line(console, f"wrote {written.folder}/: {', '.join(written.files)}")
    show_line(console, "next:")
    is_here = written.folder.resolve() == Path.cwd()
    for command in (*(() if is_here else (f"cd {shlex.quote(str(written.folder))}",)), *written.next_commands):
        show_line(console, f"  {command}")
