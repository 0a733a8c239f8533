"""The Parquet files of a manifest: one, or parts of some thousand samples if there are many. S shards, P parts.

A part contains the rows of whole shards. It is read as a whole, and its sha256 is checked then. So a process that needs few
shards reads few bytes, keeps no footers in memory, and verifies everything that it reads.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rayprob.data.manifest.columns import SCHEMA, SCHEMA_WITH_ABSENT, Ragged, numbers, whole
from rayprob.data.manifest.shard_list import REMEDY, Shards, read_file
from rayprob.data.manifest.versions import dataset_file
from rayprob.errors import DatasetError, StorageError
from rayprob.files import storage
from rayprob.files.tables import parse_table, require_schema

ONE_FILE = "manifest.parquet"
ONE_FILE_ROWS = 2**18  # a larger manifest is written in parts
PART_ROWS = 2**14  # a part with this many rows is full
MOST_BYTES = 2**53  # of a shard


@dataclass(frozen=True, eq=False)
class Parts:
    """The parts of a manifest: part p contains the rows of the shards from `ends_P[p - 1]` (or 0) to `ends_P[p] - 1`."""

    root: str
    shards: Shards
    ends_P: NDArray[np.int64]
    sha256: Sequence[str | None]
    is_one_file: bool
    files: Sequence[str] = ()  # of a manifest that grew; others have numbered files
    num_labels: int | None = None  # None: unknown, so label columns are not checked against it
    schema: pa.Schema = SCHEMA

    @classmethod
    def stated(cls, root: str, shards: Shards, facts: Mapping[str, Any], num_labels: int | None = None) -> "Parts":
        """Return the parts listed in a dataset's facts (dataset.json). Raises DatasetError if they do not fit the shards."""
        schema = SCHEMA_WITH_ABSENT if facts.get("rest") else SCHEMA
        if facts.get("manifest") is None:
            sha256 = [facts.get("manifest_sha256")]
            return cls(root, shards, np.array([len(shards)]), sha256, is_one_file=True, num_labels=num_labels, schema=schema)
        ends_P = np.cumsum(facts["manifest"]["shards"], dtype=np.int64)
        sha256 = facts["manifest"]["sha256"]
        files = facts["manifest"].get("files", ())
        parts = cls(root, shards, ends_P, sha256, is_one_file=False, files=files, num_labels=num_labels, schema=schema)
        stated = int(ends_P[-1]) if len(ends_P) else 0
        if {len(parts.sha256), len(files or sha256)} != {len(ends_P)} or stated != len(shards):
            raise DatasetError(
                f"{root}/dataset.json lists {len(parts.sha256):,} parts of a manifest for {stated:,} shards, "
                f"but there are {len(shards):,} shards; build the dataset again"
            )
        return parts

    def __len__(self) -> int:
        return len(self.ends_P)

    def of(self, shard: int) -> int:
        """Return the part with the rows of a shard."""
        return int(np.searchsorted(self.ends_P, shard, side="right"))

    def shards_of(self, part: int) -> range:
        """Return the shards whose rows are in a part."""
        return range(int(self.ends_P[part - 1]) if part else 0, int(self.ends_P[part]))

    def file(self, part: int) -> str:
        """Return the name of a part's file."""
        if self.files:
            return self.files[part]
        return ONE_FILE if self.is_one_file else part_file(part)

    def largest_rows(self) -> int:
        """Return the number of rows of the largest part."""
        first_P = np.concatenate([[0], self.ends_P[:-1]])
        return int(np.add.reduceat(self.shards.samples_S, first_P).max()) if len(self.shards) else 0

    def read(self, part: int, columns: Sequence[str]) -> pa.Table:
        """Return columns of a part. Raises DatasetError if it cannot be read or was changed."""
        try:
            return self._read(part, columns)
        except DatasetError as error:
            if storage.is_local(self.root) or isinstance(error.__cause__, StorageError):
                raise
        return self._read(part, columns)  # bytes damaged in transfer are right the second time

    def _read(self, part: int, columns: Sequence[str]) -> pa.Table:
        uri, shards = dataset_file(self.root, self.file(part)), self.shards_of(part)
        content = read_file(uri, f"the manifest of {self.root}")
        what = f"{self.file(part)}: the manifest of {self.root}"
        table = parse_table(
            content,
            what,
            columns=[*columns, "shard"],
            dictionaries=["shard"],
            use_threads=False,
            error=DatasetError,
            remedy=REMEDY,
        )
        stated = pa.schema([self.schema.field(name) for name in dict.fromkeys([*columns, "shard"])])
        require_schema(table, stated, what, error=DatasetError, remedy=REMEDY)
        num_samples = int(self.shards.samples_S[shards.start : shards.stop].sum())
        if table.num_rows != num_samples:
            raise DatasetError(f"{what} has {table.num_rows:,} rows, but {num_samples:,} in dataset.json; {REMEDY}")
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 != (self.sha256[part] or sha256):
            raise DatasetError(
                f"the manifest of {self.root} was changed after it was built: its sha256 is {sha256}, {self.file(part)}; "
                "build it again"
            )
        self._check_order(part, table.select(["shard"]))
        self._check_ranges(table, what)
        return table.select(list(columns))

    def _check_order(self, part: int, table: pa.Table) -> None:
        """Raise DatasetError unless the rows are those of the part's shards, in order."""
        shards = self.shards[self.shards_of(part).start : self.shards_of(part).stop]
        found = whole(table.unify_dictionaries()["shard"])
        codes_N = numbers(found.indices)
        counts_S = shards.samples_S[shards.samples_S > 0]
        first_S = np.cumsum(counts_S) - counts_S
        same = np.array_equal(codes_N, np.repeat(codes_N[first_S], counts_S))
        stated = [name for name, samples in zip(shards, shards.samples_S.tolist(), strict=True) if samples]
        if not same or [found.dictionary[code].as_py() for code in codes_N[first_S].tolist()] != stated:
            raise DatasetError(
                f"{self.root}/{self.file(part)} does not list samples shard by shard as dataset.json lists the shards; "
                "build the dataset again"
            )

    def _check_ranges(self, table: pa.Table, what: str) -> None:
        """Raise DatasetError for columns without a label, and for impossible offsets and sizes."""
        for name in (
            {"labels", "unknown_labels", "absent_labels"} & set(table.column_names) if self.num_labels is not None else ()
        ):
            columns = Ragged.from_column(table[name]).values
            if len(columns) and not 0 <= columns.min() <= columns.max() < (self.num_labels or 0):
                raise DatasetError(
                    f"{what} has {name} from {columns.min()} to {columns.max()}, but the dataset has {self.num_labels} labels; "
                    + REMEDY
                )
        for name in {"offset_bytes", "size_bytes"} & set(table.column_names):
            if table.num_rows and not 0 <= (found := numbers(table[name])).min() <= found.max() <= MOST_BYTES:
                raise DatasetError(f"{what} has {name} from {found.min():,} to {found.max():,}; {REMEDY}")


def part_file(part: int) -> str:
    """Return the name of a part's file in a manifest of several parts."""
    return f"manifest/{part:06d}.parquet"


def part_ends(shards: Shards, *, part_rows: int) -> NDArray[np.int64]:
    """Return where the shards of each part end [P]: at the end of the split, or once the part has at least `part_rows` rows."""
    last = {places.stop for places in shards.splits.values()}
    ends, rows = [], 0
    for end, samples in enumerate(shards.samples_S.tolist(), start=1):
        rows += samples
        if rows >= part_rows or end in last:
            ends.append(end)
            rows = 0
    return np.array(ends, dtype=np.int64)


def write_part(root: str, file: str, table: pa.Table) -> str:
    """Write a table of rows, or of shards, as a file of the manifest; return its sha256. Raises StorageError."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    storage.write_bytes(storage.join(root, file), buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()
