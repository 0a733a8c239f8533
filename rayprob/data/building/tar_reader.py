"""A tar that is read once from start to end: images on the way, and the sha256 of all of it."""

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, cast

from rayprob.errors import StorageError
from rayprob.files import storage

CHUNK_BYTES = 2**20
PIECE_BYTES = 2**23


class TarReader:
    """Reads parts of a file in ascending order; when its block ends, `sha256` and `size_bytes` are those of the whole file."""

    def __init__(self, file: IO[bytes], uri: str) -> None:
        self._file = file
        self._uri = uri
        self._sha256 = hashlib.sha256()
        self.size_bytes = 0

    @property
    def sha256(self) -> str:
        """The sha256 of what was read, in hexadecimal digits."""
        return self._sha256.hexdigest()

    def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Return a part of the file. Raises StorageError if the file ends before it, and where a later one was read."""
        if offset_bytes < self.size_bytes:
            raise StorageError(f"{self._uri}: byte {offset_bytes:,} belongs to two images; write the tar again")
        self._skip(offset_bytes - self.size_bytes)
        found = b"".join(self._chunks(length_bytes))
        if len(found) < length_bytes:
            raise StorageError(f"{self._uri} ends at byte {self.size_bytes:,}, before its image at byte {offset_bytes:,} does")
        return found

    def finish(self) -> None:
        """Read to the end."""
        self._skip(2**62)

    def _skip(self, length_bytes: int) -> None:
        for _ in self._chunks(length_bytes):
            pass

    def _chunks(self, length_bytes: int) -> Iterator[bytes]:
        """Yield the next bytes, fewer at the end of the file."""
        while length_bytes and (chunk := self._file.read(min(length_bytes, CHUNK_BYTES))):
            self._sha256.update(chunk)
            self.size_bytes += len(chunk)
            length_bytes -= len(chunk)
            yield chunk


@contextmanager
def tar_reader(uri: str) -> Iterator[TarReader]:
    """Open a tar to read parts of it; the rest is read when the block ends. Raises StorageError."""
    with storage.open_input_file(uri) as file:
        # An object store is asked for large pieces, not for each image and each gap.
        reader = TarReader(io.BufferedReader(cast(io.RawIOBase, file), PIECE_BYTES), uri)
        yield reader
        reader.finish()
