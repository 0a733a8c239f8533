"""Label sets without images, from built datasets and tables, joined by the names of labels. N label sets, L labels."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from rayprob.arrays import Bools
from rayprob.data.manifest.dataset import Dataset
from rayprob.data.manifest.facts import is_dataset
from rayprob.errors import DataError
from rayprob.files import storage
from rayprob.files.tables import parse_table
from rayprob.labels import COCO_80, composed
from rayprob.text import first_of

COLUMN = "labels"
STATES = {"1": True, "0": False, "": None, "1.0": True, "0.0": False, "true": True, "false": False}
REMEDY = "give a built dataset, a .parquet table with a list of labels per row, or a .csv with a column of 0 and 1 per label"


@dataclass(frozen=True, eq=False)
class LabelSets:
    """N label sets over named labels; `known_NL` is None if every label of every set is known."""

    names: tuple[str, ...]
    targets_NL: Bools
    known_NL: Bools | None = None

    def __len__(self) -> int:
        return len(self.targets_NL)


def read_label_sets(
    source: str, *, split: str = "train", column: str = COLUMN, names: Sequence[str] | None = None
) -> LabelSets:
    """Read label sets from a built dataset's split, a Parquet table or a CSV file.

    A Parquet table has in `column` a list per row, of label names or of positions in `names`. A CSV file has a header and a
    column per label whose cells are 1, 0, or empty for unknown; its other columns are ignored. Raises DataError and
    StorageError.
    """
    if is_dataset(source):
        return _of_dataset(source, split)
    content = storage.read_bytes(source)
    if source.lower().endswith(".parquet"):
        return _of_lists(content, source, column, names)
    if source.lower().endswith(".csv"):
        return _of_csv(content, source)
    raise DataError(f"{source} is not a source of label sets; {REMEDY}")


def joined(parts: Sequence[LabelSets]) -> LabelSets:
    """Return all label sets over all labels; a label that a source lacks is unknown in its label sets."""
    names = tuple(dict.fromkeys(composed(name) for part in parts for name in part.names))
    place = {name: column for column, name in enumerate(names)}
    shape = (sum(map(len, parts)), len(names))
    targets_NL, known_NL = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    row = 0
    for part in parts:
        rows, columns = slice(row, row + len(part)), [place[composed(name)] for name in part.names]
        targets_NL[rows, columns] = part.targets_NL
        known_NL[rows, columns] = True if part.known_NL is None else part.known_NL
        row += len(part)
    return LabelSets(names, targets_NL, None if known_NL.all() else known_NL)


def label_names(name: str) -> tuple[str, ...]:
    """Return the label names that `name` stands for: `coco`, or a text file with one per line.

    Raises StorageError, DataError.
    """
    if name == "coco":
        return COCO_80.names
    try:
        text = storage.read_bytes(name).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is not text in UTF-8 ({error}); give one label name per line") from error
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _of_dataset(root: str, split: str) -> LabelSets:
    manifest = Dataset.open(root).split(split)
    known_NL = manifest.known()
    return LabelSets(manifest.label_space.names, manifest.targets() & known_NL, None if known_NL.all() else known_NL)


def _of_lists(content: bytes, source: str, column: str, names: Sequence[str] | None) -> LabelSets:
    table = parse_table(content, source, error=DataError, remedy=REMEDY)
    if column not in table.column_names:
        raise DataError(f"{source} has no column {column!r}, but {first_of(table.column_names, 8)}; set --column")
    kind = table[column].type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        raise DataError(f"{source}: column {column!r} has type {kind}, not lists; {REMEDY}")
    lists = table[column].to_pylist()
    for row, labels in enumerate(lists):
        if labels is not None and None in labels:
            raise DataError(f"{source}, row {row}: a list in column {column!r} contains null; remove it")
    if pa.types.is_integer(kind.value_type):
        if names is None:
            raise DataError(f"{source}: column {column!r} contains numbers; name their labels with --names coco or a file")
        return _of_places(lists, source, tuple(names))
    place: dict[str, int] = {}
    places = [[place.setdefault(str(label), len(place)) for label in labels or ()] for labels in lists]
    return _of_places(places, source, tuple(place))


def _of_places(lists: Sequence[Sequence[int] | None], source: str, names: tuple[str, ...]) -> LabelSets:
    targets_NL = np.zeros((len(lists), len(names)), dtype=bool)
    for row, places in enumerate(lists):
        for place in places or ():
            if not 0 <= place < len(names):
                raise DataError(
                    f"{source}, row {row}: label {place} is not a position in the {len(names)} names (0 to {len(names) - 1})"
                )
            targets_NL[row, place] = True
    return LabelSets(names, targets_NL)


def _of_csv(content: bytes, source: str) -> LabelSets:
    try:
        rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{source} cannot be read as CSV ({error}); save it as UTF-8 with commas") from error
    header, *lines = [row for row in rows if row] or [[]]
    if any(len(line) != len(header) for line in lines):
        number = next(n for n, line in enumerate(lines, start=2) if len(line) != len(header))
        raise DataError(f"{source}, row {number}: {len(lines[number - 2])} cells under a header of {len(header)}")
    states = [[STATES.get(line[c].strip().lower(), "other") for line in lines] for c in range(len(header))]
    chosen = [c for c, column in enumerate(states) if "other" not in column and (True in column or False in column)]
    if not chosen:
        raise DataError(f"{source} has no column of 0 and 1; its columns: {first_of(header, 8)}; {REMEDY}")
    table = np.array([states[c] for c in chosen], dtype=object).T
    known_NL = table != np.array(None)
    names = tuple(header[c].strip() for c in chosen)
    return LabelSets(names, np.asarray(table == np.array(True), dtype=bool), None if known_NL.all() else known_NL.astype(bool))
