"""The shards of a dataset: their names and facts, a few numbers each. S shards.

A shard is a tar in the dataset's own folder, or a tar from elsewhere that is read in place: its name is then its path
(`shard_uri`), and it may contain samples of several splits. dataset.json lists shards as objects; if the manifest is in parts,
they are in shards.parquet instead, which takes a tenth of the memory to read.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from rayprob.data.manifest.columns import numbers, to_array, whole
from rayprob.data.manifest.versions import dataset_file
from rayprob.errors import DatasetError, StorageError
from rayprob.files import storage, uris
from rayprob.files.documents import Count, Shape
from rayprob.files.tables import parse_table, require_schema

SHARDS_FILE = "shards.parquet"
MOVED_TARS = (
    "shard the recipe with their new place into another target, which has the same fingerprint; or, if the dataset has grown, "
    "move or link them back"
)
REMEDY = "build the dataset again"
SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("split", pa.string()),
        ("samples", pa.int64()),
        ("size_bytes", pa.int64()),
        ("sha256", pa.binary(32)),
    ]
)


class Entry(Shape):
    """A shard as an object in dataset.json."""

    name: str
    split: str
    samples: Count
    size_bytes: Count
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{2}){0,32}$")]


@dataclass(frozen=True, eq=False)
class Shards(Sequence[str]):
    """The names of shards, split by split in the order of the manifest's rows, with their facts in columns."""

    names: pa.StringArray
    splits: Mapping[str, range]  # the shards of each split
    samples_S: NDArray[np.int64]
    size_bytes_S: NDArray[np.int64]
    sha256_S: NDArray[np.void]

    @classmethod
    def read(cls, root: str, facts: Mapping[str, Any]) -> "Shards":
        """Return the shards of a dataset with these facts (dataset.json). Raises DatasetError."""
        if "shards" in facts:
            return cls.from_entries(root, facts["shards"])
        file = facts.get("shards_file", SHARDS_FILE)
        content = read_file(dataset_file(root, file), f"the shards of {root}")
        what = f"{file}: the shards of {root}"
        table = parse_table(content, what, use_threads=False, error=DatasetError, remedy=REMEDY)
        if not table.schema.equals(SCHEMA) or hashlib.sha256(content).hexdigest() != facts.get("shards_sha256"):
            raise DatasetError(f"{root}/{file} was changed after it was built; {REMEDY}")
        require_schema(table, SCHEMA, what, error=DatasetError, remedy=REMEDY)
        return cls.from_table(root, table)

    @classmethod
    def from_entries(cls, root: str, entries: Sequence[Mapping[str, Any]]) -> "Shards":
        """Return the shards in a list of mappings, each an Entry. Raises DatasetError as `from_table` does."""
        digests = b"".join(bytes.fromhex(entry["sha256"]).ljust(32, b"\0") for entry in entries)
        sha256 = pa.Array.from_buffers(SCHEMA.field("sha256").type, len(entries), [None, pa.py_buffer(digests)])
        columns = [to_array([entry[field.name] for entry in entries], field.type) for field in list(SCHEMA)[:-1]]
        return cls.from_table(root, pa.Table.from_arrays([*columns, sha256], schema=SCHEMA))

    @classmethod
    def from_table(cls, root: str, table: pa.Table) -> "Shards":
        """Return the shards of a table of SCHEMA. Raises DatasetError if it is empty or a split is not contiguous."""
        columns = {name: whole(table[name]) for name in table.column_names}
        if not table.num_rows or min(numbers(columns[name]).min() for name in ("samples", "size_bytes")) < 0:
            raise DatasetError(f"{root}/dataset.json lists no shards, or negative counts of samples or bytes; {REMEDY}")
        return cls(
            names=columns["name"],
            splits=_ranges(root, columns["split"].dictionary_encode()),
            samples_S=numbers(columns["samples"]),
            size_bytes_S=numbers(columns["size_bytes"]),
            sha256_S=numbers(columns["sha256"]),
        )

    def to_table(self) -> pa.Table:
        """Return the shards as a table of SCHEMA."""
        splits = [split for split, shards in self.splits.items() for _ in shards]
        digests = pa.Array.from_buffers(SCHEMA.field("sha256").type, len(self), [None, pa.py_buffer(self.sha256_S.tobytes())])
        numbers = [to_array(column.tolist(), pa.int64()) for column in (self.samples_S, self.size_bytes_S)]
        return pa.Table.from_arrays([self.names, to_array(splits, pa.string()), *numbers, digests], schema=SCHEMA)

    def __len__(self) -> int:
        return len(self.samples_S)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> "Shards": ...
    def __getitem__(self, place: int | slice) -> "str | Shards":
        if not isinstance(place, slice):
            name: str = self.names[int(place)].as_py()
            return name
        assert place.step in (None, 1), "the shards of a split are contiguous"
        first, end, _ = place.indices(len(self))
        return Shards(
            names=self.names.slice(first, max(0, end - first)),
            splits={},
            samples_S=self.samples_S[place],
            size_bytes_S=self.size_bytes_S[place],
            sha256_S=self.sha256_S[place],
        )

    def samples_of_splits(self) -> dict[str, int]:
        """Return the number of samples of each split."""
        return {split: int(self.samples_S[shards.start : shards.stop].sum()) for split, shards in self.splits.items()}

    def sha256(self, place: int) -> str:
        """Return the sha256 of a shard in hex digits."""
        digest: bytes = self.sha256_S[place].tobytes()
        return digest.hex()

    def entries(self) -> list[dict[str, Any]]:
        """Return the shards as the objects of dataset.json."""
        of = [split for split, shards in self.splits.items() for _ in shards]
        return [
            {
                "name": name,
                "split": of[place],
                "samples": int(self.samples_S[place]),
                "size_bytes": int(self.size_bytes_S[place]),
                "sha256": self.sha256(place),
            }
            for place, name in enumerate(self)
        ]


def shard_uri(root: str, name: str) -> str:
    """Return the path or URI of a shard. Its name is an absolute path, a URI, or relative to the dataset's root."""
    return name if name.startswith("/") or not uris.is_local(name) else dataset_file(root, name)


def shard_name(root: str, uri: str) -> str:
    """Return the name of a tar for `shard_uri`. Below the root it is relative, so that both can be moved together."""
    return uris.below(root, uri) or uris.absolute(uri)


def missing_shard(root: str, name: str, reason: str) -> DatasetError:
    """Return the error for a shard that cannot be opened, with a remedy: a tar that is read in place may have been moved."""
    uri = shard_uri(root, name)
    moved = f"; if its tars were moved, {MOVED_TARS}" if "/" in name else ""
    return DatasetError(f"cannot open shard {uri}: {reason}; run `rayprob verify {root}`{moved}")


def _ranges(root: str, splits: pa.DictionaryArray) -> dict[str, range]:
    codes_S = numbers(splits.indices)
    firsts = np.flatnonzero(np.diff(codes_S, prepend=-1)).tolist()
    if len(firsts) != len(splits.dictionary):
        raise DatasetError(f"the shards of {root} are not listed split by split; build the dataset again")
    names = [splits.dictionary[int(codes_S[first])].as_py() for first in firsts]
    return {name: range(first, end) for name, first, end in zip(names, firsts, [*firsts[1:], len(splits)], strict=True)}


def read_file(uri: str, what: str) -> bytes:
    """Return the content of a dataset's file. Raises DatasetError if it is missing, and StorageError if the store fails."""
    try:
        return storage.read_bytes(uri)
    except StorageError as error:
        if not storage.is_missing(error):
            raise
        raise DatasetError(f"{what} cannot be read: {error}; build the dataset again") from error
