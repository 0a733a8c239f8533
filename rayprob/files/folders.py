"""The contents of a local folder: each real folder once, for any number of links to it, in the same order on all machines."""

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

from rayprob.files.uris import is_utf8, utf8_name

DANGLING = "a link to a file that does not exist"
NOT_UTF8 = "a name that is not UTF-8"
CHUNK_FILES = 2**14
Files = list[tuple[str, int]]  # relative path and size in bytes


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
    walked = Walk(folder)
    size_of = dict(sorted(chain.from_iterable(walked)))
    return Listing(size_of, dict(sorted(walked.unusable.items())), tuple(sorted(walked.again)))


class Walk:
    """What `walk` lists, as chunks of files in no order; `unusable` and `again` are complete after the last one."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.unusable: dict[str, str] = {}
        self.again: list[str] = []

    def __iter__(self) -> Iterator[Files]:
        seen = {_identity(self.folder)}
        folders, links = deque([""]), deque[str]()
        while folders or links:
            # Links come last, so that a folder is listed under its own name.
            below = folders.popleft() if folders else links.popleft()
            if below:
                try:
                    identity = _identity(os.path.join(self.folder, below))
                except OSError as error:
                    self.unusable[below] = _unreadable(error)
                    continue
                if identity in seen:
                    self.again.append(below)
                    continue
                seen.add(identity)
            yield from self._read_folder(below, folders, links)

    def _read_folder(self, below: str, folders: deque[str], links: deque[str]) -> Iterator[Files]:
        """Yield the files of one folder; add its subfolders and links to folders, in sorted order."""
        files: Files = []
        folders_here: list[str] = []
        links_here: list[str] = []
        before = f"{below}/" if below else ""
        try:
            with os.scandir(os.path.join(self.folder, below)) as entries:
                for entry in entries:
                    path = before + entry.name
                    if not is_utf8(entry.name):
                        self.unusable[utf8_name(path)] = NOT_UTF8
                    elif entry.is_dir(follow_symlinks=False):
                        folders_here.append(path)
                    else:
                        self._sort_in(entry, path, files, links_here)
                    if len(files) == CHUNK_FILES:
                        yield files
                        files = []
        except OSError as error:
            if not below:
                raise
            self.unusable[below] = _unreadable(error)
        if files:
            yield files
        folders.extend(sorted(folders_here))
        links.extend(sorted(links_here))

    def _sort_in(self, entry: os.DirEntry[str], path: str, files: Files, links: list[str]) -> None:
        try:
            if entry.is_file():
                files.append((path, entry.stat().st_size))
            elif entry.is_dir():
                links.append(path)
            elif entry.is_symlink() and not os.path.exists(entry.path):
                self.unusable[path] = DANGLING
        except OSError:  # a link to itself, or a file that has been removed
            if entry.is_symlink():
                self.unusable[path] = DANGLING


def file_names(folder: str) -> list[str]:
    """Return the sorted printable names of the files directly in a folder; empty if it does not exist."""
    try:
        with os.scandir(folder) as entries:
            return sorted(utf8_name(entry.name) for entry in entries if _is_file(entry))
    except (FileNotFoundError, NotADirectoryError):
        return []


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
