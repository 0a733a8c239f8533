"""Reads a built dataset: dataset.json, labels.json and the manifest. N samples in S shards, L labels.

The cost of opening grows with the number of shards. A process reads only those parts of the manifest
(parts.py) whose rows it needs.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rayprob.arrays import Rows
from rayprob.data.manifest.columns import Ragged, count_labels, numbers
from rayprob.data.manifest.facts import read_facts, read_label_space
from rayprob.data.manifest.parts import Parts
from rayprob.data.manifest.row_cache import HeldRows, ShardRows
from rayprob.data.manifest.shard_list import Shards
from rayprob.errors import DatasetError
from rayprob.images.reading import READ_AS_STORED, ImageReading
from rayprob.labels import LabelSpace


class Sample(NamedTuple):
    """One sample: its name, and where its bytes are stored."""

    sample_id: int
    key: str
    shard: str
    offset_bytes: int  # of the image in the tar
    size_bytes: int
    crc32: int
    member: int = 0  # the number of its dataset among those that are read together


@dataclass(frozen=True, eq=False)
class SplitMember:
    """A split of one dataset as a member of several that are read together (data/joined). L labels in all."""

    manifest: "Manifest"
    columns: Rows  # of its labels among the L
    weight: float = 1.0  # passes over its samples per epoch
    id_mask: int = 0  # XORed into its sample ids, so that equal ids of two datasets become different

    @property
    def samples_per_epoch(self) -> int:
        """The number of samples per epoch, with repeats; at least one unless the split is empty."""
        num_samples = len(self.manifest)
        return max(1, math.floor(self.weight * num_samples + 0.5)) if num_samples else 0


@dataclass(frozen=True, eq=False)
class Manifest:
    """The samples of one split, in the order of its shards.

    Requested rows are read with their part of the manifest. Properties, which have a value for every sample, read all parts.
    """

    root: str
    fingerprint: str  # of the dataset, which may have grown since it was opened
    split: str
    label_space: LabelSpace
    shards: Shards  # of this split
    first_shard: int  # of this split, among those of the dataset
    held: HeldRows
    stated_counts: Mapping[str, Any] | None = None  # see label_counts
    rest: str = "absent"  # or unknown: the state of labels that a sample does not list
    reading: ImageReading = READ_AS_STORED

    def __len__(self) -> int:
        return int(self._ends_S[-1])

    @property  # not cached: a manifest that holds itself would keep its rows in memory
    def members(self) -> tuple[SplitMember, ...]:
        """The split itself, as the only member."""
        return (SplitMember(self, np.arange(len(self.label_space), dtype=np.int64)),)

    def by_member(self, rows: Rows) -> Iterator[tuple[Rows, int, Rows]]:
        """Yield the indices of all rows, the number of the only member, and the rows."""
        yield np.arange(len(rows), dtype=np.int64), 0, rows

    def samples(self, rows: Rows) -> list[Sample]:
        """Return the samples of the given rows."""
        found: list[Sample] = [None] * len(rows)  # type: ignore[list-item]
        for places, shard, within, held in self._by_shard(rows):
            name = self.shards[shard]
            columns = (held.sample_ids_n, held.offset_bytes_n, held.size_bytes_n, held.crc32_n)
            found_B = zip(*(column[within].tolist() for column in columns), strict=True)
            for place, row, (sample_id, offset_bytes, size_bytes, crc32) in zip(places, within.tolist(), found_B, strict=True):
                found[place] = Sample(sample_id, held.keys.text(row), name, offset_bytes, size_bytes, crc32)
        return found

    def sample(self, row: int) -> Sample:
        """Return the sample of a row."""
        return self.samples(np.array([row], dtype=np.int64))[0]

    def all_samples(self) -> Iterator[Sample]:
        """Yield every sample, shard by shard."""
        for shard, end in enumerate(self._ends_S.tolist()):
            yield from self.samples(np.arange(end - int(self.shards.samples_S[shard]), end, dtype=np.int64))

    def sample_ids(self, rows: Rows | None = None) -> NDArray[np.int64]:
        """Return the sample ids of the given rows, by default all."""
        rows = self._rows(rows)
        ids = np.empty(len(rows), dtype=np.int64)
        for places, _, within, held in self._by_shard(rows):
            ids[places] = held.sample_ids_n[within]
        return ids

    def targets(self, rows: Rows | None = None) -> NDArray[np.bool_]:
        """Return targets [rows, L] of the given rows, by default all."""
        rows = self._rows(rows)
        targets = np.zeros((len(rows), len(self.label_space)), dtype=bool)
        for places, _, within, held in self._by_shard(rows):
            targets[places] = held.labels.to_bool(within, targets.shape[1])
        return targets

    def known(self, rows: Rows | None = None) -> NDArray[np.bool_]:
        """Return which labels are known [rows, L] in the given rows, by default all."""
        rows = self._rows(rows)
        known = np.full((len(rows), len(self.label_space)), self.rest == "absent")
        for places, _, within, held in self._by_shard(rows):
            others = _others(held, self.rest)
            if self.rest == "unknown":
                known[places] = held.labels.to_bool(within, known.shape[1]) | others.to_bool(within, known.shape[1])
            elif len(others.values):
                known[places] = ~others.to_bool(within, known.shape[1])
        return known

    def label_counts(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Count the samples in which each label is present and known, and those in which it is known [L], [L].

        They are in dataset.json if the manifest is in parts, and are counted here otherwise.
        """
        if self.stated_counts is not None:
            present_L, known_L = (np.array(self.stated_counts[key], dtype=np.int64) for key in ("present", "known"))
            return present_L, known_L
        present_L = known_L = np.zeros(len(self.label_space), dtype=np.int64)
        for shard in range(len(self.shards)):
            held = self.held.of(self.first_shard + shard)
            present, known = count_labels(held.labels, _others(held, self.rest), len(self.label_space), self.rest)
            present_L, known_L = present_L + present, known_L + known
        return present_L, known_L

    def spread(self, num_rows: int) -> Rows:
        """Return all rows, or in a larger split about `num_rows` rows, from whole shards that are evenly spread."""
        every = -(-len(self) // num_rows)
        chosen = range(0, len(self.shards), every)
        lengths, ends = self.shards.samples_S.tolist(), self._ends_S.tolist()
        return np.concatenate([np.arange(ends[shard] - lengths[shard], ends[shard], dtype=np.int64) for shard in chosen])

    def want(self, rows: Rows) -> None:
        """Start reading the given rows in the background."""
        self.held.want((np.unique(self.shard_of(rows)) + self.first_shard).tolist())

    def keep(self, num_shards: int) -> None:
        """Keep the rows of at least `num_shards` shards in memory."""
        self.held.keep(num_shards * int(self.shards.samples_S.max()))

    def shard_of(self, rows: Rows) -> Rows:
        """Return the shards of the given rows, as indices into `shards`."""
        return np.searchsorted(self._ends_S, rows, side="right")

    def samples_per_shard(self) -> NDArray[np.int64]:
        """Return the number of samples in each shard [S]."""
        return self.shards.samples_S

    @property
    def shard_N(self) -> NDArray[np.int64]:
        """The shard of every row, as an index into `shards`, ascending."""
        return np.repeat(np.arange(len(self.shards)), self.shards.samples_S)

    @cached_property
    def sample_ids_N(self) -> NDArray[np.int64]:
        """The sample id of every row."""
        return self.sample_ids()

    @cached_property
    def keys(self) -> list[str]:
        """The key of every row: the name of its files in the tar."""
        return [str(key) for key in self._column("key").to_pylist()]

    @cached_property
    def offset_bytes_N(self) -> NDArray[np.int64]:
        """The offset of every row's image in its tar, in bytes."""
        return numbers(self._column("offset_bytes"))

    @cached_property
    def size_bytes_N(self) -> NDArray[np.int64]:
        """The size of every row's image file, in bytes."""
        return numbers(self._column("size_bytes"))

    @cached_property
    def height_px_N(self) -> NDArray[np.int32]:
        """The height of every row's image, in pixels."""
        return numbers(self._column("height_px"))

    @cached_property
    def width_px_N(self) -> NDArray[np.int32]:
        """The width of every row's image, in pixels."""
        return numbers(self._column("width_px"))

    @cached_property
    def labels(self) -> Ragged:
        """The columns of the labels present in every row."""
        return Ragged.from_column(self._column("labels"))

    @cached_property
    def unknown_labels(self) -> Ragged:
        """The columns of the labels that every row lists as unknown; if `rest` is unknown, unlisted labels are unknown too."""
        return Ragged.from_column(self._column("unknown_labels"))

    def num_unknown(self) -> int:
        """Return the number of unknown labels, summed over all samples."""
        _, known_L = self.label_counts()
        return len(self) * len(self.label_space) - int(known_L.sum())

    @cached_property
    def label_areas_px2(self) -> Ragged:
        """Parallel to `labels`: the area of the largest object with that label, in square pixels."""
        return Ragged.from_column(self._column("label_areas_px2"))

    @cached_property
    def _ends_S(self) -> Rows:
        return np.cumsum(self.shards.samples_S)

    def _rows(self, rows: Rows | None) -> Rows:
        return np.arange(len(self), dtype=np.int64) if rows is None else rows

    def _by_shard(self, rows: Rows) -> Iterator[tuple[list[int], int, Rows, ShardRows]]:
        """Yield, for each shard with any of the rows, their indices in `rows`, the shard, their indices in it, and its rows."""
        shards = self.shard_of(rows)
        order = np.argsort(shards, kind="stable")
        for places in np.split(order, np.flatnonzero(np.diff(shards[order])) + 1) if len(rows) else ():
            shard = int(shards[places[0]])
            first = int(self._ends_S[shard] - self.shards.samples_S[shard])
            yield places.tolist(), shard, rows[places] - first, self.held.of(self.first_shard + shard)

    @cached_property
    def _one_file(self) -> pa.Table:
        """All columns of a manifest in one file."""
        return self.held.parts.read(0, self.held.parts.schema.names)

    def _column(self, name: str) -> pa.ChunkedArray:
        """Return a column of all rows, from all parts; a manifest in one file is read once for all columns."""
        parts, end_shard = self.held.parts, self.first_shard + len(self.shards)
        read = range(parts.of(self.first_shard), parts.of(end_shard - 1) + 1)
        before = int(parts.shards.samples_S[parts.shards_of(read[0]).start : self.first_shard].sum())
        tables = [self._one_file] if parts.is_one_file else (parts.read(part, [name]) for part in read)
        column = pa.chunked_array([chunk for table in tables for chunk in table[name].chunks])
        return column.slice(before, len(self))


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A built dataset: its facts (dataset.json), label space, shards and samples.

    Example::

        dataset = rp.Dataset.open("shards")
        dataset.splits                                      # {'train': 592, 'holdout': 158, 'val': 157}
        dataset.split("val").targets()                      # bool [N, L], columns as dataset.label_space.names
    """

    root: str
    facts: dict[str, Any]
    label_space: LabelSpace
    shards: Shards
    held: HeldRows

    @classmethod
    def open(cls, root: str) -> "Dataset":
        """Open the dataset at a path or URI, or an earlier version of one that grew, as ROOT@FINGERPRINT.

        Raises DatasetError if it was not built, not finished, or changed, and for a version that it never had. Only the first
        part of the manifest is read now, which is often all of it; others are read when their rows are needed.
        """
        facts = read_facts(root)
        label_space = read_label_space(root)
        stated = facts.get("label_space_fingerprint", label_space.fingerprint)
        if label_space.fingerprint != stated:
            raise DatasetError(
                f"{root}/labels.json was changed: its fingerprint is {label_space.fingerprint}, but {stated} in dataset.json; "
                "build the dataset again"
            )
        if wrong := [split for split, counts in facts.get("label_counts", {}).items() if not _fit(counts, label_space)]:
            raise DatasetError(
                f"{root}/dataset.json does not count the {len(label_space)} labels of labels.json in {', '.join(wrong)}; "
                "build the dataset again"
            )
        shards = Shards.read(root, facts)
        held = HeldRows(Parts.stated(root, shards, facts, len(label_space)))
        held.of(0)
        return cls(root, facts, label_space, shards, held)

    def __repr__(self) -> str:
        splits = ", ".join(f"{split} {count:,}" for split, count in self.splits.items())
        return f"Dataset({self.root!r}: {len(self.label_space):,} labels; {splits})"

    @property
    def name(self) -> str:
        """The name from its recipe."""
        return str(self.facts.get("name") or "unnamed")

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change with any sample, label or shard."""
        return str(self.facts["fingerprint"])

    @property
    def datasets(self) -> tuple["Dataset", ...]:
        """The dataset itself; several joined ones (data/joined) return each of them."""
        return (self,)

    @property
    def reading(self) -> ImageReading:
        """How its images are read: upright by EXIF, or as they are stored in datasets of rayprob 0.1."""
        return ImageReading.of(self.facts)

    @cached_property
    def splits(self) -> dict[str, int]:
        """The number of samples of each split."""
        return self.shards.samples_of_splits()

    def split(self, name: str) -> Manifest:
        """Return the samples of a split. Raises a DatasetError that lists the existing splits if it is missing."""
        if name not in self.splits:
            found = ", ".join(f"{split} ({samples:,})" for split, samples in self.splits.items())
            raise DatasetError(f"{self.root} has no split {name!r}; it has {found}")
        shards = self.shards.splits[name]
        return Manifest(
            root=self.root,
            fingerprint=self.fingerprint,
            split=name,
            label_space=self.label_space,
            shards=self.shards[shards.start : shards.stop],
            first_shard=shards.start,
            held=self.held,
            stated_counts=self.facts.get("label_counts", {}).get(name),
            rest=self.facts.get("rest", {}).get(name, "absent"),
            reading=self.reading,
        )


def _others(held: ShardRows, rest: str) -> Ragged:
    """Return the labels that rows list in addition to present ones: unknown ones, or absent ones if the rest is unknown."""
    if rest == "absent":
        return held.unknown_labels
    assert held.absent_labels is not None  # a dataset with this `rest` has the column
    return held.absent_labels


def _fit(counts: Mapping[str, Any], label_space: LabelSpace) -> bool:
    return {len(counts["present"]), len(counts["known"])} == {len(label_space)}
