"""Parses whole columns of a batch: each distinct cell is parsed once. N rows, D distinct cells."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rayprob.data.manifest.columns import numbers, to_array
from rayprob.data.sources.statements import Pairs

Column: TypeAlias = pa.Array | list[Any]


class NotPlain(Exception):
    """A column whose cells must be parsed one by one."""


@dataclass(frozen=True)
class TableRows:
    """Some rows of a table: for each its image, its number from 1, its cells in the label columns, and its group."""

    uri: str
    names: list[str]
    lines_N: NDArray[np.int64]
    columns: list[Column]
    groups_N: NDArray[np.int64]

    def where(self, row: int) -> str:
        """Return the name of a row in errors."""
        return f"{self.uri}, row {self.lines_N[row]}"

    def array(self, column: Column) -> pa.Array:
        """Return a column that is an array; raises NotPlain for any other."""
        if isinstance(column, list):
            raise NotPlain
        return column

    def plain(self, column: Column) -> pa.Array:
        """Return an array of texts, numbers, booleans or nulls; raises NotPlain for any other column."""
        if not is_plain(self.array(column).type):
            raise NotPlain
        return column


def cells_of(column: Column) -> list[Any]:
    """Return the cells of a column as Python objects."""
    return column if isinstance(column, list) else column.to_pylist()


def rows_of(column: Column, rows: NDArray[np.int64]) -> Column:
    """Return some rows of a column."""
    if isinstance(column, list):
        return [column[row] for row in rows.tolist()]
    return column.take(to_array(rows, pa.int64())) if len(rows) < len(column) else column


def is_plain(kind: pa.DataType) -> bool:
    """Return whether cells of a type are texts, numbers, booleans or null."""
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
    return any(test(kind) for test in (*tests, pa.types.is_null))


def distinct(column: pa.Array) -> tuple[list[Any], NDArray[np.int64]]:
    """Return the distinct cells of a plain column [D], and for each row the index of its cell [N]."""
    if pa.types.is_null(column.type):
        return [None], np.zeros(len(column), np.int64)
    encoded = column.dictionary_encode(null_encoding="encode")
    return encoded.dictionary.to_pylist(), numbers(encoded.indices).astype(np.int64)


def listed(column: pa.Array, separator: str | None) -> tuple[pa.Array, NDArray[np.int64]] | None:
    """Return the items of all lists of a column, and the row of each; None if cells are single items.

    A text with a separator is a list; the separator must not be a blank.
    """
    if pa.types.is_string(column.type) and separator is not None:
        column = pc.split_pattern(column, separator)
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        return None
    return column.flatten(), numbers(pc.list_parent_indices(column)).astype(np.int64)


def expanded(rows: NDArray[np.int64], places: NDArray[np.int64], lists: Sequence[Sequence[int]]) -> Pairs:
    """Pair each row with each value of its list, which `places` names."""
    lengths_D = np.array([len(one) for one in lists], np.int64)
    values_of, starts_D = np.array([*chain.from_iterable(lists)], np.int64), np.cumsum(lengths_D) - lengths_D
    lengths = lengths_D[places]
    into = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.repeat(rows, lengths), values_of[np.repeat(starts_D[places], lengths) + into]


def mapped(column: pa.Array, meaning: Callable[[Any], int]) -> NDArray[np.int64]:
    """Return the meaning of each cell of a plain column [N]; raises what `meaning` raises."""
    cells, places_N = distinct(column)
    meanings_D = np.fromiter(map(meaning, cells), np.int64, len(cells))
    return meanings_D[places_N]
