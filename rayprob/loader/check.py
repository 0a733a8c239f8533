"""Checks whole local shards against dataset.json during training; the crc of a sample covers only its image."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from rayprob.data.manifest.shard_list import missing_shard, shard_uri
from rayprob.errors import DatasetError
from rayprob.files import storage
from rayprob.loader.shards import ShardFacts

Identity = tuple[str, int, int]  # path, size, time of the last change: hashed once unless these change

_sound: set[Identity] = set()  # per process, so that a second stream does not hash again


def check_sizes(root: str, shards: Iterable[str], facts: Mapping[str, ShardFacts]) -> None:
    """Raise DatasetError unless each shard exists and has its size in dataset.json."""
    for shard in shards:
        _identity(root, shard, facts[shard])


class LocalCheck:
    """Compares the shards of decoded micro batches with their sha256, in one thread (about 1.4 GB/s); a ShardKeeper."""

    def __init__(self, root: str, facts: Mapping[str, ShardFacts], *, contents: bool) -> None:
        """If `contents` is False, compare nothing."""
        self._root = root
        self._facts = facts
        self._contents = contents
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rayprob-check")
        self._begun: set[str] = set()
        self._running: list[Future[None]] = []

    def decoded(self, shards: list[str], *, ends_pass: bool) -> None:
        """Raise DatasetError for a fault found so far; at the end of a pass, for any fault in a shard that it used."""
        for shard in set(shards) - self._begun if self._contents else ():
            self._begun.add(shard)
            self._running.append(self._thread.submit(self._compare, shard))
        for future in [future for future in self._running if ends_pass or future.done()]:
            future.result()
            self._running.remove(future)

    def close(self) -> None:
        """End the thread; shards not compared yet are skipped."""
        self._thread.shutdown(cancel_futures=True)

    def _compare(self, shard: str) -> None:
        identity = _identity(self._root, shard, self._facts[shard])
        if identity in _sound:
            return
        path, wanted = identity[0], self._facts[shard].sha256
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != wanted:
            raise _changed(self._root, path, f"has sha256 {found[:16]}..., but {wanted[:16]}... in dataset.json")
        _sound.add(identity)


def _identity(root: str, shard: str, facts: ShardFacts) -> Identity:
    path = str(storage.local_path(shard_uri(root, shard)))
    try:
        found = os.stat(path)
    except OSError as error:
        raise missing_shard(root, shard, str(error.strerror)) from error
    if found.st_size != facts.size_bytes:
        raise _changed(root, path, f"has {found.st_size:,} bytes, but {facts.size_bytes:,} in dataset.json")
    return path, found.st_size, found.st_mtime_ns


def _changed(root: str, path: str, how: str) -> DatasetError:
    return DatasetError(
        f"shard {path} {how}; it changed after it was built: run `rayprob verify {root}`, then build the dataset again"
    )
