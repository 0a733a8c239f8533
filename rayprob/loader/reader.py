"""The image file of a sample: its bytes, read by offset, checked by crc."""

import zlib

from rayprob.data.manifest.dataset import Sample
from rayprob.data.manifest.shard_list import shard_uri
from rayprob.errors import DatasetError, SampleError
from rayprob.loader.shards import ShardSource


class SampleReader:
    """Reads samples of the dataset at `root`; it can be pickled to a loader worker."""

    def __init__(self, root: str, shards: ShardSource) -> None:
        self.root = root
        self._shards = shards

    def read(self, sample: Sample) -> bytes:
        """Return the bytes of a sample's image file.

        Raises SampleError if they differ from those that were built, and DatasetError if the shard is missing or truncated.
        """
        content = self._read(sample)
        fault = self._fault(sample, content)
        if fault and self._shards.forget(sample.shard):
            content = self._read(sample)
            fault = self._fault(sample, content)
        if fault:
            raise fault
        return content

    def describe(self, sample: Sample) -> str:
        """Return the id, key and shard of a sample as text."""
        return f"sample {sample.sample_id} ({sample.key!r} in {shard_uri(self.root, sample.shard)})"

    def _read(self, sample: Sample) -> bytes:
        return self._shards.read(sample.shard, sample.offset_bytes, sample.size_bytes)

    def _fault(self, sample: Sample, content: bytes) -> DatasetError | SampleError | None:
        if len(content) != sample.size_bytes:
            return DatasetError(
                f"{self.describe(sample)}: the shard ends after {len(content):,} of its {sample.size_bytes:,} bytes; "
                f"{self._remedy()}"
            )
        if (found := zlib.crc32(content)) != sample.crc32:
            return SampleError(
                f"{self.describe(sample)}: its bytes have crc32 {found:#010x}, but {sample.crc32:#010x} in the manifest; "
                f"{self._remedy()}"
            )
        return None

    def _remedy(self) -> str:
        return f"run `rayprob verify {self.root}` to list every fault, then build the dataset again"
