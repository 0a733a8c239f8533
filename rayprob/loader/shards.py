"""Where the bytes of shards come from: files on this machine, or (cache.py) a node-local copy of remote ones."""

import os
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rayprob import storage
from rayprob.data.manifest import read_facts
from rayprob.errors import DatasetError

MAX_OPEN_SHARDS = 64


@dataclass(frozen=True)
class ShardFacts:
    """What dataset.json says of a shard."""

    size_bytes: int
    sha256: str


class ShardSource(Protocol):
    """Where the bytes of shards come from; it can be pickled to another process."""

    def read(self, shard: str, offset_bytes: int, length_bytes: int) -> bytes:
        """Return bytes of a shard, fewer at its end. Raises DatasetError or StorageError where it cannot be read."""
        ...

    def forget(self, shard: str) -> bool:
        """Give up a copy that turned out damaged, so that it is fetched again; return whether there was one."""
        ...


class ShardKeeper(Protocol):
    """Looks after shards while a stream runs."""

    def decoded(self, shards: list[str], *, ends_pass: bool) -> None:
        """Note that a micro batch from these shards is decoded, and whether it is the last of an epoch or evaluation."""
        ...

    def close(self) -> None:
        """Stop all work in the background."""
        ...


def read_shard_facts(root: str) -> dict[str, ShardFacts]:
    """Return the facts of every shard of a dataset by name. Raises DatasetError."""
    return {shard["name"]: ShardFacts(shard["size_bytes"], shard["sha256"]) for shard in read_facts(root)["shards"]}


class LocalShards:
    """Shards on this machine's file system, read where they lie."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._files: OrderedDict[str, int] = OrderedDict()

    def read(self, shard: str, offset_bytes: int, length_bytes: int) -> bytes:
        """Return bytes of a shard, fewer at its end. Raises DatasetError where there is no such file."""
        # pread carries its own offset, so processes that share a descriptor after a fork do not disturb each other.
        return os.pread(self._descriptor(shard), length_bytes, offset_bytes)

    def forget(self, shard: str) -> bool:
        """Return False: these are the shards themselves."""
        return False

    def close(self) -> None:
        """Close all files; reading opens them again."""
        while self._files:
            os.close(self._files.popitem()[1])

    def _descriptor(self, shard: str) -> int:
        descriptor = self._files.get(shard)
        if descriptor is None:
            descriptor = _open(storage.local_path(storage.join(self._root, shard)), self._root)
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
    """Bytes of shards, local or remote, one range at a time. Keeps nothing open, so threads may share it."""

    def __init__(self, root: str) -> None:
        self._root = root

    def read(self, shard: str, offset_bytes: int, length_bytes: int) -> bytes:
        """Return bytes of a shard. Raises StorageError, also where it ends before them."""
        return storage.read_bytes(storage.join(self._root, shard), offset_bytes, length_bytes)

    def forget(self, shard: str) -> bool:
        """Return that there is no other copy to read from."""
        return False


def _open(path: Path, root: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise DatasetError(f"cannot open shard {path}: {error.strerror}; run `rayprob verify {root}`") from error
