"""The JPEG bytes of a sample: read by offset, checked by crc."""

import zlib

from rayprob import storage
from rayprob.data.manifest import Manifest
from rayprob.errors import DatasetError, SampleError
from rayprob.loader.shards import ShardSource


class SampleReader:
    """Reads samples of one split by row."""

    def __init__(self, manifest: Manifest, shards: ShardSource) -> None:
        self.manifest = manifest
        self._shards = shards

    def read(self, row: int) -> bytes:
        """Return the JPEG bytes of a row.

        Raises SampleError where they are not those that were built, and DatasetError where the shard is missing or cut.
        """
        jpeg = self._read(row)
        found, wanted = zlib.crc32(jpeg), int(self.manifest.crc32_N[row])
        if found != wanted and self._shards.forget(self._shard(row)):
            found = zlib.crc32(jpeg := self._read(row))
        if found != wanted:
            raise SampleError(
                f"{describe(self.manifest, row)}: its bytes have crc32 {found:#010x}, the manifest says {wanted:#010x}; "
                f"{remedy(self.manifest)}"
            )
        return jpeg

    def _read(self, row: int) -> bytes:
        manifest, size_bytes = self.manifest, int(self.manifest.size_bytes_N[row])
        jpeg = self._shards.read(self._shard(row), int(manifest.offset_bytes_N[row]), size_bytes)
        if len(jpeg) != size_bytes:
            raise DatasetError(
                f"{describe(manifest, row)}: the shard ends after {len(jpeg):,} of its {size_bytes:,} bytes; {remedy(manifest)}"
            )
        return jpeg

    def _shard(self, row: int) -> str:
        return self.manifest.shards[int(self.manifest.shard_N[row])]


def describe(manifest: Manifest, row: int) -> str:
    """Return words that lead to a sample: its id, key and shard."""
    shard = manifest.shards[manifest.shard_N[row]]
    return f"sample {manifest.sample_ids_N[row]} ({manifest.keys[row]!r} in {storage.join(manifest.root, shard)})"


def remedy(manifest: Manifest) -> str:
    """Return what to do about damaged data."""
    return f"run `rayprob verify {manifest.root}` to list every fault, then build the dataset again"
