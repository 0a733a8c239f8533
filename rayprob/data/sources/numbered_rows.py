"""Rows on disk whose labels are numbered by their first use, until all rows are read and each label has a column."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rayprob.data.manifest.columns import numbers, to_array
from rayprob.data.sources.batch_file import BatchFile
from rayprob.data.sources.rows import ROWS, lengths
from rayprob.data.sources.statements import lists_of

LISTS = ("labels", "absent_labels", "unknown_labels")


class NumberedRows:
    """Rows of ROWS, and the names of the labels that occur in them."""

    def __init__(self) -> None:
        self.number_of: dict[str, int] = {}
        self._rows = BatchFile(ROWS)

    def add(self, batch: pa.RecordBatch, names: Sequence[str]) -> None:
        """Add rows whose labels are indices into `names`."""
        self._rows.append(relabelled(batch, [self.number_of.setdefault(name, len(self.number_of)) for name in names]))

    def batches(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows with labels as indices into `names`, which must contain all that occur."""
        column_of = {name: column for column, name in enumerate(names)}
        columns = [column_of[name] for name in self.number_of]
        return (relabelled(batch, columns) for batch in self._rows)


def relabelled(batch: pa.RecordBatch, columns: Sequence[int]) -> pa.RecordBatch:
    """Return rows in which label n is replaced by `columns[n]`, the labels of each row ascending."""
    changed: dict[str, pa.Array] = {}
    for name in LISTS:
        rows_M, columns_M, order_M = _moved(batch.column(name), np.array([*columns, 0], np.int64))
        changed[name] = lists_of((rows_M, columns_M), batch.num_rows)
        areas = batch.column("label_areas_px2")
        if name == "labels" and len(areas.flatten()):
            changed["label_areas_px2"] = pa.ListArray.from_arrays(
                changed[name].offsets, to_array(numbers(areas.flatten())[order_M], pa.float64())
            )
    return pa.RecordBatch.from_arrays([changed.get(name, batch.column(name)) for name in ROWS.names], schema=ROWS)


def _moved(lists: pa.ListArray, columns: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the row and the new column of each value, sorted, and the order that sorts them."""
    rows_M = np.repeat(np.arange(len(lists)), lengths(lists))
    columns_M = columns[numbers(lists.flatten())]
    order_M = np.lexsort((columns_M, rows_M))
    return rows_M, columns_M[order_M], order_M
