"""The contents of a local folder: each real folder once, for any number of links to it, in the same order on all machines."""

import os
from collections import deque
from dataclasses import dataclass, field

from rayprob.files.uris import is_utf8, utf8_name

DANGLING = "a link to a file that does not exist"
NOT_UTF8 = "a name that is not UTF-8"


@dataclass(frozen=True)
class Listing:
    """The files in a folder and below it, by relative path, in sorted order."""

    size_of: dict[str, int] = field(default_factory=dict)  # in bytes
    unusable: dict[str, str] = field(default_factory=dict)  # printable path -> what prevents its use
    again: tuple[str, ...] = ()  # links to folders whose files are listed under another path


def walk(folder: str) -> Listing:
    """Return the contents of a folder, recursively; links to files count as files. Raises OSError if it cannot be read.

    A folder with several paths is listed under the one without links, if there is one. A name that is not
    UTF-8, a dangling link, and a subfolder that cannot be read are `unusable`.
    """
    found, again = Listing(), []
    seen = {_identity(folder)}
    folders, links = deque([""]), deque[str]()
    while folders or links:
        # Links come last, so that a folder is listed under its own name.
        below = folders.popleft() if folders else links.popleft()
        if below:
            try:
                identity = _identity(os.path.join(folder, below))
            except OSError as error:
                found.unusable[below] = _unreadable(error)
                continue
            if identity in seen:
                again.append(below)
                continue
            seen.add(identity)
        _read_folder(folder, below, found, folders, links)
    return Listing(dict(sorted(found.size_of.items())), dict(sorted(found.unusable.items())), tuple(sorted(again)))


def file_names(folder: str) -> list[str]:
    """Return the sorted printable names of the files directly in a folder; empty if it does not exist."""
    try:
        with os.scandir(folder) as entries:
            return sorted(utf8_name(entry.name) for entry in entries if _is_file(entry))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _read_folder(folder: str, below: str, found: Listing, folders: deque[str], links: deque[str]) -> None:
    """Record the files of one folder, and its subfolders and links to folders, in sorted order."""
    folders_here: list[str] = []
    links_here: list[str] = []
    before = f"{below}/" if below else ""
    try:
        with os.scandir(os.path.join(folder, below)) as entries:
            for entry in entries:
                path = before + entry.name
                if not is_utf8(entry.name):
                    found.unusable[utf8_name(path)] = NOT_UTF8
                elif entry.is_dir(follow_symlinks=False):
                    folders_here.append(path)
                else:
                    _sort_in(entry, path, found, links_here)
    except OSError as error:
        if not below:
            raise
        found.unusable[below] = _unreadable(error)
    folders.extend(sorted(folders_here))
    links.extend(sorted(links_here))


def _sort_in(entry: os.DirEntry[str], path: str, found: Listing, links: list[str]) -> None:
    try:
        if entry.is_file():
            found.size_of[path] = entry.stat().st_size
        elif entry.is_dir():
            links.append(path)
        elif entry.is_symlink() and not os.path.exists(entry.path):
            found.unusable[path] = DANGLING
    except OSError:  # a link to itself, or a file that has been removed
        if entry.is_symlink():
            found.unusable[path] = DANGLING


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def _unreadable(error: OSError) -> str:
    return f"a folder that cannot be read ({error.strerror})"


def _identity(folder: str) -> tuple[int, int]:
    stat = os.stat(folder)
    return stat.st_dev, stat.st_ino
