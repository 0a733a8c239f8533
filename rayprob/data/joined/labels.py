"""The joint label space of several datasets. L labels in all."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rayprob.arrays import Rows
from rayprob.labels import LabelSpace, columns_by_name, composed


@dataclass(frozen=True, eq=False)
class JoinedLabels:
    """The joint label space of several, and the columns in it of each one's labels."""

    label_space: LabelSpace
    columns: tuple[Rows, ...]

    @classmethod
    def of(cls, spaces: Sequence[LabelSpace]) -> "JoinedLabels":
        """Join by name, with PASCAL VOC's and COCO's spellings matched: the first one's labels, then the others' new labels.

        The first one's names and category ids stay; a new label gets the next free id. So joining spaces with equal names
        returns the first.
        """
        names, columns = list(spaces[0].names), [np.arange(len(spaces[0]), dtype=np.int64)]
        for space in spaces[1:]:
            found = columns_by_name(space.names, names)
            for column, name in enumerate(space.names):
                if column not in found:
                    found[column] = len(names)
                    names.append(name)
            columns.append(np.array([found[column] for column in range(len(space))], dtype=np.int64))
        ids = spaces[0].category_ids
        first_new = ids[-1] + 1 if ids else 1
        new_ids = range(first_new, first_new + len(names) - len(ids))
        return cls(LabelSpace(tuple(names), (*ids, *new_ids)), tuple(columns))

    def renamed(self, place: int, space: LabelSpace) -> dict[str, str]:
        """Return the joint name of each label that has another name in the space at `place`."""
        pairs = zip(space.names, (self.label_space.names[column] for column in self.columns[place].tolist()), strict=True)
        return {name: joined for name, joined in pairs if composed(name) != composed(joined)}
