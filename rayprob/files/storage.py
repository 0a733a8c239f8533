"""Files at local paths and URIs (s3://, gs://, abfs://, hdfs://, file://), through pyarrow.fs; every write is atomic."""

import os
import posixpath
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, TypeVar, cast

import pyarrow as pa
from pyarrow import fs

from rayprob.errors import StorageError, one_line
from rayprob.files import folders, patience
from rayprob.files.folders import Files, Listing
from rayprob.files.uris import beside as beside
from rayprob.files.uris import for_arrow, is_utf8, scheme_of, utf8_name
from rayprob.files.uris import is_local as is_local
from rayprob.files.uris import join as join
from rayprob.files.uris import local_path as local_path

T = TypeVar("T")
SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "file")
# Errors that a retry cannot fix: not found, not allowed, or not understood.
LASTING = re.compile(r"ACCESS_DENIED|HTTP status 4(?!08|29)\d\d|not found|Forbidden|Unauthorized", re.IGNORECASE)


def is_missing(error: BaseException) -> bool:
    """Return whether a StorageError means that the file does not exist, rather than that the store does not answer."""
    return isinstance(error.__cause__, FileNotFoundError)


def exists(uri: str) -> bool:
    """Return whether a file or folder is at `uri`."""
    return bool(_info(uri).type != fs.FileType.NotFound)


def size_bytes(uri: str) -> int:
    """Return the size of the file at `uri`. Raises StorageError if there is none."""
    info = _info(uri)
    if info.type != fs.FileType.File:
        raise StorageError(f"no file at {uri}; check the path")
    return cast(int, info.size)


def list_names(uri: str) -> list[str]:
    """Return the sorted names of the files directly in the folder `uri`; empty if the folder does not exist.

    A local name that is not UTF-8 is returned in a printable form that cannot be used to open the file.
    """
    if is_local(uri):
        with _reported(uri, "list"):
            return folders.file_names(resolve(uri)[1])
    entries = _entries(uri, recursive=False)[1]
    return sorted(entry.base_name for entry in entries if entry.type == fs.FileType.File)


@dataclass(frozen=True)
class FolderEntry:
    """A file or folder directly in another folder; `modified_s` is 0 where the store does not tell."""

    name: str
    is_folder: bool
    size_bytes: int = 0
    modified_s: float = 0.0


def list_entries(uri: str) -> list[FolderEntry]:
    """Return the files and folders directly in the folder `uri`, by name; links are followed, and dangling ones left out.

    Names that are not UTF-8 are left out, since no URI can name them. Raises StorageError for a folder that cannot be read.
    """
    entries = _entries(uri, recursive=False)[1]
    found = (
        FolderEntry(entry.base_name, entry.type == fs.FileType.Directory, entry.size or 0, (entry.mtime_ns or 0) / 1e9)
        for entry in entries
        if entry.type in (fs.FileType.File, fs.FileType.Directory) and is_utf8(entry.base_name)
    )
    return sorted(found, key=lambda entry: entry.name)


def is_folder(uri: str) -> bool:
    """Return whether a folder is at `uri`; in an object store, whether there are objects below it."""
    return bool(_info(uri).type == fs.FileType.Directory)


def list_below(uri: str) -> Listing:
    """Return the contents of the folder `uri`, recursively, each real folder once; empty if it does not exist."""
    if is_local(uri):
        path = resolve(uri)[1]
        with _reported(uri, "list"):
            return folders.walk(path) if os.path.isdir(path) else Listing()
    return Listing(dict(sorted(_files_below(uri))))


def walk_below(uri: str, in_order: folders.MapFolders = map) -> tuple[Iterator[Files], Mapping[str, str], Sequence[str]]:
    """Return what `list_below` lists: files, chunk by chunk and in no order; what is unusable; what is listed elsewhere.

    The latter two are complete after the last chunk. `in_order` maps over local folders. Raises StorageError, also while a
    local folder is iterated over.
    """
    if not is_local(uri):
        return iter([_files_below(uri)]), {}, ()
    walk = folders.Walk(resolve(uri)[1], in_order)
    return _chunks(uri, walk), walk.unusable, walk.again


def _chunks(uri: str, walk: folders.Walk) -> Iterator[Files]:
    with _reported(uri, "list"):
        yield from walk


def _files_below(uri: str) -> Files:
    path, entries = _entries(uri, recursive=True)
    root = path.rstrip("/") + "/"
    return [(entry.path.removeprefix(root), entry.size) for entry in entries if entry.type == fs.FileType.File]


def read_bytes(uri: str, offset_bytes: int = 0, length_bytes: int | None = None) -> bytes:
    """Return the file at `uri`, or `length_bytes` of it from `offset_bytes`. Raises StorageError, also for a short read."""

    def read(filesystem: fs.FileSystem, path: str) -> bytes:
        with filesystem.open_input_file(path) as source:
            if length_bytes is None:
                return cast(bytes, source.read()[offset_bytes:])
            return cast(bytes, source.read_at(length_bytes, offset_bytes))

    found = _tried(uri, "read", read)
    if length_bytes is not None and len(found) != length_bytes:
        raise StorageError(f"{uri}: expected {length_bytes} bytes at {offset_bytes}, found {len(found)}; the file is truncated")
    return found


@contextmanager
def open_input(uri: str) -> Iterator[IO[bytes]]:
    """Open the file at `uri` for reading from its start. Raises StorageError."""
    with _tried(uri, "read", lambda filesystem, path: filesystem.open_input_stream(path)) as source:
        yield cast(IO[bytes], source)


@contextmanager
def open_input_file(uri: str) -> Iterator[IO[bytes]]:
    """Open the file at `uri` for reading anywhere in it. Raises StorageError."""
    with _tried(uri, "read", lambda filesystem, path: filesystem.open_input_file(path)) as source:
        yield cast(IO[bytes], source)


@contextmanager
def atomic_writer(uri: str) -> Iterator[IO[bytes]]:
    """Open `uri` for writing; the file appears complete when the block ends, and not at all if the block raises.

    A local file is written under a temporary name next to its target, synced and renamed. An object store shows an object
    only when its upload is complete, so there the temporary object is moved into place.
    """
    filesystem, path = resolve(uri)
    temporary = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with _reported(uri, "write"):
            filesystem.create_dir(posixpath.dirname(path), recursive=True)
            if isinstance(filesystem, fs.LocalFileSystem):
                with open(temporary, "wb") as local:
                    yield local
                    local.flush()
                    os.fsync(local.fileno())
            else:
                with filesystem.open_output_stream(temporary) as remote:
                    yield cast(IO[bytes], remote)
            _move(filesystem, temporary, path)
    except BaseException:
        with suppress(OSError):
            filesystem.delete_file(temporary)
        raise


def write_bytes(uri: str, content: bytes | memoryview) -> None:
    """Write `content` to `uri` atomically. Raises StorageError."""

    def write() -> None:
        with atomic_writer(uri) as target:
            target.write(content)

    _again(uri, write)


def write_text(uri: str, content: str) -> None:
    """Write `content` to `uri` atomically as UTF-8. Raises StorageError."""
    write_bytes(uri, content.encode())


def remove(uri: str) -> None:
    """Remove the file at `uri`, if it exists."""

    def delete(filesystem: fs.FileSystem, path: str) -> None:
        with suppress(FileNotFoundError):
            filesystem.delete_file(path)

    _tried(uri, "remove", delete)


def remove_folder(uri: str) -> None:
    """Remove the folder at `uri` and its contents, if it exists.

    If `uri` is a link to a folder, that folder is emptied and both are kept, since it may be on another disk on purpose.
    """
    filesystem, path = resolve(uri)
    with _reported(uri, "remove"), suppress(FileNotFoundError):
        if is_local(uri) and os.path.islink(path):
            filesystem.delete_dir_contents(os.path.realpath(path))
        else:
            filesystem.delete_dir(path)


def resolve(uri: str) -> tuple[fs.FileSystem, str]:
    """Return the pyarrow file system of `uri` and the path in it. Raises StorageError for an unknown scheme."""
    if is_local(uri):
        path = str(local_path(uri).absolute())
        _require_utf8(path)
        return fs.LocalFileSystem(), path
    _require_utf8(uri)
    if scheme_of(uri) not in SCHEMES:
        raise StorageError(
            f"unknown scheme {scheme_of(uri)!r} in {uri}; allowed: a local path, {', '.join(s + '://' for s in SCHEMES)}"
        )
    with _reported(uri, "open"):
        filesystem, path = fs.FileSystem.from_uri(for_arrow(uri))
    return filesystem, path


def _require_utf8(path: str) -> None:
    if not is_utf8(path):
        raise StorageError(f"the name {utf8_name(path)} is not UTF-8; rename the file or its folder")


def _move(filesystem: fs.FileSystem, source: str, target: str) -> None:
    try:
        filesystem.move(source, target)
    except NotImplementedError:  # Azure without a hierarchical namespace; a copied object also appears complete
        filesystem.copy_file(source, target)
        filesystem.delete_file(source)


def _info(uri: str) -> fs.FileInfo:
    return _tried(uri, "inspect", lambda filesystem, path: filesystem.get_file_info(path))


def _entries(uri: str, *, recursive: bool) -> tuple[str, list[fs.FileInfo]]:
    def entries(filesystem: fs.FileSystem, path: str) -> tuple[str, list[fs.FileInfo]]:
        return path, filesystem.get_file_info(fs.FileSelector(path, recursive=recursive, allow_not_found=True))

    return _tried(uri, "list", entries)


def _tried(uri: str, action: str, operation: Callable[[fs.FileSystem, str], T]) -> T:
    """Return the result of an operation on a file system and a path, with retries. Raises StorageError."""

    def attempt() -> T:
        filesystem, path = resolve(uri)
        with _reported(uri, action):
            return operation(filesystem, path)

    return _again(uri, attempt)


def _again(uri: str, attempt: Callable[[], T]) -> T:
    return attempt() if is_local(uri) else patience.tried(attempt, _is_passing)


def _is_passing(error: BaseException) -> bool:
    return isinstance(error, StorageError) and not is_missing(error) and not LASTING.search(str(error))


@contextmanager
def _reported(uri: str, action: str) -> Iterator[None]:
    """Turn I/O errors into a StorageError that names the URI; FileNotFoundError has its own message."""
    try:
        yield
    except FileNotFoundError as error:
        raise StorageError(f"no file at {uri}; check the path") from error
    except (OSError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or one_line(error, None)
        raise StorageError(f"cannot {action} {uri}: {reason}") from error
