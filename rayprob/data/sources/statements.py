"""The statements of a table's rows about images, on disk row by row, and merged if several rows are of one image."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rayprob.data.manifest.columns import numbers, to_array
from rayprob.data.sources.batch_file import GROUP_BYTES, BatchFile, arranged, dealt, joined
from rayprob.data.sources.cells import State, stem
from rayprob.data.sources.faults import normalised
from rayprob.data.sources.rows import LABELS, ROWS, lengths, nothing, values
from rayprob.data.sources.sample_ids import filled, hashes_of, repeated
from rayprob.images.kinds import IMAGE_SUFFIXES

STATES: tuple[State, ...] = ("present", "absent", "unknown")  # in the order of their numbers
PRESENT, ABSENT, UNKNOWN = range(3)
STATEMENTS = pa.schema(
    [("name", pa.string()), ("row", pa.int64()), ("state", pa.int64()), ("labels", LABELS), ("group", pa.int64())]
)
IMAGES_ROWS = 2**14
Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]  # rows, and a value for each: a list of values per row


class Statements:
    """One statement per row: an image, a state, and the labels with that state, numbered in the order of their first use."""

    def __init__(self, contradicted: Callable[[int], None], second_group: Callable[[str], None]) -> None:
        self.number_of: dict[str, int] = {}
        self._rows = BatchFile(STATEMENTS)
        self._contradicted = contradicted  # called with the row
        self._second_group = second_group  # called with the name of an image that is in two groups

    def number(self, label: str) -> int:
        """Return the number of a label."""
        return self.number_of.setdefault(label, len(self.number_of))

    def add(self, names: list[str], states_N: NDArray[np.int64], labels: Pairs, groups_N: NDArray[np.int64]) -> None:
        """Add rows of a table."""
        if not names:
            return
        first = self._rows.num_rows
        row_numbers, states, groups = (
            to_array(some, pa.int64()) for some in (np.arange(first, first + len(names)), states_N, groups_N)
        )
        columns = [to_array(names, pa.string()), row_numbers, states, lists_of(labels, len(names)), groups]
        self._rows.append(pa.RecordBatch.from_arrays(columns, schema=STATEMENTS))

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the statements added so far, as batches of STATEMENTS."""
        return iter(self._rows)

    def extend(self, batches: Iterable[pa.RecordBatch], labels: Sequence[str]) -> None:
        """Add statements of others, whose labels are numbered as in `labels`."""
        numbers_D = np.array([*map(self.number, labels), 0], np.int64)
        for batch in batches:
            lists = batch.column("labels")
            rows_M = np.repeat(np.arange(batch.num_rows), lengths(lists))
            pairs = rows_M, numbers_D[numbers(lists.flatten())]
            self.add(batch.column("name").to_pylist(), numbers(batch.column("state")), pairs, numbers(batch.column("group")))

    def images(self, column_of: Sequence[int]) -> Iterator[pa.RecordBatch]:
        """Yield rows of ROWS, one per image in the order of first statements; label n becomes column `column_of[n]`."""
        columns = np.array([*column_of, 0], np.int64)
        names = (batch.column("name").to_pylist() for batch in self._rows)
        hashes_N = filled(self._rows.num_rows, map(hashes_of, names))
        if not len(repeated(hashes_N)):
            yield from (_unique(batch, columns) for batch in self._rows)
            return
        num_groups = self._rows.size_bytes // GROUP_BYTES + 1
        group_N = (hashes_N % num_groups).astype(np.int32)
        del hashes_N
        merged, firsts = BatchFile(ROWS), []
        for batch in _groups(self._rows, group_N, num_groups):
            for first_N, rows in self._merged(batch, columns):
                firsts.append(first_N)
                merged.append(rows)
        order = np.argsort(np.concatenate(firsts))
        yield from arranged(merged, order, [*range(IMAGES_ROWS, len(order), IMAGES_ROWS), len(order)])

    def _merged(self, batch: pa.RecordBatch, columns: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], pa.RecordBatch]]:
        """Yield images whose statements are all in one batch, and the row of each one's first statement."""
        first_of: dict[str, int] = {}
        states_of: dict[str, dict[int, int]] = {}
        group_of: dict[str, int] = {}
        for name, row, state, labels, group in zip(*map(values, batch.columns), strict=True):
            first_of.setdefault(name, row)
            if group_of.setdefault(name, group) != group:
                self._second_group(name)
            states = states_of.setdefault(name, {})
            for label in labels:
                self._state(states, label, state, row)
        firsts = np.array([*first_of.values()], np.int64)
        names, groups_N = [*states_of], np.array([*group_of.values()], np.int64)
        for start in range(0, len(names), IMAGES_ROWS):
            some = names[start : start + IMAGES_ROWS]
            triples = [(row, label, state) for row, name in enumerate(some) for label, state in states_of[name].items()]
            rows_M, labels_M, states_M = np.array(triples, np.int64).reshape(-1, 3).T
            pairs = by_state(rows_M, columns[labels_M], states_M)
            end = start + len(some)
            yield firsts[start:end], image_rows(some, pairs, groups_N[start:end])

    def _state(self, states: dict[int, int], label: int, state: int, row: int) -> None:
        before = states.setdefault(label, state)
        if before == UNKNOWN:
            states[label] = state
        elif state not in (before, UNKNOWN):
            states[label] = UNKNOWN
            self._contradicted(row)


def image_rows(names: list[str], labels: Sequence[Pairs], groups_N: NDArray[np.int64]) -> pa.RecordBatch:
    """Return rows of ROWS for images of these names, with the pairs of row and column of each of STATES, sorted."""
    file_names = [normalised(name) for name in names]
    columns = {"key": to_array([stem(name, IMAGE_SUFFIXES) for name in file_names], pa.string())}
    columns["file_name"] = to_array(file_names, pa.string())
    columns["group"] = to_array(groups_N, pa.int64())
    for state, pairs in zip(STATES, labels, strict=True):
        columns["labels" if state == "present" else f"{state}_labels"] = lists_of(pairs, len(names))
    arrays = [columns[field.name] if field.name in columns else nothing(field.type, len(names)) for field in ROWS]
    return pa.RecordBatch.from_arrays(arrays, schema=ROWS)


def by_state(rows_M: NDArray[np.int64], columns_M: NDArray[np.int64], states_M: NDArray[np.int64]) -> list[Pairs]:
    """Return the sorted pairs of row and column of each state, each pair once."""
    width = int(columns_M.max(initial=0)) + 1
    found = []
    for state in range(len(STATES)):
        is_state = states_M == state
        distinct = np.unique(rows_M[is_state] * width + columns_M[is_state])
        found.append((distinct // width, distinct % width))
    return found


def sorted_pairs(rows_M: NDArray[np.int64], values_M: NDArray[np.int64]) -> Pairs:
    """Return pairs sorted by row, and within a row in the given order."""
    order = np.argsort(rows_M, kind="stable")
    return rows_M[order], values_M[order]


def lists_of(pairs: Pairs, num_rows: int) -> pa.Array:
    """Return the lists of the values of each row, from pairs that are sorted by row."""
    rows, found = pairs
    starts = np.searchsorted(rows, np.arange(num_rows + 1))
    return pa.ListArray.from_arrays(to_array(starts, pa.int32()), to_array(found, pa.int32()))


def _unique(batch: pa.RecordBatch, columns: NDArray[np.int64]) -> pa.RecordBatch:
    """Return the images of statements, if no two are of the same image."""
    labels = batch.column("labels")
    rows_M = np.repeat(np.arange(batch.num_rows), lengths(labels))
    states_M = numbers(batch.column("state"))[rows_M]
    pairs = by_state(rows_M, columns[numbers(labels.flatten())], states_M)
    return image_rows(batch.column("name").to_pylist(), pairs, numbers(batch.column("group")))


def _groups(rows: BatchFile, group_N: NDArray[np.int32], num_groups: int) -> Iterator[pa.RecordBatch]:
    pieces, pieces_of = dealt(rows, lambda first, batch: group_N[first : first + batch.num_rows], num_groups)
    for places in pieces_of:
        if places:
            yield joined((pieces[place] for place in places), rows.schema)
