"""Datasets of many samples without images, and one of 512 ranks that trains on them: the cost of a manifest for a rank.

The manifest is real: its parts have the columns and row counts of those that `rayprob shard` writes, with random values.
Shards are sparse files of zeros, whose crc the manifest states, so that the loader's own stream runs on them. If a dataset
is too large for a disk, only the parts and shards that rank 0 reads are written; dataset.json and shards.parquet are complete.
"""

import hashlib
import json
import multiprocessing
import time
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rayprob.data.manifest.columns import SCHEMA
from rayprob.data.manifest.dataset import Dataset
from rayprob.data.manifest.facts import FORMAT_IN_PARTS
from rayprob.data.manifest.parts import PART_ROWS, part_ends, part_file, write_part
from rayprob.data.manifest.shard_list import SHARDS_FILE, Shards
from rayprob.images.decode import EncodedImage
from rayprob.loader.delivery import LOOK_AHEAD
from rayprob.loader.order import EpochOrder
from rayprob.loader.streams import Batch, Cursor, Place, StreamSpec, TrainStream

RANKS, MICRO_BATCH, LABELS = 512, 32, 80
SPEC = StreamSpec(global_batch=RANKS * MICRO_BATCH, lanes=RANKS, loader_workers=0, check_shards=False)
LEAST_BYTES, MOST_BYTES = 60_000, 250_000  # of an image


@dataclass(frozen=True)
class Size:
    """How large a dataset is, and the rows of a part."""

    samples: int
    samples_per_shard: int
    part_rows: int = PART_ROWS


class Pixel:
    """A transform that costs nothing."""

    size_px = 1

    def __call__(self, image: EncodedImage, seed: int, into: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Return one black pixel."""
        return np.zeros((1, 1, 3), dtype=np.uint8)


def first_batch(root: str) -> object:
    """Return rank 0's stream and its first micro batch: opening, checks, order, rows, and reading."""
    return batches(root, 1)


def three_windows(root: str) -> object:
    """Return rank 0's state after three windows of its lane."""
    stream, _ = batches(root, 0)
    per_window = SPEC.window_shards * int(stream.manifest.shards.samples_S.max()) // MICRO_BATCH
    return batches(root, 3 * per_window)


def batches(root: str, count: int) -> tuple[TrainStream, Batch | None]:
    """Run rank 0 for some micro batches; return its stream and the last of them."""
    manifest = Dataset.open(root).split("train")
    stream = TrainStream(manifest, SPEC, Pixel(), seed=0, place=Place(0, RANKS, 8), micro_batch=MICRO_BATCH)
    running = stream.iterate(Cursor(0, 0))
    batch = None
    for _ in range(count):
        batch = next(running)
    return stream, batch


def lookup_us(root: str) -> float:
    """Return the microseconds that looking an image up costs, rows and labels, where its part is held."""
    stream, _ = batches(root, 1)
    rows = np.concatenate([request.rows_B for request, _ in zip(stream._requests(Cursor(0, 0)), range(16), strict=False)])
    begun_at_s = time.perf_counter()
    for _ in range(10):
        for rows_B in np.split(rows, 16):
            stream.manifest.samples(rows_B)
            stream.manifest.targets(rows_B)
            stream.manifest.known(rows_B)
            stream.manifest.sample_ids(rows_B)
    return (time.perf_counter() - begun_at_s) / 10 / len(rows) * 1e6


def write_dataset(root: Path, size: Size, *, is_whole: bool) -> tuple[int, int]:
    """Write a dataset, complete or only what rank 0 reads; return the bytes and the number of the parts written."""
    num_shards = size.samples // size.samples_per_shard
    shards = _shards(num_shards, size.samples_per_shard)
    ends = part_ends(shards, part_rows=size.part_rows)
    touched = _touched(shards)
    parts = range(len(ends)) if is_whole else sorted({0, *np.searchsorted(ends, touched, side="right").tolist()})
    tasks = [(str(root), part, range(int(ends[part - 1]) if part else 0, int(ends[part])), size) for part in parts]
    (root / "manifest").mkdir()
    with multiprocessing.get_context("spawn").Pool() as pool:
        digests = dict(zip(parts, pool.starmap(_write_part, tasks, chunksize=16), strict=True))
    for shard in range(num_shards) if is_whole else {*touched.tolist(), *range(0, num_shards, RANKS)}:
        with open(root / shards[shard], "wb") as file:
            file.truncate(int(shards.size_bytes_S[shard]))
    stated = {
        "shards": np.diff(ends, prepend=0).tolist(),
        "sha256": [digests.get(part, "0" * 64) for part in range(len(ends))],
    }
    _write_facts(root, shards, stated)
    return sum(path.stat().st_size for path in (root / "manifest").iterdir()), len(parts)


def _shards(num_shards: int, samples_per_shard: int) -> Shards:
    """Return shards of equal size with hashes of nothing."""
    kinds = (("samples", samples_per_shard), ("size_bytes", samples_per_shard * (MOST_BYTES + 1000)))
    columns = {"name": _names(range(num_shards)), "split": pa.repeat("train", num_shards).cast(pa.string())}
    columns |= {name: np.full(num_shards, value) for name, value in kinds}
    digests = np.random.default_rng(0).bytes(32 * num_shards)
    sha256 = pa.Array.from_buffers(pa.binary(32), num_shards, [None, pa.py_buffer(digests)])
    return Shards.from_table("", pa.table({**columns, "sha256": sha256}))


def _touched(shards: Shards) -> NDArray[np.int64]:
    """Return the shards of rank 0's first micro batches, with those that it looks ahead to."""
    order = EpochOrder(
        shards.samples_S, seed=0, epoch=0, lanes=RANKS, window=SPEC.window_shards, global_batch=SPEC.global_batch
    )
    rows = [rows for rows, _ in zip(order.batches([0]), range(LOOK_AHEAD + 17), strict=False)]
    return np.unique(np.searchsorted(np.cumsum(shards.samples_S), np.concatenate(rows), side="right"))


def _write_facts(root: Path, shards: Shards, stated: dict[str, list[object]]) -> None:
    counts = {"present": [1] * LABELS, "known": [2] * LABELS}
    facts = {
        "format_version": FORMAT_IN_PARTS,
        "fingerprint": hashlib.sha256(str(len(shards)).encode()).hexdigest()[:16],
        "shards_sha256": write_part(str(root), SHARDS_FILE, shards.to_table()),
        "manifest": stated,
        "label_counts": {"train": counts},
    }
    (root / "dataset.json").write_text(json.dumps(facts, indent=1))
    names = [f"label {n}" for n in range(LABELS)]
    (root / "labels.json").write_text(json.dumps({"names": names, "category_ids": [*range(1, LABELS + 1)]}))


def _write_part(root: str, part: int, shards: range, size: Size) -> str:
    chance, num_rows = np.random.default_rng(part), len(shards) * size.samples_per_shard
    first = shards.start * size.samples_per_shard
    sizes_bytes = chance.integers(LEAST_BYTES, MOST_BYTES, num_rows)
    ends = np.cumsum(sizes_bytes.reshape(len(shards), -1), axis=1).reshape(-1)
    starts = np.concatenate([[0], np.cumsum(chance.poisson(2.9, num_rows))]).astype(np.int32)
    labels = pa.ListArray.from_arrays(starts, np.minimum(chance.geometric(0.06, starts[-1]) - 1, LABELS - 1).astype(np.int32))
    none = np.zeros(num_rows + 1, dtype=np.int32)
    columns = {
        "sample_id": np.arange(first, first + num_rows),
        "key": _strings([f"{n:012d}" for n in range(first, first + num_rows)]),
        "split": pa.repeat("train", num_rows),
        "shard": _names(shards).take(pa.array(np.repeat(np.arange(len(shards)), size.samples_per_shard))),
        "offset_bytes": ends - sizes_bytes,
        "size_bytes": sizes_bytes,
        "height_px": chance.integers(200, 640, num_rows, dtype=np.int32),
        "width_px": chance.integers(200, 640, num_rows, dtype=np.int32),
        "labels": labels,
        "unknown_labels": pa.ListArray.from_arrays(none, pa.array([], pa.int32())),
        "label_areas_px2": pa.ListArray.from_arrays(starts, chance.random(starts[-1], dtype=np.float32)),
        "crc32": _crc_of_zeros()[sizes_bytes],
    }
    return write_part(root, part_file(part), pa.table(columns, schema=SCHEMA))


def _names(shards: range) -> pa.StringArray:
    return _strings([f"train-{n:07d}.tar" for n in shards])


def _strings(strings: list[str]) -> pa.StringArray:
    return pa.array(strings, pa.string())


@cache
def _crc_of_zeros() -> NDArray[np.uint32]:
    """Return the crc32 of 0, 1, 2, ... zero bytes."""
    found, crc = np.zeros(MOST_BYTES + 1, dtype=np.uint32), 0
    for length in range(1, MOST_BYTES + 1):
        crc = zlib.crc32(b"\0", crc)
        found[length] = crc
    return found
