"""A process's cache of a manifest: the rows of the shards that it needs now, and of some of their neighbours."""

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayprob.data.manifest.columns import Ragged, numbers
from rayprob.data.manifest.parts import ONE_FILE_ROWS, Parts

COLUMNS = ("sample_id", "key", "offset_bytes", "size_bytes", "crc32", "labels", "unknown_labels")
LEAST_NEEDED_ROWS = 2**17
THREADS = 4


@dataclass(frozen=True, eq=False)
class ShardRows:
    """The rows of one shard, n of them."""

    sample_ids_n: NDArray[np.int64]
    keys: Ragged
    offset_bytes_n: NDArray[np.int64]
    size_bytes_n: NDArray[np.int64]
    crc32_n: NDArray[np.uint32]
    labels: Ragged
    unknown_labels: Ragged
    absent_labels: Ragged | None = None  # None: no row of the dataset lists absent labels

    def __len__(self) -> int:
        return len(self.sample_ids_n)

    def copy_of(self, first: int, end: int) -> "ShardRows":
        """Return the rows from `first` on and before `end`, in memory of their own."""
        return ShardRows(
            self.sample_ids_n[first:end].copy(),
            self.keys.copy_of(first, end),
            self.offset_bytes_n[first:end].copy(),
            self.size_bytes_n[first:end].copy(),
            self.crc32_n[first:end].copy(),
            self.labels.copy_of(first, end),
            self.unknown_labels.copy_of(first, end),
            self.absent_labels.copy_of(first, end) if self.absent_labels else None,
        )


class HeldRows:
    """Reads the rows of a manifest by shard and caches some; threads may share it, and pickling leaves out the cache.

    A part contains more shards than the requested one. Requested shards stay in the cache up to `needed_rows` rows, the others
    while they are among the last `beside_rows`. So a manifest in one file stays in memory as a whole, and of a large one that
    many ranks read in different places only little does.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._needed_rows, self._beside_rows = LEAST_NEEDED_ROWS, max(ONE_FILE_ROWS, parts.largest_rows())
        self._start()

    def _start(self) -> None:
        self._needed, self._beside = _Recent(), _Recent()
        self._wanted: set[int] = set()
        self._coming: dict[int, Future[dict[int, ShardRows]]] = {}
        self._lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return {"parts": self.parts, "_needed_rows": self._needed_rows, "_beside_rows": self._beside_rows}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def keep(self, num_rows: int) -> None:
        """Cache at least `num_rows` requested rows."""
        self._needed_rows = max(self._needed_rows, num_rows)

    def want(self, shards: Iterable[int]) -> None:
        """Read the rows of shards in the background; `of` then returns them, or raises the error."""
        with self._locked():
            for shard in shards:
                if self._found(shard) is None:
                    self._wanted.add(shard)
                    self._asked(self.parts.of(shard))

    def of(self, shard: int) -> ShardRows:
        """Return the rows of a shard. Raises DatasetError if they cannot be read or were changed."""
        with self._locked():
            rows = self._found(shard)
            if rows is not None:
                return rows
            self._wanted.add(shard)
            coming = self._asked(self.parts.of(shard))
        return coming.result()[shard]

    def _locked(self) -> threading.Lock:
        # A fork copies a lock that another thread may hold, but not that thread.
        if self._process != os.getpid():
            self._start()
        return self._lock

    def _found(self, shard: int) -> ShardRows | None:
        rows = self._needed.get(shard)
        if rows is None and (rows := self._beside.pop(shard)) is not None:
            self._need(shard, rows)
        return rows

    def _need(self, shard: int, rows: ShardRows) -> None:
        self._needed.put(shard, rows)
        for old, old_rows in self._needed.past(self._needed_rows):
            self._put_beside(old, old_rows)

    def _put_beside(self, shard: int, rows: ShardRows) -> None:
        self._beside.put(shard, rows)
        self._beside.past(self._beside_rows)

    def _asked(self, part: int) -> Future[dict[int, ShardRows]]:
        if part not in self._coming:
            self._threads = self._threads or ThreadPoolExecutor(THREADS, thread_name_prefix="rayprob-manifest")
            self._coming[part] = self._threads.submit(self._read, part)
        return self._coming[part]

    def _read(self, part: int) -> dict[int, ShardRows]:
        try:
            read = read_rows(self.parts, part)
        except BaseException:
            with self._lock:
                del self._coming[part]
            raise
        with self._lock:
            del self._coming[part]
            for shard, rows in read.items():
                (self._need if shard in self._wanted else self._put_beside)(shard, rows)
            self._wanted -= read.keys()
        return read


def read_rows(parts: Parts, part: int) -> dict[int, ShardRows]:
    """Return the rows of every shard of a part. Raises DatasetError."""
    absent = ("absent_labels",) * ("absent_labels" in parts.schema.names)
    table = parts.read(part, (*COLUMNS, *absent))
    rows = ShardRows(
        sample_ids_n=numbers(table["sample_id"]),
        keys=Ragged.from_strings(table["key"]),
        offset_bytes_n=numbers(table["offset_bytes"]),
        size_bytes_n=numbers(table["size_bytes"]),
        crc32_n=numbers(table["crc32"]),
        labels=Ragged.from_column(table["labels"]),
        unknown_labels=Ragged.from_column(table["unknown_labels"]),
        absent_labels=Ragged.from_column(table["absent_labels"]) if absent else None,
    )
    shards = parts.shards_of(part)
    ends = np.cumsum(parts.shards.samples_S[shards.start : shards.stop]).tolist()
    # A view would keep all rows of the part in memory while one of its shards is needed.
    return {shard: rows.copy_of(first, end) for shard, first, end in zip(shards, [0, *ends], ends, strict=False)}


class _Recent:
    """Rows by shard, the most recently used at the end."""

    def __init__(self) -> None:
        self._rows: OrderedDict[int, ShardRows] = OrderedDict()
        self._count = 0

    def get(self, shard: int) -> ShardRows | None:
        if shard not in self._rows:
            return None
        self._rows.move_to_end(shard)
        return self._rows[shard]

    def put(self, shard: int, rows: ShardRows) -> None:
        self.pop(shard)
        self._rows[shard] = rows
        self._count += len(rows)

    def pop(self, shard: int) -> ShardRows | None:
        rows = self._rows.pop(shard, None)
        self._count -= len(rows) if rows is not None else 0
        return rows

    def past(self, num_rows: int) -> list[tuple[int, ShardRows]]:
        """Discard the least recently used shards until at most `num_rows` rows or one shard are left; return the discarded."""
        gone = []
        while self._count > num_rows and len(self._rows) > 1:
            shard, rows = self._rows.popitem(last=False)
            self._count -= len(rows)
            gone.append((shard, rows))
        return gone
