"""Globs over local files. `**` visits each real folder once: Python's own follows links forever."""

import glob
import os
from collections.abc import Sequence
from fnmatch import fnmatchcase

from rayprob.data.images import is_clutter, warn_of_skipped
from rayprob.files import storage
from rayprob.files.folders import DANGLING, NOT_UTF8
from rayprob.files.uris import is_utf8, utf8_name

ANY_FOLDERS = "**"


def matching(pattern: str) -> list[str]:
    """Return the sorted paths that a glob matches. Names that are not UTF-8 are skipped with a warning, as is clutter."""
    names = _below(pattern) if ANY_FOLDERS in pattern.split("/") else sorted(glob.glob(pattern))
    unusable = {utf8_name(name): NOT_UTF8 for name in names if not is_utf8(name)}
    unusable |= {utf8_name(name): DANGLING for name in names if os.path.islink(name) and not os.path.exists(name)}
    usable = [name for name in names if utf8_name(name) not in unusable]
    clutter = [name for name in usable if not _is_asked_for(name, pattern)]
    warn_of_skipped(pattern, clutter, unusable)
    skipped = {*clutter}
    # A leading ~ would be expanded to a home directory.
    return [f"./{name}" if name.startswith("~") else name for name in usable if name not in skipped]


def _below(pattern: str) -> list[str]:
    """Return what a pattern with ** matches."""
    parts = pattern.split("/")
    num_plain = next(place for place, part in enumerate(parts) if glob.has_magic(part))
    base, wild = parts[:num_plain], [part for part in parts[num_plain:] if part]
    folder = "/".join([*base, ""])
    listing = storage.list_below(folder or ".")
    warn_of_skipped(folder or ".", (), listing.unusable)
    return sorted(folder + name for name in listing.size_of if _fits(name.split("/"), wild))


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether a path matches a pattern, both as lists of names."""
    # After each name of the pattern: how many leading names of the path it can have consumed.
    used = {0}
    for part in pattern:
        if part == ANY_FOLDERS:
            used = set(range(min(used), len(parts) + 1)) if used else used
        else:
            used = {count + 1 for count in used if count < len(parts) and fnmatchcase(parts[count], part)}
    return len(parts) in used


def _is_asked_for(name: str, pattern: str) -> bool:
    """Return whether a name is not clutter, or is clutter that the pattern names, as in .cache/*.jpg."""
    spelled = [part for part in pattern.split("/") if part and not glob.has_magic(part[0])]
    return all(any(fnmatchcase(part, asked) for asked in spelled) for part in name.split("/") if is_clutter(part))
