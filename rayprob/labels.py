"""LabelSpace: ordered label names <-> columns <-> COCO category ids. L labels; a label set is bool [L]."""

import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayprob.errors import LabelError, UnknownLabel
from rayprob.registry import unknown


@dataclass(frozen=True)
class LabelSpace:
    """The labels of a dataset in column order, which is the order of their category ids."""

    names: tuple[str, ...]
    category_ids: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.category_ids):
            raise LabelError(f"{len(self.names)} label names but {len(self.category_ids)} category ids; give one id per name")
        columns: tuple[tuple[str, tuple[Any, ...]], ...] = (("label name", self.names), ("category id", self.category_ids))
        for what, values in columns:
            if len(set(values)) < len(values):
                twice = sorted(str(value) for value, count in Counter(values).items() if count > 1)
                raise LabelError(f"{what} {', '.join(twice)} occurs more than once; each must be unique")
        if list(self.category_ids) != sorted(self.category_ids):
            raise LabelError("category ids are not in ascending order; columns follow the ids, so sort the labels by id")

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def _column_of_name(self) -> dict[str, int]:
        # An exact match takes precedence over one with differently encoded accents: 0.1 built datasets with both.
        spellings = {composed(name): column for column, name in reversed([*enumerate(self.names)])}
        return spellings | {name: column for column, name in enumerate(self.names)}

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that depend on all names and ids and on their order."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:16]

    def find(self, name: str) -> int | None:
        """Return the column of `name`, however its accents are encoded in Unicode; None if no label has it."""
        column = self._column_of_name.get(name)
        return self._column_of_name.get(composed(name)) if column is None else column

    def column(self, name: str) -> int:
        """Return the column of `name`, as `find` does. Raises UnknownLabel with the nearest names."""
        column = self.find(name)
        if column is None:
            raise UnknownLabel(unknown(name, self.names, "label"))
        return column

    def label_set(self, names: Iterable[str]) -> NDArray[np.bool_]:
        """Return the label set [L] in which exactly `names` are present."""
        present_L = np.zeros(len(self), dtype=bool)
        present_L[[self.column(name) for name in names]] = True
        return present_L

    def names_of(self, present_L: Sequence[bool] | NDArray[np.bool_]) -> list[str]:
        """Return the names of the labels present in `present_L`, in column order."""
        return [self.names[column] for column in np.flatnonzero(present_L)]

    def to_dict(self) -> dict[str, list[int] | list[str]]:
        """Return plain lists, for JSON."""
        return {"names": list(self.names), "category_ids": list(self.category_ids)}

    @classmethod
    def from_dict(cls, value: dict[str, list[int] | list[str]]) -> "LabelSpace":
        """Rebuild a label space from `to_dict`. Raises LabelError if a part is missing."""
        try:
            return cls(tuple(map(str, value["names"])), tuple(map(int, value["category_ids"])))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise LabelError(f"a label space needs lists 'names' and 'category_ids'; got {value!r:.200}") from error

    def require_same(self, other: "LabelSpace", ours: str, theirs: str) -> None:
        """Raise LabelError that names the first difference, unless both spaces have the same ids and names.

        Two Unicode encodings of an accent are the same name. `ours` and `theirs` name the spaces.
        """
        if self.category_ids == other.category_ids and [*map(composed, self.names)] == [*map(composed, other.names)]:
            return
        if len(self) != len(other):
            difference = f"{len(self)} labels against {len(other)}"
        else:
            ours_L, theirs_L = (list(zip(map(composed, s.names), s.category_ids, strict=True)) for s in (self, other))
            column = next(c for c in range(len(self)) if ours_L[c] != theirs_L[c])
            difference = (
                f"column {column} is {self.names[column]!r} (id {self.category_ids[column]}) "
                f"against {other.names[column]!r} (id {other.category_ids[column]})"
            )
        raise LabelError(f"the labels of {ours} and {theirs} differ: {difference}; use a dataset with the same label space")


def composed(name: str) -> str:
    """Return a name with its accents composed (Unicode NFC): one encoding for text that looks the same."""
    return unicodedata.normalize("NFC", name)


def columns_by_name(names: Sequence[str], others: Sequence[str]) -> dict[int, int]:
    """Return which of `others` each of `names` is: their places, by place in `names`, for those that are in both.

    Where the name itself is not in both, PASCAL VOC's and COCO's names of one label are the same.
    """
    found: dict[int, int] = {}
    for spelled in (composed, _coco_name):
        taken = set(found.values())
        places = {spelled(name): place for place, name in enumerate(others) if place not in taken}
        for column, name in enumerate(names):
            if column not in found and (place := places.pop(spelled(name), None)) is not None:
                found[column] = place
    return dict(sorted(found.items()))


def _coco_name(name: str) -> str:
    return SAME_LABEL.get(composed(name), composed(name))


def from_label_lists(label_lists: Sequence[Sequence[int]], num_labels: int) -> NDArray[np.bool_]:
    """Return bool [N, L] from N lists of columns."""
    present_NL = np.zeros((len(label_lists), num_labels), dtype=bool)
    rows = np.repeat(np.arange(len(label_lists)), [len(columns) for columns in label_lists])
    columns = (
        np.concatenate([np.asarray(c, dtype=np.int64) for c in label_lists]) if len(label_lists) else np.empty(0, np.int64)
    )
    present_NL[rows, columns] = True
    return present_NL


# PASCAL VOC's names of what COCO names otherwise.
SAME_LABEL = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}

COCO_CATEGORIES = """\
1 person, 2 bicycle, 3 car, 4 motorcycle, 5 airplane, 6 bus, 7 train, 8 truck, 9 boat, 10 traffic light,
11 fire hydrant, 13 stop sign, 14 parking meter, 15 bench, 16 bird, 17 cat, 18 dog, 19 horse, 20 sheep, 21 cow,
22 elephant, 23 bear, 24 zebra, 25 giraffe, 27 backpack, 28 umbrella, 31 handbag, 32 tie, 33 suitcase, 34 frisbee,
35 skis, 36 snowboard, 37 sports ball, 38 kite, 39 baseball bat, 40 baseball glove, 41 skateboard, 42 surfboard,
43 tennis racket, 44 bottle, 46 wine glass, 47 cup, 48 fork, 49 knife, 50 spoon, 51 bowl, 52 banana, 53 apple,
54 sandwich, 55 orange, 56 broccoli, 57 carrot, 58 hot dog, 59 pizza, 60 donut, 61 cake, 62 chair, 63 couch,
64 potted plant, 65 bed, 67 dining table, 70 toilet, 72 tv, 73 laptop, 74 mouse, 75 remote, 76 keyboard,
77 cell phone, 78 microwave, 79 oven, 80 toaster, 81 sink, 82 refrigerator, 84 book, 85 clock, 86 vase, 87 scissors,
88 teddy bear, 89 hair drier, 90 toothbrush"""


def parse_categories(text: str) -> LabelSpace:
    """Return the label space of `id name, id name, ...`."""
    pairs = [entry.split(maxsplit=1) for entry in text.split(",")]
    return LabelSpace(tuple(name for _, name in pairs), tuple(int(category_id) for category_id, _ in pairs))


COCO_80 = parse_categories(COCO_CATEGORIES)
