"""Clutter in folders of images, which operating systems leave there, and one log line about all skipped files."""

import logging
from collections.abc import Mapping, Sequence

from rayprob.text import counted, first_of

log = logging.getLogger(__name__)
MOST_NAMED = 5
CLUTTER = {
    "__macosx",  # archives made on macOS
    "@eadir",  # Synology
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "$recycle.bin",
    "system volume information",
    "lost+found",
}


def is_clutter(name: str) -> bool:
    """Return whether a path below a folder is hidden or a system's clutter: ._x.JPG, __MACOSX/x.jpg, Thumbs.db."""
    return any(part.lower() in CLUTTER or (part[:1] == "." and part not in (".", "..")) for part in name.split("/"))


def warn_of_skipped(where: str, clutter: Sequence[str], unusable: Mapping[str, str]) -> None:
    """Log one line that counts the clutter skipped in a folder and names unusable files; nothing if no file was skipped."""
    skipped = [f"{counted(len(clutter), 'hidden or system file')} ({first_of(sorted(clutter), 1)})"] if clutter else []
    for reason in sorted(set(unusable.values())):
        names = [name for name, why in unusable.items() if why == reason and not is_clutter(name)]
        skipped += [f"{first_of(sorted(names), MOST_NAMED, in_all=True)}: {reason}"] if names else []
    if skipped:
        log.warning("%s: skipped %s", where, "; skipped ".join(skipped))
