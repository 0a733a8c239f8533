"""Tables of labels: a column per label, a column that lists labels, or a row per image and label."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from rayprob.arrays import Ints
from rayprob.data.sources.cells import State, Values, as_list, as_text
from rayprob.data.sources.faults import label_space
from rayprob.data.sources.groups import group_of
from rayprob.data.sources.label_list import distinct as distinct_names
from rayprob.data.sources.label_list import read_names
from rayprob.data.sources.parts import in_order, reads_elsewhere
from rayprob.data.sources.rows import Stated
from rayprob.data.sources.spec import Source
from rayprob.data.sources.statements import PRESENT, STATES, Pairs, Statements, image_rows, sorted_pairs
from rayprob.data.sources.table_arrays import Column, NotPlain, TableRows, cells_of, distinct, expanded, listed, mapped, rows_of
from rayprob.data.sources.table_file import Column as TableColumn
from rayprob.data.sources.table_file import TableFile, open_table, tables_of
from rayprob.errors import SourceError
from rayprob.files import uris
from rayprob.registry import unknown

NO_NAME = "a row without an image name"
CONTRADICTED = "a statement that another row contradicts, which makes the label unknown"
FORMS = ("one_hot", "lists", "label")


class TableSource(Source):
    """Labels in CSV, TSV, text separated by blanks, JSON lines or Parquet. Give one of `one_hot`, `lists` and `label`.

    A column is given by its name or its number from 1, several columns also by a range such as `Edema..Fracture` or `6..`.
    """

    later_keys: ClassVar[frozenset[str]] = Source.later_keys | {"group"}

    annotations: str | list[str]
    """The table, or several: .csv, .tsv, .txt (separated by blanks), .jsonl or .parquet; a folder or a pattern of them, such as
    labels/part-*.parquet, is one table in parts.
    """
    image: str | int = 1
    """The column with the image's file name, with or without its suffix."""
    one_hot: str | int | list[str | int] | None = None
    """The columns of labels: each cell states whether the label is present."""
    lists: str | int | list[str | int] | None = None
    """The column that lists the labels present, or several columns with one label each."""
    separator: str | None = None
    """The separator of labels in a cell of `lists`; null for a list, or a single label."""
    label: str | int | None = None
    """The column of the label, in a table with a row per image and label."""
    value: str | int | None = None
    """With `label`, the column that states whether the label is present; null if every listed label is."""
    values: dict[str, State] = Field(default={})
    """What values mean: present, absent or unknown. By default 1 and true are present, 0 and false absent, blank is unknown."""
    present_from: float | None = None
    """Other numbers of at least this are present; for a classifier's scores."""
    absent_to: float | None = None
    """Other numbers of at most this are absent; between the two, labels are unknown."""
    no_label: list[str] = Field(default=[])
    """Words that mean the empty set, such as No Finding."""
    names: str | list[str] | dict[str, str] | None = None
    """Names for labels that are codes or numbers, and their order: a file, a list or a mapping."""
    group: str | int | None = None
    """A column, such as Patient ID: images with the same value share a split."""
    where: dict[str, str | int | list[str | int]] = Field(default={})
    """Read only rows with one of these values in a column, such as {split: train}."""
    header: bool = True
    """Whether the first row of CSV or text names the columns."""
    delimiter: str | None = None
    """The character between cells, or `blanks`; null for the usual one of the file's suffix."""

    @model_validator(mode="after")
    def _has_one_form(self) -> Self:
        given = [form for form in FORMS if getattr(self, form) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ValueError(f"give one of one_hot, lists and label, the columns of the labels; found {found}")
        if self.value is not None and self.label is None:
            raise ValueError("value requires label: it states for each row whether that label is present")
        return self

    @property
    def described(self) -> str:
        """Where the labels come from, for messages."""
        return ", ".join(self.tables)

    @property
    def tables(self) -> list[str]:
        """The files, folders and patterns."""
        return [self.annotations] if isinstance(self.annotations, str) else self.annotations


def read(source: TableSource) -> Stated:
    """Return the labels in a table, in the order of their columns or of `names`, else sorted. Raises SourceError."""
    names = None if source.names is None else distinct_names(source.described, read_names(source.names))
    return _Reader(source, names, [uri for given in source.tables for uri in tables_of(given)]).read()


@dataclass(frozen=True)
class TablePart:
    """What a task read of one of several tables: rows of images, or statements whose labels are numbered as in `labels`."""

    batches: list[pa.RecordBatch]
    labels: tuple[str, ...]
    dropped: dict[str, int]


def read_part(source: TableSource, names: dict[str, str] | None, uri: str) -> TablePart:
    """Read one table of a source, by itself. Raises SourceError."""
    reader = _Reader(source, names, [uri])
    if source.one_hot is not None:
        return TablePart([*reader.read().batches], (), reader.dropped)
    reader.gather()
    return TablePart([*reader.statements.batches()], (*reader.statements.number_of,), reader.dropped)


class _Reader:
    """Reads the tables of one source, a batch of rows at a time; in a cluster, several tables are read as a task each.

    A batch of plain cells is read column by column. Any other batch, or one with a cell of unknown meaning, is read row by
    row, which finds the first faulty row.
    """

    def __init__(self, source: TableSource, names: dict[str, str] | None, tables: list[str]) -> None:
        self.source, self.names = source, names
        self.files = [open_table(uri, delimiter=source.delimiter, has_header=source.header) for uri in tables]
        self.values = Values(source.values, source.present_from, source.absent_to)
        self.dropped: dict[str, int] = {}
        self.statements = Statements(lambda row: self._drop(CONTRADICTED), self._refuse_second_group)

    def read(self) -> Stated:
        if self.source.one_hot is not None:
            return self._wide(self.source.one_hot)
        self.gather()
        number_of = self.statements.number_of
        ordered = sorted(number_of) if self.names is None else list(self.names.values())
        column_of = {label: column for column, label in enumerate(ordered)}
        batches = self.statements.images([column_of[label] for label in number_of])
        rest = "absent" if self.source.value is None else "unknown"
        return self._stated(ordered, batches, rest, is_declared=self.names is not None)

    def gather(self) -> None:
        """Add the statements of all tables."""
        for part in self._parts():
            self.statements.extend(part.batches, part.labels)
        for file in () if self._has_parts else self.files:
            self._gather(file)

    @property
    def _has_parts(self) -> bool:
        return len(self.files) > 1 and reads_elsewhere()

    def _parts(self) -> Iterator[TablePart]:
        """Yield what tasks read of each table; nothing if this process reads them."""
        tables = [uris.absolute(file.uri) for file in self.files] if self._has_parts else []
        for part in in_order(partial(read_part, self.source, self.names), tables):
            for reason, count in part.dropped.items():
                self._drop(reason, count)
            yield part

    def _stated(self, names: list[str], batches: Iterator[pa.RecordBatch], rest: Any, *, is_declared: bool) -> Stated:
        return Stated(
            label_space=label_space(self.source.described, names),
            rest=self.source.rest or rest,
            batches=batches,
            images=self.source.images,
            dropped=self.dropped,
            is_declared=is_declared,
        )

    def _wide(self, columns: TableColumn | list[TableColumn]) -> Stated:
        places = [file.places(columns) for file in self.files]
        labels = [
            [self._column_name(file, n, place) for n, place in enumerate(some)]
            for file, some in zip(self.files, places, strict=True)
        ]
        for file, some in zip(self.files, labels, strict=True):
            if some != labels[0]:
                raise SourceError(
                    f"{file.uri} has other label columns than {self.files[0].uri}; give tables with the same ones"
                )
        here = (
            image_rows(rows.names, self._wide_pairs(rows, labels[0]), rows.groups_N)
            for file, some in zip(self.files, places, strict=True)
            for rows in self._rows(file, some)
        )
        batches = chain.from_iterable(part.batches for part in self._parts()) if self._has_parts else here
        return self._stated(labels[0], batches, "absent", is_declared=True)

    def _column_name(self, file: TableFile, number: int, place: int) -> str:
        if file.names[place]:
            return file.names[place] if self.names is None else self._named(file.names[place], file.uri)
        if self.names is None:
            raise SourceError(f"{file.uri} has no header, so its labels have no names; give `names`, a list in their order")
        return self._named(str(number), file.uri)

    def _wide_pairs(self, rows: TableRows, labels: list[str]) -> list[Pairs]:
        """Return the rows and columns of the labels in each state."""
        states_NL = np.empty((len(rows.names), len(labels)), np.int8)
        try:
            for column, cells in enumerate(rows.columns):
                states_NL[:, column] = mapped(rows.plain(cells), lambda cell: self._state(cell, ""))
        except (SourceError, NotPlain):
            for row, cells in enumerate(zip(*map(cells_of, rows.columns), strict=True)):
                where = rows.where(row)
                states_NL[row] = [self._state(cell, f"{where}, {labels[n]!r}") for n, cell in enumerate(cells)]
        found = (np.nonzero(states_NL == state) for state in range(len(STATES)))
        return [(rows_M, columns_M) for rows_M, columns_M in found]

    def _gather(self, file: TableFile) -> None:
        """Add the statements of a table with lists, or with a row per label."""
        source = self.source
        columns = file.places(source.lists) if source.lists is not None else [file.place(source.label)]  # type: ignore[arg-type]
        if source.value is not None:
            columns.append(file.place(source.value))
        for rows in self._rows(file, columns):
            try:
                states_N, pairs = self._at_once(rows)
            except (SourceError, NotPlain):
                states_N, pairs = self._row_by_row(rows)
            self.statements.add(rows.names, states_N, pairs, rows.groups_N)

    def _at_once(self, rows: TableRows) -> tuple[Ints, Pairs]:
        """Return the state of each row, and pairs of row and label number. Raises SourceError and NotPlain."""
        label_columns, states_N = rows.columns, np.full(len(rows.names), PRESENT)
        if self.source.value is not None:
            *label_columns, value = rows.columns
            states_N = mapped(rows.plain(value), lambda cell: self._state(cell, ""))
        found = [self._pairs(rows, column) for column in label_columns]
        return states_N, sorted_pairs(*(np.concatenate(some) for some in zip(*found, strict=True)))

    def _pairs(self, rows: TableRows, column: Column) -> Pairs:
        separator = self.source.separator
        if separator is not None and separator != separator.strip():
            raise NotPlain  # blanks at the ends of a cell are not separators
        items = listed(rows.array(column), separator) if self.source.lists is not None else None
        if items is not None:
            cells, places = distinct(rows.plain(items[0]))
            return expanded(items[1], places, [self._numbers([as_text(cell)], "") for cell in cells])
        cells, places = distinct(rows.plain(column))
        return expanded(np.arange(len(rows.names)), places, [self._numbers(self._codes([cell], ""), "") for cell in cells])

    def _row_by_row(self, rows: TableRows) -> tuple[Ints, Pairs]:
        """Return what `_at_once` does. Raises SourceError for the first row with a fault."""
        states, pairs = [], [(0, 0)][:0]
        for row, cells in enumerate(zip(*map(cells_of, rows.columns), strict=True)):
            where = rows.where(row)
            states.append(PRESENT if self.source.value is None else self._state(cells[-1], where))
            labels = cells if self.source.value is None else cells[:-1]
            pairs += [(row, number) for number in self._numbers(self._codes(labels, where), where)]
        found_M, numbers_M = np.array(pairs, np.int64).reshape(-1, 2).T
        return np.array(states, np.int64), (found_M, numbers_M)

    def _codes(self, cells: Sequence[Any], where: str) -> list[str]:
        if self.source.lists is None:
            return [as_text(cells[0])]
        return [code for cell in cells for code in as_list(cell, self.source.separator, where)]

    def _numbers(self, codes: list[str], where: str) -> list[int]:
        return [self.statements.number(self._named(code, where)) for code in codes if code and code not in self.source.no_label]

    def _state(self, cell: Any, where: str) -> int:
        return STATES.index(self.values.of(cell, where))

    def _named(self, code: str, where: str) -> str:
        if self.names is None:
            return code
        if code not in self.names:
            raise SourceError(f"{where}: {unknown(code, self.names, 'label code')}; add it to `names`")
        return self.names[code]

    def _rows(self, file: TableFile, places: list[int]) -> Iterator[TableRows]:
        """Yield the rows that match `where` and name an image, with the chosen columns."""
        image = file.place(self.source.image)
        filters = [(file.place(column), _texts(allowed)) for column, allowed in self.source.where.items()]
        group = [] if self.source.group is None else [file.place(self.source.group)]
        line = int(self.source.header) + 1
        for columns in file.read([image, *(place for place, _ in filters), *places, *group]):
            names = [cell.strip() if isinstance(cell, str) else as_text(cell) for cell in cells_of(columns[0])]
            taken = np.ones(len(names), dtype=bool)
            for column, (_, allowed) in zip(columns[1:], filters, strict=False):
                taken &= np.array([as_text(cell) in allowed for cell in cells_of(column)], dtype=bool)
            is_named = np.array([*map(bool, names)], dtype=bool)
            if (taken & ~is_named).any():
                self._drop(NO_NAME, int((taken & ~is_named).sum()))
            rows = np.flatnonzero(taken & is_named)
            chosen = [rows_of(column, rows) for column in columns[1 + len(filters) :]]
            groups = map(group_of, cells_of(chosen.pop())) if group else np.zeros(len(rows))
            groups_N = np.fromiter(groups, np.int64, len(rows))
            yield TableRows(file.uri, [names[row] for row in rows.tolist()], rows + line, chosen, groups_N)
            line += len(names)

    def _refuse_second_group(self, name: str) -> None:
        raise SourceError(f"{self.source.described}: {name!a} has two groups in {self.source.group!a}; give each image one")

    def _drop(self, reason: str, count: int = 1) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + count


def _texts(allowed: str | int | list[str | int]) -> set[str]:
    return {*map(as_text, allowed if isinstance(allowed, list) else [allowed])}
