"""Where the bytes of shards come from: files on this machine, or (cache.py) a node-local copy of remote ones."""

import os
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from rayprob.data.manifest.facts import read_facts
from rayprob.data.manifest.shard_list import Shards, missing_shard, shard_uri
from rayprob.files import storage

MAX_OPEN_SHARDS = 64


@dataclass(frozen=True)
class ShardFacts:
    """A shard's entry in dataset.json."""

    size_bytes: int
    sha256: str


class ShardSource(Protocol):
    """Where the bytes of shards come from; it can be pickled to another process."""

    def read(self, shard: str, offset_bytes: int, length_bytes: int) -> bytes:
        """Return bytes of a shard, fewer at its end. Raises DatasetError or StorageError if it cannot be read."""
        ...

    def forget(self, shard: str) -> bool:
        """Discard a damaged copy, so that it is fetched again; return whether there was one."""
        ...


class ShardKeeper(Protocol):
    """Looks after shards while a stream runs."""

    def decoded(self, shards: list[str], *, ends_pass: bool) -> None:
        """Record that a micro batch from these shards is decoded, and whether it is the last of an epoch or evaluation."""
        ...

    def close(self) -> None:
        """Stop all background work."""
        ...


class FactsByName(Mapping[str, ShardFacts]):
    """The facts of a dataset's shards by name, in a few bytes each; another process loads them on first use."""

    def __init__(self, root: str, shards: Shards | None = None) -> None:
        """`shards` defaults to all shards of the dataset. A lookup raises DatasetError if they cannot be read."""
        self._root = root
        self._given = shards

    @cached_property
    def _shards(self) -> Shards:
        return Shards.read(self._root, read_facts(self._root)) if self._given is None else self._given

    @cached_property
    def _sorted(self) -> pa.Array:
        """The shards in order of their names."""
        # Eight bytes each: a dict of a million names and facts takes half a gigabyte.
        return pc.array_sort_indices(self._shards.names)

    def __getitem__(self, name: str) -> ShardFacts:
        shards, order = self._shards, self._sorted
        place = bisect_left(range(len(order)), name, key=lambda place: shards[order[place].as_py()])
        shard = order[place].as_py() if place < len(order) else -1
        if shard < 0 or shards[shard] != name:
            raise KeyError(name)
        return ShardFacts(int(shards.size_bytes_S[shard]), shards.sha256(shard))

    def __iter__(self) -> Iterator[str]:
        return iter(self._shards)

    def __len__(self) -> int:
        return len(self._shards)

    def __getstate__(self) -> dict[str, Any]:
        return {"_root": self._root, "_given": None}


class LocalShards:
    """Shards on this machine's file system, read in place."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._files: OrderedDict[str, int] = OrderedDict()

    def read(self, shard: str, offset_bytes: int, length_bytes: int) -> bytes:
        """Return bytes of a shard, fewer at its end. Raises DatasetError if the file does not exist."""
        # pread carries its own offset, so processes that share a descriptor after a fork do not disturb each other.
        return os.pread(self._descriptor(shard), length_bytes, offset_bytes)

    def forget(self, shard: str) -> bool:
        """Return False: these are the shards themselves, not copies."""
        return False

    def close(self) -> None:
        """Close all files; reading opens them again."""
        while self._files:
            os.close(self._files.popitem()[1])

    def _descriptor(self, shard: str) -> int:
        descriptor = self._files.get(shard)
        if descriptor is None:
            descriptor = _open(self._root, shard)
            self._files[shard] = descriptor
            if len(self._files) > MAX_OPEN_SHARDS:
                os.close(self._files.popitem(last=False)[1])
        self._files.move_to_end(shard)
        return descriptor

    def __getstate__(self) -> dict[str, Any]:
        return {"_root": self._root, "_files": OrderedDict()}

    def __del__(self) -> None:
        self.close()


class RangeReads:
    """Bytes of shards, local or remote, one range at a time. Keeps no file open, so threads may share it."""

    def __init__(self, root: str) -> None:
        self._root = root

    def read(self, shard: str, offset_bytes: int, length_bytes: int) -> bytes:
        """Return bytes of a shard. Raises StorageError, also if the shard ends before them."""
        return storage.read_bytes(shard_uri(self._root, shard), offset_bytes, length_bytes)

    def forget(self, shard: str) -> bool:
        """Return False: there is no other copy to read from."""
        return False


def are_local(root: str, shards: Shards) -> bool:
    """Return whether all of these shards of the dataset at `root` are on this machine's file system."""
    # Without a Python string for each of a million names.
    if pc.any(pc.match_substring_regex(shards.names, r"^[A-Za-z][A-Za-z0-9+.-]*://")).as_py():
        return False
    return storage.is_local(root) or bool(pc.all(pc.starts_with(shards.names, "/")).as_py())


def _open(root: str, shard: str) -> int:
    try:
        return os.open(storage.local_path(shard_uri(root, shard)), os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise missing_shard(root, shard, str(error.strerror)) from error
