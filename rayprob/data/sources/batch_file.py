"""Arrow batches that do not fit into memory, in the order in which they were added. N rows."""

import io
import os
import tempfile
import weakref
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rayprob.data.manifest.columns import to_array, whole
from rayprob.errors import StorageError
from rayprob.files import storage

HELD_BYTES = 2**23  # a file stays in memory up to this size
GROUP_BYTES = 2**25  # of rows that are reordered at once
GroupOf = Callable[[int, pa.RecordBatch], NDArray[np.integer[Any]]]  # the group of each row


class BatchFile(Sequence[pa.RecordBatch]):
    """Batches of one schema: in memory while they are few, then in an unnamed file, which vanishes when the process ends."""

    def __init__(self, schema: pa.Schema, folder: str | None = None) -> None:
        self.schema = schema
        self.folder = folder
        self._file = tempfile.SpooledTemporaryFile(HELD_BYTES, dir=folder)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._ends = array("q")  # of each batch, in bytes
        self._row_ends = array("q")

    def append(self, batch: pa.RecordBatch) -> None:
        """Add a batch of the schema. Raises StorageError if the disk is full."""
        content = batch.serialize()
        try:
            self._file.seek(0, io.SEEK_END)
            self._file.write(content)
        except OSError as error:
            raise StorageError(
                f"cannot keep rows in {self.folder or tempfile.gettempdir()} while planning: {error.strerror}; free some space "
                "there, or set TMPDIR"
            ) from error
        self._ends.append(self.size_bytes + content.size)
        self._row_ends.append(self.num_rows + batch.num_rows)

    @property
    def size_bytes(self) -> int:
        """The size of all batches in bytes."""
        return self._ends[-1] if self._ends else 0

    @property
    def num_rows(self) -> int:
        """The number of rows of all batches."""
        return self._row_ends[-1] if self._row_ends else 0

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, place: int) -> pa.RecordBatch: ...
    @overload
    def __getitem__(self, place: slice) -> list[pa.RecordBatch]: ...
    def __getitem__(self, place: int | slice) -> pa.RecordBatch | list[pa.RecordBatch]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        place = range(len(self))[place]
        start, end = self._ends[place - 1] if place else 0, self._ends[place]
        self._file.seek(start)
        return pa.ipc.read_record_batch(pa.py_buffer(self._file.read(end - start)), self.schema)

    def row(self, row: int) -> tuple[pa.RecordBatch, int]:
        """Return the batch that contains a row, and the row's place in it."""
        place = bisect_right(self._row_ends, row)
        return self[place], row - (self._row_ends[place - 1] if place else 0)

    def with_starts(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield each batch with the number of its first row."""
        for place, batch in enumerate(self):
            yield self._row_ends[place] - batch.num_rows, batch


def scratch_folder(root: str) -> str | None:
    """Return the folder for rows while a dataset is planned: on the dataset's disk, or the system's temporary one for a URI."""
    if not storage.is_local(root):
        return None
    folder = storage.local_path(root).absolute()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return str(existing) if existing.is_dir() and os.access(existing, os.W_OK) else None


def joined(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> pa.RecordBatch:
    """Return one batch of all rows."""
    table = pa.Table.from_batches(batches, schema=schema)
    return pa.RecordBatch.from_arrays([whole(column) for column in table.columns], schema=schema)


def taken(batch: pa.RecordBatch, rows: NDArray[np.int64]) -> pa.RecordBatch:
    """Return the given rows of a batch."""
    return batch.take(to_array(rows, pa.int64()))


def arranged(batches: BatchFile, order: NDArray[np.int64], ends: Sequence[int]) -> BatchFile:
    """Return the rows in another order, in batches that end at `ends`.

    The first pass distributes them to groups that fit into memory, the second sorts each group. Each row is read and written
    twice, always sequentially.
    """
    num_groups = min(-(-batches.size_bytes // GROUP_BYTES) or 1, len(ends))
    cuts = [ends[len(ends) * (group + 1) // num_groups - 1] for group in range(num_groups)]
    group_N = np.full(batches.num_rows, num_groups, dtype=np.int32)  # rows that `order` leaves out are in no group
    for group, (start, end) in enumerate(zip([0, *cuts], cuts, strict=False)):
        group_N[order[start:end]] = group
    pieces, pieces_of = dealt(batches, lambda first, batch: group_N[first : first + batch.num_rows], num_groups)
    found = BatchFile(batches.schema, batches.folder)
    start = 0
    for places, cut in zip(pieces_of, cuts, strict=True):
        group_rows = joined((pieces[place] for place in places), batches.schema)
        rank = np.argsort(np.argsort(order[start:cut]))  # within the group, rows are in the order of the source
        first = start
        for end in ends[bisect_right(ends, start) : bisect_right(ends, cut)]:
            found.append(taken(group_rows, rank[first - start : end - start]))
            first = end
        start = cut
    return found


def dealt(batches: BatchFile, group_of: GroupOf, num_groups: int) -> tuple[BatchFile, list[list[int]]]:
    """Return the rows in pieces of one group each, and the pieces of each group in the order of the rows.

    `group_of` takes the number of a batch's first row and the batch. Rows of groups from `num_groups` on are left out.
    """
    pieces = BatchFile(batches.schema, batches.folder)
    pieces_of: list[list[int]] = [[] for _ in range(num_groups)]
    for first, batch in batches.with_starts():
        groups_n = group_of(first, batch)
        by_group = taken(batch, np.argsort(groups_n, kind="stable"))
        place = 0
        for group, length in enumerate(np.bincount(groups_n, minlength=num_groups)[:num_groups].tolist()):
            if length:
                pieces_of[group].append(len(pieces))
                pieces.append(by_group.slice(place, length))
            place += length
    return pieces, pieces_of
