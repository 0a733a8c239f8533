"""The JPEG bytes of a sample: read by offset, checked by crc."""

import os
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any, Protocol

from rayprob import storage
from rayprob.data.manifest import Manifest
from rayprob.errors import DatasetError, SampleError

MAX_OPEN_SHARDS = 64


class ShardSource(Protocol):
    """Where the bytes of shards come from; it can be pickled to another process."""

    def read(self, shard: str, offset_bytes: int, length_bytes: int) -> bytes:
        """Return bytes of a shard, fewer at its end. Raises DatasetError or StorageError where it cannot be read."""
        ...


class LocalShards:
    """Shards on this machine's file system, read where they lie."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._files: OrderedDict[str, int] = OrderedDict()

    def read(self, shard: str, offset_bytes: int, length_bytes: int) -> bytes:
        """Return bytes of a shard, fewer at its end. Raises DatasetError where there is no such file."""
        # pread carries its own offset, so processes that share a descriptor after a fork do not disturb each other.
        return os.pread(self._descriptor(shard), length_bytes, offset_bytes)

    def path(self, shard: str) -> Path:
        """Return the path of a shard."""
        return storage.local_path(storage.join(self._root, shard))

    def close(self) -> None:
        """Close all files; reading opens them again."""
        while self._files:
            os.close(self._files.popitem()[1])

    def _descriptor(self, shard: str) -> int:
        descriptor = self._files.get(shard)
        if descriptor is None:
            descriptor = open_shard(self.path(shard), self._root)
            self._files[shard] = descriptor
            if len(self._files) > MAX_OPEN_SHARDS:
                os.close(self._files.popitem(last=False)[1])
        self._files.move_to_end(shard)
        return descriptor

    def __getstate__(self) -> dict[str, Any]:
        return {"_root": self._root, "_files": OrderedDict()}

    def __del__(self) -> None:
        self.close()


class SampleReader:
    """Reads samples of one split by row."""

    def __init__(self, manifest: Manifest, shards: ShardSource) -> None:
        self.manifest = manifest
        self._shards = shards

    def read(self, row: int) -> bytes:
        """Return the JPEG bytes of a row.

        Raises SampleError where they are not those that were built, and DatasetError where the shard is missing or cut.
        """
        manifest = self.manifest
        shard, size_bytes = manifest.shards[manifest.shard_N[row]], int(manifest.size_bytes_N[row])
        jpeg = self._shards.read(shard, int(manifest.offset_bytes_N[row]), size_bytes)
        if len(jpeg) != size_bytes:
            raise DatasetError(
                f"{describe(manifest, row)}: the shard ends after {len(jpeg):,} of its {size_bytes:,} bytes; {remedy(manifest)}"
            )
        found, wanted = zlib.crc32(jpeg), int(manifest.crc32_N[row])
        if found != wanted:
            raise SampleError(
                f"{describe(manifest, row)}: its bytes have crc32 {found:#010x}, the manifest says {wanted:#010x}; "
                f"{remedy(manifest)}"
            )
        return jpeg


def open_shard(path: Path, root: str) -> int:
    """Return a file descriptor for reading. Raises DatasetError."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise DatasetError(f"cannot open shard {path}: {error.strerror}; run `rayprob verify {root}`") from error


def describe(manifest: Manifest, row: int) -> str:
    """Return words that lead to a sample: its id, key and shard."""
    shard = manifest.shards[manifest.shard_N[row]]
    return f"sample {manifest.sample_ids_N[row]} ({manifest.keys[row]!r} in {storage.join(manifest.root, shard)})"


def remedy(manifest: Manifest) -> str:
    """Return what to do about damaged data."""
    return f"run `rayprob verify {manifest.root}` to list every fault, then build the dataset again"
