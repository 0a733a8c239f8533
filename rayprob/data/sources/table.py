"""Tables of labels: a column per label, a column that lists labels, or a row per image and label."""

from collections.abc import Iterator, Mapping
from typing import Any, Self

from pydantic import Field, model_validator

from rayprob.data.sources.cells import State, Values, as_list, as_text, stem
from rayprob.data.sources.faults import label_space, normalised
from rayprob.data.sources.label_list import distinct, read_names
from rayprob.data.sources.rows import ImageRow, Stated, batches_of
from rayprob.data.sources.spec import Source
from rayprob.data.sources.table_file import Cells, Column, TableFile, open_table
from rayprob.errors import SourceError
from rayprob.images.kinds import IMAGE_SUFFIXES
from rayprob.registry import unknown

NO_NAME = "a row without an image name"
CONTRADICTED = "a statement that another row contradicts, which makes the label unknown"
FORMS = ("one_hot", "lists", "label")


class TableSource(Source):
    """Labels in CSV, TSV, text separated by blanks, JSON lines or Parquet. Give one of `one_hot`, `lists` and `label`.

    A column is given by its name, by its number from 1, or, where several are, by a range such as `Edema..Fracture` or `6..`.
    """

    annotations: str | list[str]
    """The table, or several: .csv, .tsv, .txt (separated by blanks), .jsonl or .parquet."""
    image: str | int = 1
    """The column with the image's file name, with or without its suffix."""
    one_hot: str | int | list[str | int] | None = None
    """The columns of labels: each cell says whether the label is present."""
    lists: str | int | list[str | int] | None = None
    """The column that lists the labels present, or several that hold one each."""
    separator: str | None = None
    """What stands between the labels of a cell of `lists`; null for a list, or a single label."""
    label: str | int | None = None
    """The column with one label, of a table with a row per image and label."""
    value: str | int | None = None
    """Beside `label`, the column that says whether it is present; without one, it is."""
    values: dict[str, State] = Field(default={})
    """What values mean: present, absent or unknown. 1 and true are present, 0 and false absent, blank is unknown."""
    present_from: float | None = None
    """Other numbers from here on are present; for scores of a classifier."""
    absent_to: float | None = None
    """Other numbers up to here are absent; between the two, labels are unknown."""
    no_label: list[str] = Field(default=[])
    """Words that stand for the empty set, such as No Finding."""
    names: str | list[str] | dict[str, str] | None = None
    """Names for the codes or numbers that stand for labels, and their order: a file, a list or a mapping."""
    where: dict[str, str | int | list[str | int]] = Field(default={})
    """Only rows that have one of these values in a column, such as {split: train}."""
    header: bool = True
    """Whether the first row of CSV or text has the names of the columns."""
    delimiter: str | None = None
    """The sign between cells, or `blanks`; null goes by the file's suffix."""

    @model_validator(mode="after")
    def _has_one_form(self) -> Self:
        given = [form for form in FORMS if getattr(self, form) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ValueError(f"give one of one_hot, lists and label, the columns that hold the labels; found {found}")
        if self.value is not None and self.label is None:
            raise ValueError("value goes with label: it says for each row whether that label is present")
        return self

    @property
    def described(self) -> str:
        """Where the labels come from, for messages."""
        return ", ".join(self.tables)

    @property
    def tables(self) -> list[str]:
        """The files."""
        return [self.annotations] if isinstance(self.annotations, str) else self.annotations


def read(source: TableSource) -> Stated:
    """Return what a table states. Labels are in the order of their columns or names, else sorted. Raises SourceError."""
    return _Reader(source).read()


class _Reader:
    """Reads the tables of one source."""

    def __init__(self, source: TableSource) -> None:
        self.source = source
        self.files = [open_table(uri, delimiter=source.delimiter, has_header=source.header) for uri in source.tables]
        self.names = None if source.names is None else distinct(source.described, read_names(source.names))
        self.values = Values(source.values, source.present_from, source.absent_to)
        self.dropped: dict[str, int] = {}

    def read(self) -> Stated:
        if self.source.one_hot is not None:
            return self._wide(self.source.one_hot)
        statements: dict[str, dict[str, State]] = {}
        for file in self.files:
            self._gather(file, statements)
        found = sorted({label for labels in statements.values() for label in labels})
        ordered = found if self.names is None else list(self.names.values())
        column_of = {label: column for column, label in enumerate(ordered)}
        rows = (_row(name, labels, column_of) for name, labels in statements.items())
        rest = "absent" if self.source.value is None else "unknown"
        return self._stated(ordered, rows, rest, is_declared=self.names is not None)

    def _stated(self, names: list[str], rows: Iterator[ImageRow], rest: Any, *, is_declared: bool) -> Stated:
        return Stated(
            label_space=label_space(self.source.described, names),
            rest=self.source.rest or rest,
            batches=batches_of(rows),
            images=self.source.images,
            dropped=self.dropped,
            is_declared=is_declared,
        )

    def _wide(self, columns: Column | list[Column]) -> Stated:
        places = [file.places(columns) for file in self.files]
        labels = [
            [self._column_name(file, n, place) for n, place in enumerate(some)]
            for file, some in zip(self.files, places, strict=True)
        ]
        for file, some in zip(self.files, labels, strict=True):
            if some != labels[0]:
                raise SourceError(f"{file.uri} has other columns of labels than {self.files[0].uri}; give tables with the same")
        rows = (row for file, some in zip(self.files, places, strict=True) for row in self._wide_rows(file, some, labels[0]))
        return self._stated(labels[0], rows, "absent", is_declared=True)

    def _column_name(self, file: TableFile, number: int, place: int) -> str:
        if file.names[place]:
            return file.names[place] if self.names is None else self._named(file.names[place], file.uri)
        if self.names is None:
            raise SourceError(f"{file.uri} has no header, so its labels have no names; give `names`, a list in their order")
        return self._named(str(number), file.uri)

    def _wide_rows(self, file: TableFile, places: list[int], labels: list[str]) -> Iterator[ImageRow]:
        for line, name, cells in self._lines(file, places):
            states = [self.values.of(cell, f"{file.uri}, row {line}, {labels[n]!r}") for n, cell in enumerate(cells)]
            yield _row(name, dict(zip(labels, states, strict=True)), {label: column for column, label in enumerate(labels)})

    def _gather(self, file: TableFile, statements: dict[str, dict[str, State]]) -> None:
        """Add what the rows of a table with lists, or a row per label, state of each image."""
        source = self.source
        lists = source.lists is not None
        columns = file.places(source.lists) if source.lists is not None else [file.place(source.label)]  # type: ignore[arg-type]
        if source.value is not None:
            columns.append(file.place(source.value))
        for line, name, cells in self._lines(file, columns):
            where = f"{file.uri}, row {line}"
            state = "present" if source.value is None else self.values.of(cells[-1], where)
            codes = (
                [code for cell in cells for code in as_list(cell, source.separator, where)] if lists else [as_text(cells[0])]
            )
            labels = statements.setdefault(name, {})
            for code in codes:
                if code and code not in source.no_label:
                    self._state(labels, self._named(code, where), state)

    def _state(self, labels: dict[str, State], label: str, state: State) -> None:
        before = labels.setdefault(label, state)
        if before == "unknown":
            labels[label] = state
        elif state not in (before, "unknown"):
            labels[label] = "unknown"
            self._drop(CONTRADICTED)

    def _named(self, code: str, where: str) -> str:
        if self.names is None:
            return code
        if code not in self.names:
            raise SourceError(f"{where}: {unknown(code, self.names, 'label code')}; add it to `names`")
        return self.names[code]

    def _lines(self, file: TableFile, places: list[int]) -> Iterator[tuple[int, str, Cells]]:
        """Yield the number, image name and chosen cells of each row that `where` takes."""
        image = file.place(self.source.image)
        filters = [(file.place(column), _texts(allowed)) for column, allowed in self.source.where.items()]
        line = int(self.source.header)
        for columns in file.read([image, *(place for place, _ in filters), *places]):
            for image_cell, *cells in zip(*columns, strict=True):
                line += 1
                if any(as_text(cell) not in allowed for cell, (_, allowed) in zip(cells, filters, strict=False)):
                    continue
                name = image_cell.strip() if isinstance(image_cell, str) else as_text(image_cell)
                if name:
                    yield line, name, cells[len(filters) :]
                else:
                    self._drop(NO_NAME)

    def _drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1


def _texts(allowed: str | int | list[str | int]) -> set[str]:
    return {*map(as_text, allowed if isinstance(allowed, list) else [allowed])}


def _row(name: str, labels: Mapping[str, State], column_of: Mapping[str, int]) -> ImageRow:
    of_state: dict[str, list[int]] = {"present": [], "absent": [], "unknown": []}
    for label, state in labels.items():
        of_state[state].append(column_of[label])
    present, absent, unknown_labels = (tuple(sorted(columns)) for columns in of_state.values())
    file_name = normalised(name)
    return ImageRow(stem(file_name, IMAGE_SUFFIXES), file_name, present, absent, unknown_labels)
