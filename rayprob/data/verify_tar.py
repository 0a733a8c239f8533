"""Reads a tar in place again, and compares it and its images with the dataset's entries."""

import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from rayprob.data.building.tar_reader import tar_reader
from rayprob.errors import StorageError


def tar_faults(uri: str, shard: dict[str, Any], rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield the faults of a tar, and of its images that are rows of a split. Reads it once, a part at a time."""
    try:
        with tar_reader(uri) as tar:
            for row in sorted(rows, key=lambda row: int(row["offset_bytes"])):
                content = tar.read(row["offset_bytes"], row["size_bytes"])
                yield from (f"sample {row['sample_id']} ({row['key']!r}) {what}" for what in crc32_faults(content, row))
    except StorageError as error:
        yield f"cannot be read: {error}"
        return
    yield from whole_faults(tar.size_bytes, tar.sha256, shard)


def whole_faults(size_bytes: int, sha256: str, shard: dict[str, Any]) -> Iterator[str]:
    """Yield the differences between a whole tar and its entry in dataset.json."""
    if size_bytes != shard["size_bytes"]:
        yield f"has {size_bytes:,} bytes, but {shard['size_bytes']:,} in dataset.json"
    if sha256 != shard["sha256"]:
        yield f"has sha256 {sha256:.16}..., but {shard['sha256']:.16}... in dataset.json"


def crc32_faults(content: bytes, row: dict[str, Any]) -> Iterator[str]:
    """Yield the differences between the bytes of an image and its row in the manifest."""
    if zlib.crc32(content) != row["crc32"]:
        yield "has image bytes with another crc32 than in the manifest"
