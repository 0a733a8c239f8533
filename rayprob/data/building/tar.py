"""A plain tar that is hashed and sent to the disk in a thread, while its caller prepares the next members."""

import hashlib
import os
import tarfile
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import IO, Self

RECORD_BYTES = 512
# Written and hashed at once. glibc gives memory of this size out again; that of a larger block it takes new, page by page.
BLOCK_BYTES = 2**19

# tarfile's own header of a file, cut where name, size and checksum lie: the rest is the same for every member.
_HEADER = tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT)
_OWNER, _TIME, _REST = _HEADER[100:124], _HEADER[135:148], _HEADER[156:]
_CHECKSUM = sum(_OWNER + _TIME + _REST + b" " * 8)  # POSIX counts the checksum itself as spaces


class TarWriter:
    """Writes members with nothing in them that depends on time, user or machine.

    When the `with` block ends, all is written, and `sha256` and `size_bytes` are those of the whole tar. A block that raises
    leaves a tar without an end. An error of the file is raised by a later `add`, or where the block ends.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._parts: list[bytes] = []
        self._sent_bytes = 0
        self._writing: Future[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tar")
        self._sha256 = hashlib.sha256()
        self.size_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._thread:
            if error is None:
                # The end-of-archive mark: without it readers take a cut tar for a whole one.
                self._append(bytes(2 * RECORD_BYTES))
                self._send()
                self._wait()

    @property
    def sha256(self) -> str:
        """The sha256 of what was written, in hexadecimal digits."""
        return self._sha256.hexdigest()

    def add(self, name: str, content: bytes) -> int:
        """Append a member; returns the offset of its content."""
        self._append(header(name, len(content)))
        offset_bytes = self.size_bytes
        self._append(content)
        self._append(bytes(-len(content) % RECORD_BYTES))
        if self.size_bytes - self._sent_bytes >= BLOCK_BYTES:
            self._send()
        return offset_bytes

    def _append(self, content: bytes) -> None:
        self._parts.append(content)
        self.size_bytes += len(content)

    def _send(self) -> None:
        block = b"".join(self._parts)
        self._parts.clear()
        self._wait()
        self._writing = self._thread.submit(self._write, block, self._sent_bytes)
        self._sent_bytes = self.size_bytes

    def _wait(self) -> None:
        if self._writing:
            self._writing.result()

    def _write(self, block: bytes, offset_bytes: int) -> None:
        self._file.write(block)
        _start_writeback(self._file, offset_bytes, len(block))
        self._sha256.update(block)


def header(name: str, size_bytes: int) -> bytes:
    """Return tarfile's ustar header of a file: `name` is ASCII of at most 100 characters, the size less than 8 GiB."""
    encoded, size = name.encode("ascii"), b"%011o" % size_bytes
    assert len(encoded) <= 100
    assert len(size) == 11
    checksum = b"%06o\0 " % (_CHECKSUM + sum(encoded) + sum(size))
    return b"".join((encoded.ljust(100, b"\0"), _OWNER, size, _TIME, checksum, _REST))


def _start_writeback(file: IO[bytes], offset_bytes: int, length_bytes: int) -> None:
    """Have Linux send the pages to the disk now: it would begin only with the sync at the end, which then is a long wait."""
    with suppress(AttributeError, OSError):  # another system; a stream that is no local file, a disk that takes no advice
        # DONTNEED begins to write dirty pages without waiting, and drops only pages that the disk has already.
        os.posix_fadvise(file.fileno(), offset_bytes, length_bytes, os.POSIX_FADV_DONTNEED)
