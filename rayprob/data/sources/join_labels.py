"""The label space of a dataset: that of its splits, their union, or the recipe's list; and the column of each label."""

from collections import Counter
from collections.abc import Mapping, Sequence

import pyarrow as pa

from rayprob.data.sources.faults import label_space
from rayprob.data.sources.rows import ImageRow, Stated, batch_of, lengths, rows_of
from rayprob.errors import LabelError, SourceError
from rayprob.labels import LabelSpace, composed
from rayprob.registry import unknown


def joined_space(stated: Mapping[str, Stated], described: Mapping[str, str], asked: Sequence[str] | str | None) -> LabelSpace:
    """Return the label space of a dataset from those of its splits. `asked` is the recipe's: a list, `union` or None.

    Splits that list their labels must agree, unless `asked` is `union`. Splits that do not list them have the labels that
    occur, sorted by name. Raises SourceError.
    """
    if isinstance(asked, str):
        return _union([one.label_space for one in stated.values()])
    if asked is not None:
        return _chosen(stated, asked)
    listed = [split for split, one in stated.items() if one.is_declared]
    if not listed:
        return label_space("recipe", sorted({name for one in stated.values() for name in one.label_space.names}))
    for split in stated:
        _require_fit(stated, described, listed[0], split)
    return stated[listed[0]].label_space


def _require_fit(stated: Mapping[str, Stated], described: Mapping[str, str], first: str, other: str) -> None:
    ours, theirs = stated[first].label_space, stated[other].label_space
    if stated[other].is_declared:
        try:
            ours.require_same(theirs, described[first], described[other])
        except LabelError as error:
            raise SourceError(f"{error}, or set labels: union") from error
    elif stray := [name for name in theirs.names if ours.find(name) is None]:
        raise SourceError(
            f"{described[other]} has the label {stray[0]!r}, which {described[first]} does not list; set labels: union, or "
            "list the labels"
        )


def _chosen(stated: Mapping[str, Stated], asked: Sequence[str]) -> LabelSpace:
    known = list(dict.fromkeys(name for one in stated.values() for name in one.label_space.names))
    spellings = {composed(name) for name in known}
    for name in asked:
        if composed(name) not in spellings:
            raise SourceError(f"labels: {unknown(name, known, 'label')}")
    return label_space("labels", asked)


def _union(spaces: Sequence[LabelSpace]) -> LabelSpace:
    """Return all labels, under their ids if these agree, else numbered in the order in which they are first listed."""
    first = list(dict.fromkeys(composed(name) for space in spaces for name in space.names))
    pairs = {(composed(name), number) for space in spaces for name, number in zip(space.names, space.category_ids, strict=True)}
    if len(pairs) == len(first) == len({number for _, number in pairs}):
        ordered = sorted(pairs, key=lambda pair: pair[1])
        return label_space("recipe", [name for name, _ in ordered], [number for _, number in ordered])
    return label_space("recipe", first)


class ColumnMap:
    """Maps the rows of one source to the dataset's columns. `dropped` counts the labels that the recipe leaves out."""

    def __init__(self, stated: Stated, space: LabelSpace) -> None:
        self._names = stated.label_space.names
        self._columns = [space.find(name) for name in self._names]
        self._is_same = self._columns == list(range(len(space)))
        self._is_federated = stated.rest == "unknown"
        # Annotators did not look for a label that the source does not list, unless the source lists only labels that occur.
        others = set(range(len(space))) - set(self._columns) if stated.is_declared and not self._is_federated else set()
        self._others = sorted(others)
        self._left_out: Counter[str] = Counter()

    def of_batch(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return rows of ROWS with the dataset's columns."""
        if self._is_same and not (self._is_federated and lengths(batch.column("unknown_labels")).any()):
            return batch
        return batch_of([self.of(row) for row in rows_of([batch])])

    def of(self, row: ImageRow) -> ImageRow:
        """Return a row with the dataset's columns."""
        unknown = () if self._is_federated else row.unknown_labels
        if self._is_same:
            return row if unknown == row.unknown_labels else row._replace(unknown_labels=unknown)
        self._left_out.update(self._names[column] for column in row.labels if self._columns[column] is None)
        areas = row.label_areas_px2 or (0.0,) * len(row.labels)
        area_of = {self._columns[column]: area for column, area in zip(row.labels, areas, strict=True)}
        labels = self._moved(row.labels)
        return row._replace(
            labels=labels,
            label_areas_px2=tuple(area_of[column] for column in labels) if row.label_areas_px2 else (),
            absent_labels=self._moved(row.absent_labels),
            unknown_labels=tuple(sorted({*self._moved(unknown), *self._others})),
        )

    @property
    def dropped(self) -> dict[str, int]:
        """How often labels that the recipe's list leaves out occur."""
        return {f"label {name!r}, which the recipe's list leaves out": count for name, count in self._left_out.items()}

    def _moved(self, columns: Sequence[int]) -> tuple[int, ...]:
        return tuple(sorted(moved for column in columns if (moved := self._columns[column]) is not None))
