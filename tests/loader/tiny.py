"""A small dataset, written by tarfile and pyarrow alone: an account of the shard contract that owes nothing to the builder."""

import hashlib
import io
import json
import os
import random
import tarfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg

from rayprob.data.manifest.columns import SCHEMA
from rayprob.data.manifest.dataset import Dataset, Manifest
from rayprob.data.manifest.facts import FORMAT_VERSION
from rayprob.images.decode import EncodedImage
from rayprob.loader.cache import ShardCache, _locked

LABELS = ["person", "bicycle", "car"]


def photo(sample_id: int, height_px: int = 24, width_px: int = 32) -> bytes:
    """Return a JPEG that differs for every sample."""
    pixels = np.random.default_rng(sample_id).integers(0, 256, (height_px // 4, width_px // 4, 3), dtype=np.uint8)
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels.repeat(4, 0).repeat(4, 1)), quality=90))


def labels_of(sample_id: int) -> list[int]:
    return [column for column in range(3) if sample_id >> column & 1]


def unknown_labels_of(sample_id: int) -> list[int]:
    return [2] if sample_id % 5 == 0 and not sample_id >> 2 & 1 else []


@dataclass
class Writer:
    """Writes shards one after the other, then the tables that make them a dataset."""

    root: Path
    jpegs: dict[int, bytes] = field(default_factory=dict)
    rows: list[dict[str, object]] = field(default_factory=list)
    shards: list[dict[str, object]] = field(default_factory=list)

    def shard(self, split: str, jpegs: dict[int, bytes]) -> None:
        index = sum(shard["split"] == split for shard in self.shards)
        name = f"{split}-{index:06d}.tar"
        with tarfile.open(self.root / name, "w", format=tarfile.USTAR_FORMAT) as tar:
            for sample_id, jpeg in jpegs.items():
                facts = {"sample_id": sample_id, "labels": [LABELS[c] for c in labels_of(sample_id)]}
                for suffix, content in (("jpg", jpeg), ("json", json.dumps(facts).encode())):
                    member = tarfile.TarInfo(f"{sample_id:012d}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
        with tarfile.open(self.root / name) as tar:
            offsets = {member.name: member.offset_data for member in tar}
        self.rows += [self._row(split, name, i, jpeg, offsets[f"{i:012d}.jpg"]) for i, jpeg in jpegs.items()]
        content = (self.root / name).read_bytes()
        self.shards.append(
            {
                "name": name,
                "split": split,
                "samples": len(jpegs),
                "size_bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
        )
        self.jpegs |= jpegs

    def finish(self) -> Dataset:
        order = {name: place for place, name in enumerate(dict.fromkeys(shard["split"] for shard in self.shards))}
        self.rows.sort(key=lambda row: (order[row["split"]], row["shard"]))
        self.shards.sort(key=lambda shard: (order[shard["split"]], shard["name"]))
        columns = {name: [row[name] for row in self.rows] for name in SCHEMA.names}
        pq.write_table(pa.table(columns, schema=SCHEMA), self.root / "manifest.parquet")
        (self.root / "labels.json").write_text(json.dumps({"names": LABELS, "category_ids": [1, 2, 3]}))
        facts = {"format_version": FORMAT_VERSION, "fingerprint": _fingerprint(self.shards), "shards": self.shards}
        (self.root / "dataset.json").write_text(json.dumps(facts))
        return Dataset.open(str(self.root))

    @staticmethod
    def _row(split: str, shard: str, sample_id: int, jpeg: bytes, offset_bytes: int) -> dict[str, object]:
        return {
            "sample_id": sample_id,
            "key": f"{sample_id:012d}",
            "split": split,
            "shard": shard,
            "offset_bytes": offset_bytes,
            "size_bytes": len(jpeg),
            "height_px": 24,
            "width_px": 32,
            "labels": labels_of(sample_id),
            "unknown_labels": unknown_labels_of(sample_id),
            "label_areas_px2": [100.0] * len(labels_of(sample_id)),
            "crc32": zlib.crc32(jpeg),
        }


def _fingerprint(shards: list[dict[str, object]]) -> str:
    return hashlib.sha256(json.dumps(shards).encode()).hexdigest()[:16]


def write_dataset(root: Path, samples_per_shard: list[int], split: str = "train") -> Dataset:
    writer, first = Writer(root), 1000
    for samples in samples_per_shard:
        writer.shard(split, {sample_id: photo(sample_id) for sample_id in range(first, first + samples)})
        first += samples
    return writer.finish()


@dataclass(frozen=True)
class Dying:
    """A transform that kills its loader worker at one image."""

    deadly: bytes
    size_px: int = 16

    def __call__(self, image: EncodedImage, seed: int, into: np.ndarray | None = None) -> np.ndarray:
        if image.content == self.deadly:
            os._exit(1)
        return np.zeros((16, 16, 3), dtype=np.uint8)


@dataclass(frozen=True)
class Digest:
    """A transform that is cheap: one pixel that depends on the JPEG and the seed."""

    size_px: int = 1

    def __call__(self, image: EncodedImage, seed: int, into: np.ndarray | None = None) -> np.ndarray:
        digest = hashlib.blake2b(image.content + seed.to_bytes(8, "little"), digest_size=3).digest()
        return np.frombuffer(digest, dtype=np.uint8).reshape(1, 1, 3)


def content_of(manifest: Manifest, shard: str) -> bytes:
    return (Path(manifest.root) / shard).read_bytes()


def used_bytes(cache: ShardCache) -> int:
    with _locked(cache.folder / "cache.lock"):
        return sum(path.stat().st_size for path in cache.folder.iterdir())


def read_all(cache: ShardCache, manifest: Manifest, seed: int) -> str:
    """Read at random in a process of its own; return what was wrong."""
    chance = random.Random(seed)
    for _ in range(15):
        shard = chance.choice(manifest.shards)
        if cache.read(shard, 512, 300) != content_of(manifest, shard)[512:812]:
            return f"wrong bytes of {shard}"
        if used_bytes(cache) > cache.budget_bytes:
            return "over budget"
    return ""
