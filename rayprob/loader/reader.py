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
        fault = self._fault(row, jpeg)
        if fault and self._shards.forget(self._shard(row)):
            jpeg = self._read(row)
            fault = self._fault(row, jpeg)
        if fault:
            raise fault
        return jpeg

    def _read(self, row: int) -> bytes:
        manifest = self.manifest
        return self._shards.read(self._shard(row), int(manifest.offset_bytes_N[row]), int(manifest.size_bytes_N[row]))

    def _fault(self, row: int, jpeg: bytes) -> DatasetError | SampleError | None:
        manifest, wanted_bytes, wanted = self.manifest, int(self.manifest.size_bytes_N[row]), int(self.manifest.crc32_N[row])
        if len(jpeg) != wanted_bytes:
            return DatasetError(
                f"{describe(manifest, row)}: the shard ends after {len(jpeg):,} of its {wanted_bytes:,} bytes; "
                f"{remedy(manifest)}"
            )
        if (found := zlib.crc32(jpeg)) != wanted:
            return SampleError(
                f"{describe(manifest, row)}: its bytes have crc32 {found:#010x}, the manifest says {wanted:#010x}; "
                f"{remedy(manifest)}"
            )
        return None

    def _shard(self, row: int) -> str:
        return self.manifest.shards[int(self.manifest.shard_N[row])]


def describe(manifest: Manifest, row: int) -> str:
    """Return words that lead to a sample: its id, key and shard."""
    shard = manifest.shards[manifest.shard_N[row]]
    return f"sample {manifest.sample_ids_N[row]} ({manifest.keys[row]!r} in {storage.join(manifest.root, shard)})"


def remedy(manifest: Manifest) -> str:
    """Return what to do about damaged data."""
    return f"run `rayprob verify {manifest.root}` to list every fault, then build the dataset again"
