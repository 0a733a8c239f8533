"""The contents of a local folder: each real folder once, for any number of links to it, in the same order on all machines."""

import os
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

from rayprob.files.uris import is_utf8, utf8_name

DANGLING = "a link to a file that does not exist"
NOT_UTF8 = "a name that is not UTF-8"
CHUNK_FILES = 2**14
NUL = "\0"  # in no name
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
    """What `walk` lists, as chunks of files in no order; `unusable` and `again` are complete after the last one.

    `in_order` maps over folders of one depth, which may be read side by side.
    """

    def __init__(self, folder: str, in_order: "MapFolders" = map) -> None:
        self.folder = folder
        self.unusable: dict[str, str] = {}
        self.again: list[str] = []
        self._in_order = in_order
        self._seen: set[tuple[int, int]] = set()

    def __iter__(self) -> Iterator[Files]:
        folders, links = [""], deque[str]()
        while folders or links:
            # Links come last, so that a folder is listed under its own name.
            level = folders or [links.popleft()]
            folders = []
            for below, read in zip(level, self._in_order(partial(read_folder, self.folder), level), strict=True):
                yield from self._files(below, read, folders, links)

    def _files(self, below: str, read: "FolderRead", folders: list[str], links: deque[str]) -> Iterator[Files]:
        """Yield the files of a folder, unless it was read under another path; add its subfolders and links to folders."""
        if read.identity is not None and read.identity in self._seen:
            self.again.append(below)
            return
        self.unusable |= read.unusable
        if read.identity is not None:
            self._seen.add(read.identity)
        folders += read.folders
        links += read.links
        while read.chunks:  # each is freed before the next is taken
            names, sizes = read.chunks.pop()
            yield list(zip(names.split(NUL), sizes, strict=True))


@dataclass(frozen=True)
class FolderRead:
    """What is directly in a folder. Names are in one text per chunk of files, which takes a third of the memory."""

    identity: tuple[int, int] | None  # None: it could not be read
    folders: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)  # to folders
    unusable: dict[str, str] = field(default_factory=dict)
    chunks: list[tuple[str, "array[int]"]] = field(default_factory=list)


# Maps over folders as `map` does: results come in the order of the folders.
MapFolders = Callable[[Callable[[str], FolderRead], Iterable[str]], Iterable[FolderRead]]


def read_folder(root: str, below: str) -> FolderRead:
    """Return what is directly in the folder `below` of `root`. Raises OSError if the root cannot be read."""
    before = f"{below}/" if below else ""
    found = FolderRead(None)
    files: Files = []
    try:
        found = FolderRead(_identity(os.path.join(root, below)))
        with os.scandir(os.path.join(root, below)) as entries:
            for entry in entries:
                path = before + entry.name
                if not is_utf8(entry.name):
                    found.unusable[utf8_name(path)] = NOT_UTF8
                elif entry.is_dir(follow_symlinks=False):
                    found.folders.append(path)
                else:
                    _sort_in(entry, path, found, files)
                if len(files) == CHUNK_FILES:
                    _end_chunk(found, files)
    except OSError as error:
        if not below:
            raise
        found.unusable[below] = _unreadable(error)
    _end_chunk(found, files)
    found.folders.sort()
    found.links.sort()
    return found


def _end_chunk(found: FolderRead, files: Files) -> None:
    if files:
        found.chunks.append((NUL.join(name for name, _ in files), array("q", [size for _, size in files])))
        files.clear()


def _sort_in(entry: os.DirEntry[str], path: str, found: FolderRead, files: Files) -> None:
    try:
        if entry.is_file():
            files.append((path, entry.stat().st_size))
        elif entry.is_dir():
            found.links.append(path)
        elif entry.is_symlink() and not os.path.exists(entry.path):
            found.unusable[path] = DANGLING
    except OSError:  # a link to itself, or a file that has been removed
        if entry.is_symlink():
            found.unusable[path] = DANGLING


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
