"""Files at local paths and URIs (s3://, gs://, abfs://, hdfs://, file://), through pyarrow.fs; every write is atomic."""

import os
import posixpath
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, cast
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from rayprob.errors import StorageError

SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "file")


def is_local(uri: str) -> bool:
    """Return whether `uri` lies on this machine's file system."""
    return "://" not in uri or uri.startswith("file://")


def local_path(uri: str) -> Path:
    """Return the local path of `uri`. Raises StorageError for a remote one."""
    if not is_local(uri):
        raise StorageError(f"{uri} is remote; a local path is needed here")
    return Path(urlsplit(uri).path if uri.startswith("file://") else uri).expanduser()


def join(uri: str, *parts: str) -> str:
    """Return `uri` with `parts` below it. Raises StorageError for a part that would leave it."""
    for part in parts:
        if part.startswith("/") or ".." in part.split("/"):
            raise StorageError(f"{part!r} is not a name below {uri}; use a relative path without '..'")
    if uri.startswith("file://"):
        uri = str(local_path(uri))
    return posixpath.join(uri, *parts)


def exists(uri: str) -> bool:
    """Return whether a file or folder is at `uri`."""
    return bool(_info(uri).type != fs.FileType.NotFound)


def size_bytes(uri: str) -> int:
    """Return the size of the file at `uri`. Raises StorageError where there is none."""
    info = _info(uri)
    if info.type != fs.FileType.File:
        raise StorageError(f"no file at {uri}; check the path")
    return cast(int, info.size)


def list_names(uri: str) -> list[str]:
    """Return the sorted names of the files directly in the folder `uri`; empty where there is no folder."""
    filesystem, path = resolve(uri)
    with _reported(uri, "list"):
        entries = filesystem.get_file_info(fs.FileSelector(path, recursive=False, allow_not_found=True))
    return sorted(entry.base_name for entry in entries if entry.type == fs.FileType.File)


def is_folder(uri: str) -> bool:
    """Return whether a folder is at `uri`; an object store has one where objects lie below it."""
    return bool(_info(uri).type == fs.FileType.Directory)


def list_below(uri: str) -> list[str]:
    """Return the sorted paths, relative to the folder `uri`, of all files in it and below it."""
    filesystem, path = resolve(uri)
    with _reported(uri, "list"):
        entries = filesystem.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
    root = path.rstrip("/") + "/"
    return sorted(entry.path.removeprefix(root) for entry in entries if entry.type == fs.FileType.File)


def read_bytes(uri: str, offset_bytes: int = 0, length_bytes: int | None = None) -> bytes:
    """Return the file at `uri`, or `length_bytes` of it from `offset_bytes`. Raises StorageError, also for a short read."""
    filesystem, path = resolve(uri)
    with _reported(uri, "read"), filesystem.open_input_file(path) as source:
        if length_bytes is None:
            return cast(bytes, source.read()[offset_bytes:])
        found = cast(bytes, source.read_at(length_bytes, offset_bytes))
    if len(found) != length_bytes:
        raise StorageError(f"{uri}: wanted {length_bytes} bytes at {offset_bytes}, found {len(found)}; the file is cut short")
    return found


@contextmanager
def open_input(uri: str) -> Iterator[IO[bytes]]:
    """Open the file at `uri` for reading from its start. Raises StorageError."""
    filesystem, path = resolve(uri)
    with _reported(uri, "read"):
        source = filesystem.open_input_stream(path)
    with source:
        yield cast(IO[bytes], source)


@contextmanager
def atomic_writer(uri: str) -> Iterator[IO[bytes]]:
    """Open `uri` for writing; it appears whole when the block ends, and not at all when the block raises.

    A local file is written under a temporary name beside its target, synced and renamed. An object store shows an object
    only when its upload completes, so there the temporary object is moved into place.
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
            filesystem.move(temporary, path)
    except BaseException:
        with suppress(OSError):
            filesystem.delete_file(temporary)
        raise


def write_bytes(uri: str, content: bytes) -> None:
    """Write `content` to `uri` atomically. Raises StorageError."""
    with atomic_writer(uri) as target:
        target.write(content)


def write_text(uri: str, content: str) -> None:
    """Write `content` to `uri` atomically as UTF-8. Raises StorageError."""
    write_bytes(uri, content.encode())


def remove(uri: str) -> None:
    """Remove the file at `uri`; nothing happens where there is none."""
    filesystem, path = resolve(uri)
    with _reported(uri, "remove"), suppress(FileNotFoundError):
        filesystem.delete_file(path)


def remove_folder(uri: str) -> None:
    """Remove the folder at `uri` and all that is in it; nothing happens where there is none."""
    filesystem, path = resolve(uri)
    with _reported(uri, "remove"), suppress(FileNotFoundError):
        filesystem.delete_dir(path)


def resolve(uri: str) -> tuple[fs.FileSystem, str]:
    """Return the pyarrow file system of `uri` and the path in it. Raises StorageError for an unknown scheme."""
    if is_local(uri):
        return fs.LocalFileSystem(), str(local_path(uri).absolute())
    scheme = urlsplit(uri).scheme
    if scheme not in SCHEMES:
        raise StorageError(
            f"unknown scheme {scheme!r} in {uri}; allowed: a local path, {', '.join(s + '://' for s in SCHEMES)}"
        )
    with _reported(uri, "open"):
        filesystem, path = fs.FileSystem.from_uri(uri)
    return filesystem, path


def _info(uri: str) -> fs.FileInfo:
    filesystem, path = resolve(uri)
    with _reported(uri, "look at"):
        return filesystem.get_file_info(path)


@contextmanager
def _reported(uri: str, action: str) -> Iterator[None]:
    """Turn what the world may break into a StorageError that names the URI; FileNotFoundError gets its own words."""
    try:
        yield
    except FileNotFoundError as error:
        raise StorageError(f"no file at {uri}; check the path") from error
    except (OSError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise StorageError(f"cannot {action} {uri}: {reason}") from error
