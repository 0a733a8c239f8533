"""A folder on this node that caches remote shards: only whole shards, within a byte budget, shared by processes.

Every promise relies on `flock`, which the system releases when a process dies. The process that fetches a shard holds its
`.lock`, those that will need it hold a shared lock on the shard itself, and those that count and evict hold the folder's lock.
"""

import fcntl
import hashlib
import logging
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rayprob.data.manifest.shard_list import missing_shard, shard_uri
from rayprob.errors import SpecError, StorageError
from rayprob.files import storage
from rayprob.loader.shards import ShardFacts

log = logging.getLogger(__name__)
T = TypeVar("T")
K = TypeVar("K")

CHUNK_BYTES = 8 * 2**20
MAX_BACKOFF_S = 30.0


@dataclass(frozen=True)
class ShardCache:
    """The shards of one remote dataset through a cache folder; a ShardSource."""

    root: str
    fingerprint: str
    facts: Mapping[str, ShardFacts]
    folder: Path
    budget_bytes: int
    retries: int
    backoff_s: float = 0.5

    def __post_init__(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"cannot make the cache folder {self.folder}: {error.strerror}; set cache_dir to a folder on this node"
            ) from error

    def read(self, shard: str, offset_bytes: int, length_bytes: int) -> bytes:
        """Return bytes of a shard, fetching the whole shard if it is not cached. Raises StorageError, DatasetError.

        If the whole budget is in use, only these bytes are read from the remote shard.
        """
        descriptor = self.open(shard)
        if descriptor is None:
            uri = shard_uri(self.root, shard)
            return self._retried(shard, lambda: storage.read_bytes(uri, offset_bytes, length_bytes))
        try:
            os.utime(descriptor)  # eviction is by time of last use
            return os.pread(descriptor, length_bytes, offset_bytes)
        finally:
            os.close(descriptor)

    def open(self, shard: str) -> int | None:
        """Return a descriptor of the whole shard that protects it from eviction until closed; None if there is no space."""
        descriptor = self._open_cached(shard)
        return self._fetch(shard) if descriptor is None else descriptor

    def forget(self, shard: str) -> bool:
        """Remove a cached shard, even one in use (its readers keep their open file). Return whether it was cached."""
        try:
            self.path(shard).unlink()
        except FileNotFoundError:
            return False
        log.warning("the cached copy %s was damaged; fetching it again", self.path(shard))
        return True

    def path(self, shard: str) -> Path:
        """Return the path of the shard when it is cached."""
        # A shard in place has a name with folders in it, and any suffix.
        is_file_name = "/" not in shard and shard.endswith(".tar")
        file = shard if is_file_name else f"{hashlib.sha256(shard.encode()).hexdigest()[:32]}.tar"
        return self.folder / f"{self.fingerprint}-{file}"

    def _open_cached(self, shard: str) -> int | None:
        try:
            descriptor = os.open(self.path(shard), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if os.fstat(descriptor).st_nlink == 0:  # evicted between the two calls
            os.close(descriptor)
            return None
        return descriptor

    def _fetch(self, shard: str) -> int | None:
        """Return a descriptor of the shard, fetched by this process or another; None if there is no space."""
        part = self.path(shard).with_suffix(".part")
        with _locked(self.path(shard).with_suffix(".lock")):
            descriptor = self._open_cached(shard)
            if descriptor is None and self._reserve(part, self.facts[shard].size_bytes):
                return self._fetch_into(part, shard)
        return descriptor

    def _fetch_into(self, part: Path, shard: str) -> int:
        uri = shard_uri(self.root, shard)
        try:
            self._retried(shard, lambda: _download(uri, part, self.facts[shard]))
            # Locked before others can see it, so that it is not evicted before it is read.
            descriptor = os.open(part, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            with self._counting():
                os.replace(part, self.path(shard))
        except BaseException:
            with self._counting():
                part.unlink(missing_ok=True)
            raise
        return descriptor

    def _reserve(self, part: Path, size_bytes: int) -> bool:
        """Reserve `size_bytes` of the budget for the file `part`, evicting the least recently used; False if all is in use."""
        with self._counting():
            if not _make_room_in(self.folder, self.budget_bytes - size_bytes):
                return False
            try:
                with open(part, "wb") as file:
                    os.posix_fallocate(file.fileno(), 0, size_bytes)
            except OSError as error:
                part.unlink(missing_ok=True)
                raise StorageError(
                    f"cannot reserve {size_bytes:,} bytes in the cache {self.folder}: {error.strerror}; "
                    f"lower cache_bytes or set cache_dir to a larger disk"
                ) from error
        return True

    def _counting(self) -> AbstractContextManager[None]:
        """Return the lock for counting, adding and removing files."""
        return _locked(self.folder / "cache.lock")

    def _retried(self, shard: str, attempt: Callable[[], T]) -> T:
        uri = shard_uri(self.root, shard)
        for count in range(self.retries + 1):
            try:
                return attempt()
            except (StorageError, OSError, pa.ArrowException) as error:
                if storage.is_missing(error):
                    raise missing_shard(self.root, shard, "it does not exist") from error
                last = error
            if count < self.retries:
                log.info("attempt %d to fetch %s failed: %s", count + 1, uri, last)
                time.sleep(pause_s(count, self.backoff_s, random.SystemRandom()))
        raise StorageError(
            f"cannot fetch {uri}: {self.retries + 1} attempts failed; the last error: {' '.join(str(last).split())}; "
            f"check network and credentials, or raise retries"
        ) from last


def check_budget(cache: ShardCache, size_bytes_S: NDArray[np.int64], *, at_once: int, why: str) -> None:
    """Raise SpecError if the budget cannot hold `at_once` of these shards at the same time; `why` explains the need."""
    needed_bytes = int(np.sort(size_bytes_S)[::-1][:at_once].sum())
    if cache.budget_bytes < needed_bytes:
        raise SpecError(
            f"cache_bytes {cache.budget_bytes:,} cannot hold the shards that this node needs at once ({why}); "
            f"set at least {needed_bytes:,}, or lower lanes or window_shards"
        )


@dataclass(frozen=True)
class Kept(Generic[K]):
    """A shard that a cache holds or is fetching."""

    shard: K
    size_bytes: int
    last_used: float


def make_room(kept: Sequence[Kept[K]], allowed_bytes: int, evict: Callable[[K], bool]) -> bool:
    """Evict the least recently used until the rest takes at most `allowed_bytes`; `evict` may refuse shards in use.

    Return False if the rest is in use and takes more.
    """
    used_bytes = sum(one.size_bytes for one in kept)
    for one in sorted(kept, key=lambda one: one.last_used):
        if used_bytes <= allowed_bytes:
            break
        if evict(one.shard):
            used_bytes -= one.size_bytes
    return used_bytes <= allowed_bytes


def pause_s(failures: int, base_s: float, chance: random.Random) -> float:
    """Return how long to wait after a failed download with `failures` earlier failures."""
    # Jitter, so that ranks that failed together do not retry together.
    return min(MAX_BACKOFF_S, base_s * 2.0**failures) * chance.uniform(0.5, 1.0)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file `path`, waiting for it."""
    with open(path, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _download(uri: str, part: Path, facts: ShardFacts) -> None:
    """Write a remote shard to `part`. Raises StorageError if its length or sha256 differs."""
    digest, found_bytes = hashlib.sha256(), 0
    # No fsync: a copy damaged by a crash of this machine is detected by the crc of its samples, and fetched again.
    with storage.open_input(uri) as source, open(part, "r+b") as target:
        while chunk := source.read(CHUNK_BYTES):
            digest.update(chunk)
            found_bytes += target.write(chunk)
    if found_bytes != facts.size_bytes:
        raise StorageError(f"its body has {found_bytes:,} bytes, but {facts.size_bytes:,} in dataset.json")
    if digest.hexdigest() != facts.sha256:
        raise StorageError(f"its body has sha256 {digest.hexdigest()[:16]}..., but {facts.sha256[:16]}... in dataset.json")


def _make_room_in(folder: Path, allowed_bytes: int) -> bool:
    for part in folder.glob("*.part"):
        _remove_stale(part)
    files = [(path, path.stat()) for path in folder.iterdir() if path.suffix in (".tar", ".part")]
    return make_room(
        [Kept(path, stat.st_size, stat.st_mtime_ns) for path, stat in files],
        allowed_bytes,
        lambda path: path.suffix == ".tar" and _evict(path),
    )


def _remove_stale(part: Path) -> None:
    """Remove what a process that died while fetching left: no process holds its lock."""
    with open(part.with_suffix(".lock"), "wb") as file, suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        part.unlink(missing_ok=True)


def _evict(path: Path) -> bool:
    """Remove a shard unless it is in use; return whether it was removed."""
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        path.unlink()
    return True
