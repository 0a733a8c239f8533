"""A built dataset as its readers see it: dataset.json, labels.json and manifest.parquet. N samples, L labels."""

import hashlib
import json
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rayprob import storage
from rayprob.errors import DatasetError, StorageError
from rayprob.labels import LabelSpace

FORMAT_VERSION = 1
SCHEMA = pa.schema(
    [
        ("sample_id", pa.int64()),
        ("key", pa.string()),
        ("split", pa.string()),
        ("shard", pa.string()),
        ("offset_bytes", pa.int64()),
        ("size_bytes", pa.int64()),
        ("height_px", pa.int32()),
        ("width_px", pa.int32()),
        ("labels", pa.list_(pa.int32())),
        ("unknown_labels", pa.list_(pa.int32())),
        ("label_areas_px2", pa.list_(pa.float32())),
        ("crc32", pa.uint32()),
    ]
)


def to_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return the rows of a manifest as a table of SCHEMA."""
    return pa.Table.from_arrays([_column([row[field.name] for row in rows], field.type) for field in SCHEMA], schema=SCHEMA)


def _column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    # pa.array would do, but imports pandas: half a second in each process that writes shards.
    if pa.types.is_list(kind):
        return pa.ListArray.from_arrays(_starts(values), _column(list(chain.from_iterable(values)), kind.value_type))
    if pa.types.is_string(kind):
        encoded = [value.encode() for value in values]
        return pa.StringArray.from_buffers(len(values), _starts(encoded).buffers()[1], pa.py_buffer(b"".join(encoded)))
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(np.array(values, dtype=kind.to_pandas_dtype()))])


def _starts(lists: Sequence[Sized]) -> pa.Array:
    """Return where each list starts when all lie one after the other, and where the last one stops."""
    return _column(list(accumulate(map(len, lists), initial=0)), pa.int32())


@dataclass(frozen=True)
class Ragged:
    """N lists of numbers in two arrays: list n is `values[starts[n]:starts[n + 1]]`."""

    values: NDArray[Any]
    starts: NDArray[np.int64]

    @classmethod
    def from_column(cls, column: pa.ChunkedArray) -> "Ragged":
        """Take over a list column of a table."""
        lists = column.combine_chunks()
        if isinstance(lists, pa.ChunkedArray):
            lists = pa.concat_arrays(lists.chunks) if lists.num_chunks else pa.array([], type=lists.type)
        starts = np.asarray(lists.offsets, dtype=np.int64)
        return cls(np.asarray(lists.flatten()), starts - starts[0])

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> NDArray[Any]:
        return self.values[self.starts[row] : self.starts[row + 1]]

    def to_bool(self, rows: NDArray[np.int64], num_columns: int) -> NDArray[np.bool_]:
        """Return bool [len(rows), num_columns], true where a list holds the column."""
        dense = np.zeros((len(rows), num_columns), dtype=bool)
        lengths = self.starts[rows + 1] - self.starts[rows]
        # Place of every value: the start of its list, and how far into the list it lies.
        into = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        values = self.values[np.repeat(self.starts[rows], lengths) + into]
        dense[np.repeat(np.arange(len(rows)), lengths), values] = True
        return dense


@dataclass(frozen=True)
class Manifest:
    """The samples of one split, in the order in which they lie in its shards."""

    root: str
    split: str
    label_space: LabelSpace
    shards: tuple[str, ...]
    shard_N: NDArray[np.int32]  # index into `shards`, ascending
    sample_ids_N: NDArray[np.int64]
    keys: list[str]
    offset_bytes_N: NDArray[np.int64]  # of the JPEG bytes in the tar
    size_bytes_N: NDArray[np.int64]
    crc32_N: NDArray[np.uint32]
    height_px_N: NDArray[np.int32]
    width_px_N: NDArray[np.int32]
    labels: Ragged  # columns of the labels present
    unknown_labels: Ragged  # columns of the labels that the source does not state
    label_areas_px2: Ragged  # beside `labels`: the area of the largest object with that label

    def __len__(self) -> int:
        return len(self.sample_ids_N)

    def targets(self, rows: NDArray[np.int64] | None = None) -> NDArray[np.bool_]:
        """Return targets [rows, L] of the given rows, by default of all."""
        return self.labels.to_bool(self._rows(rows), len(self.label_space))

    def known(self, rows: NDArray[np.int64] | None = None) -> NDArray[np.bool_]:
        """Return which labels the source states [rows, L] of the given rows, by default of all."""
        return ~self.unknown_labels.to_bool(self._rows(rows), len(self.label_space))

    def samples_per_shard(self) -> NDArray[np.int64]:
        """Return the number of samples in each shard [S]."""
        return np.bincount(self.shard_N, minlength=len(self.shards)).astype(np.int64)

    def _rows(self, rows: NDArray[np.int64] | None) -> NDArray[np.int64]:
        return np.arange(len(self), dtype=np.int64) if rows is None else rows


@dataclass(frozen=True)
class Dataset:
    """A built dataset: its facts (dataset.json), label space and table of samples."""

    root: str
    facts: dict[str, Any]
    label_space: LabelSpace
    table: pa.Table

    @classmethod
    def open(cls, root: str) -> "Dataset":
        """Open the dataset at a path or URI. Raises DatasetError where it was not built, not finished, or changed."""
        facts = read_facts(root)
        label_space = read_label_space(root)
        stated = facts.get("label_space_fingerprint", label_space.fingerprint)
        if label_space.fingerprint != stated:
            raise DatasetError(
                f"{root}/labels.json was changed: its fingerprint is {label_space.fingerprint}, dataset.json says {stated}; "
                "build the dataset again"
            )
        return cls(root, facts, label_space, _read_table(root, facts))

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change with any sample, label or shard."""
        return str(self.facts["fingerprint"])

    @cached_property
    def splits(self) -> dict[str, int]:
        """Number of samples of each split."""
        counts: dict[str, int] = {}
        for shard in self.facts["shards"]:
            counts[shard["split"]] = counts.get(shard["split"], 0) + shard["samples"]
        return counts

    def split(self, name: str) -> Manifest:
        """Return the samples of a split. Raises DatasetError that lists the splits that exist."""
        if name not in self.splits:
            found = ", ".join(f"{split} ({samples:,})" for split, samples in self.splits.items())
            raise DatasetError(f"{self.root} has no split {name!r}; it has {found}")
        rows = self.table.filter(pc.equal(self.table["split"], name))
        shards = tuple(shard["name"] for shard in self.facts["shards"] if shard["split"] == name)
        place = {shard: index for index, shard in enumerate(shards)}
        return Manifest(
            root=self.root,
            split=name,
            label_space=self.label_space,
            shards=shards,
            shard_N=np.array([place[shard] for shard in rows["shard"].to_pylist()], dtype=np.int32),
            sample_ids_N=rows["sample_id"].to_numpy(),
            keys=rows["key"].to_pylist(),
            offset_bytes_N=rows["offset_bytes"].to_numpy(),
            size_bytes_N=rows["size_bytes"].to_numpy(),
            crc32_N=rows["crc32"].to_numpy(),
            height_px_N=rows["height_px"].to_numpy(),
            width_px_N=rows["width_px"].to_numpy(),
            labels=Ragged.from_column(rows["labels"]),
            unknown_labels=Ragged.from_column(rows["unknown_labels"]),
            label_areas_px2=Ragged.from_column(rows["label_areas_px2"]),
        )


def read_facts(root: str) -> dict[str, Any]:
    """Return dataset.json. Raises DatasetError where the dataset was not built, not finished, or by another version."""
    facts = _read_json(root, "dataset.json", "run `rayprob shard RECIPE` to build it, or to finish a stopped build")
    if facts.get("format_version") != FORMAT_VERSION:
        raise DatasetError(
            f"{root} has dataset format {facts.get('format_version')!r}, this version reads {FORMAT_VERSION}; rebuild it"
        )
    return facts


def read_label_space(root: str) -> LabelSpace:
    """Return labels.json. Raises DatasetError where it cannot be read, LabelError where it is no label space."""
    return LabelSpace.from_dict(_read_json(root, "labels.json", "build the dataset again"))


def _read_json(root: str, name: str, remedy: str) -> dict[str, Any]:
    try:
        value = json.loads(storage.read_bytes(storage.join(root, name)))
    except StorageError as error:
        raise DatasetError(f"{root} is not a finished dataset: {error}; {remedy}") from error
    except ValueError as error:
        raise DatasetError(f"{root}/{name} is not JSON ({error}); {remedy}") from error
    if not isinstance(value, dict):
        raise DatasetError(f"{root}/{name} holds {type(value).__name__}, not a mapping; {remedy}")
    return value


def _read_table(root: str, facts: dict[str, Any]) -> pa.Table:
    try:
        content = storage.read_bytes(storage.join(root, "manifest.parquet"))
        table = pq.read_table(pa.BufferReader(content))
    except (StorageError, pa.ArrowException, OSError) as error:
        raise DatasetError(f"the manifest of {root} cannot be read: {error}; build the dataset again") from error
    num_samples = sum(shard["samples"] for shard in facts["shards"])
    if not table.schema.equals(SCHEMA) or table.num_rows != num_samples:
        raise DatasetError(
            f"the manifest of {root} has {table.num_rows:,} rows and columns {table.schema.names}; dataset.json promises "
            f"{num_samples:,} rows and {SCHEMA.names}; build the dataset again"
        )
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != facts.get("manifest_sha256", sha256):
        raise DatasetError(f"the manifest of {root} was changed after it was built: its sha256 is {sha256}; build it again")
    return table
