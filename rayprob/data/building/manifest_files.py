"""The files of a manifest, written from the rows of shards: of a new dataset, or of one that grows. S shards, L labels."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from rayprob.data.building.before import Before
from rayprob.data.building.shard import BuiltShard
from rayprob.data.manifest.columns import Ragged, count_labels
from rayprob.data.manifest.parts import ONE_FILE, ONE_FILE_ROWS, PART_ROWS, part_ends, part_file, write_part
from rayprob.data.manifest.shard_list import SHARDS_FILE, Shards
from rayprob.files import storage

LabelCounts = dict[str, dict[str, list[int]]]


def write_manifest(
    root: str, shards: Sequence[BuiltShard], tables: Sequence[pa.Table], num_labels: int, rest: Mapping[str, str]
) -> dict[str, Any]:
    """Write the manifest of shards with at least a row each; return the entries of dataset.json for shards and manifest.

    Of few rows it is one file. Of more it is parts, and the shards are listed in a file of their own: a process then reads what
    it needs. Raises StorageError.
    """
    listed = _listed(root, shards)
    if listed.samples_S.sum() <= ONE_FILE_ROWS:
        sha256 = write_part(root, ONE_FILE, pa.concat_tables(tables))
        return {"shards": listed.entries(), "manifest_sha256": sha256}
    spans = [*pairwise([0, *part_ends(listed, part_rows=PART_ROWS).tolist()])]
    parts = [write_part(root, part_file(part), pa.concat_tables(tables[first:end])) for part, (first, end) in enumerate(spans)]
    return {
        "shards_sha256": write_part(root, SHARDS_FILE, listed.to_table()),
        "manifest": {"shards": [end - first for first, end in spans], "sha256": parts},
        "label_counts": label_counts(listed, tables, num_labels, rest),
    }


def write_grown_manifest(
    before: Before, shards: Sequence[BuiltShard], tables: Sequence[pa.Table], rest: Mapping[str, str]
) -> dict[str, Any]:
    """Write what the manifest of a dataset needs to have more shards, with at least a row each; return as `write_manifest`.

    No file of a version before changes. New rows are new parts, after those of their split, and parts of other versions are
    used as they are; the rows of a manifest in one file are written again, as parts. Raises StorageError.
    """
    root, num_labels, new = before.root, len(before.label_space), _listed(before.root, shards)
    version = before.facts.get("version", 1) + 1
    remove_grown_manifest(root, version)
    write = _Writer(root, version)
    of_split: dict[str, list[_Part]] = defaultdict(list)
    for part in (*_parts_before(before, write), *_parts_of(new, lambda first, end: pa.concat_tables(tables[first:end]), write)):
        of_split[part.split].append(part)
    parts = [part for some in of_split.values() for part in some]
    listed = pa.concat_tables(
        some.to_table().slice(span.start, len(span))
        for split in of_split
        for some in (before.shards, new)
        if (span := some.splits.get(split))
    )
    shards_file = f"manifest/{_prefix(version)}{SHARDS_FILE}"
    had = before.facts.get("label_counts") or label_counts(before.shards, before.tables(), num_labels, rest)
    return {
        "version": version,
        "shards_file": shards_file,
        "shards_sha256": write_part(root, shards_file, listed),
        "manifest": {
            "shards": [part.shards for part in parts],
            "sha256": [part.sha256 for part in parts],
            "files": [part.file for part in parts],
        },
        "label_counts": _summed(had, label_counts(new, tables, num_labels, rest)),
    }


def remove_grown_manifest(root: str, version: int) -> None:
    """Remove the files that a stopped build left of a version that it did not finish."""
    for name in storage.list_names(storage.join(root, "manifest")):
        if name.startswith(_prefix(version)):
            storage.remove(storage.join(root, "manifest", name))


def label_counts(shards: Shards, tables: Iterable[pa.Table], num_labels: int, rest: Mapping[str, str]) -> LabelCounts:
    """Return in how many samples of each split each label is present and known, and in how many it is known.

    The tables hold the rows of all shards in order; none has rows of two splits.
    """
    counts = {split: np.zeros((2, num_labels), dtype=np.int64) for split in shards.splits}
    for table in tables:
        split = table["split"][0].as_py()
        of_split = rest.get(split, "absent")
        listed = ("labels", "absent_labels" if of_split == "unknown" else "unknown_labels")
        labels, others = (Ragged.from_column(table[name]) for name in listed)
        counts[split] += count_labels(labels, others, num_labels, of_split)
    return {split: {"present": present_L.tolist(), "known": known_L.tolist()} for split, (present_L, known_L) in counts.items()}


class _Part(NamedTuple):
    """A file of a manifest, and how many shards of which split it holds the rows of."""

    split: str
    shards: int
    file: str
    sha256: str


class _Writer:
    """Writes the parts of a version under names of their own."""

    def __init__(self, root: str, version: int) -> None:
        self.root, self.version, self.count = root, version, 0

    def __call__(self, table: pa.Table) -> tuple[str, str]:
        """Write a part; return its file and sha256."""
        file = f"manifest/{_prefix(self.version)}{self.count:06d}.parquet"
        self.count += 1
        return file, write_part(self.root, file, table)


def _parts_before(before: Before, write: _Writer) -> Iterator[_Part]:
    parts = before.parts
    if parts.is_one_file:
        table = parts.read(0, parts.schema.names).cast(parts.schema)  # shards are a dictionary as it is read
        ends = [0, *np.cumsum(before.shards.samples_S).tolist()]
        yield from _parts_of(before.shards, lambda first, end: table.slice(ends[first], ends[end] - ends[first]), write)
        return
    for part in range(len(parts)):
        shards = parts.shards_of(part)
        yield _Part(_split_of(before.shards, shards.start), len(shards), parts.file(part), str(parts.sha256[part]))


def _parts_of(shards: Shards, rows_of: Callable[[int, int], pa.Table], write: _Writer) -> Iterator[_Part]:
    """Write the rows of shards in parts; `rows_of` returns those of the shards from one on and before another."""
    for first, end in pairwise([0, *part_ends(shards, part_rows=PART_ROWS).tolist()]):
        yield _Part(_split_of(shards, first), end - first, *write(rows_of(first, end)))


def _split_of(shards: Shards, place: int) -> str:
    return next(split for split, span in shards.splits.items() if place in span)


def _listed(root: str, shards: Iterable[BuiltShard]) -> Shards:
    keys = ("split", "samples", "size_bytes", "sha256")
    return Shards.from_entries(root, [{"name": shard.file} | {key: getattr(shard, key) for key in keys} for shard in shards])


def _prefix(version: int) -> str:
    return f"v{version}-"


def _summed(ours: Mapping[str, Any], theirs: LabelCounts) -> LabelCounts:
    zeros = {"present": [0], "known": [0]}
    return {
        split: {
            key: (np.array(ours.get(split, zeros)[key]) + np.array(theirs.get(split, zeros)[key])).tolist()
            for key in ("present", "known")
        }
        for split in dict.fromkeys([*ours, *theirs])
    }
