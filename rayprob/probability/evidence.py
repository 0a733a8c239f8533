"""Labels that are known before a question is asked. B images (1: the same for all), L labels."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rayprob.errors import QueryError
from rayprob.labels import LabelSpace

Bools = NDArray[np.bool_]
PRESENCE = {"1": True, "present": True, "yes": True, "true": True, "0": False, "absent": False, "no": False, "false": False}


@dataclass(frozen=True, eq=False)
class Evidence:
    """Which labels are known, and whether they are present; `values_BL` counts only where `known_BL`."""

    values_BL: Bools
    known_BL: Bools

    def __post_init__(self) -> None:
        if self.values_BL.ndim != 2 or self.values_BL.shape != self.known_BL.shape:
            raise QueryError(
                f"evidence needs values and known flags [B, L], found {self.values_BL.shape}, {self.known_BL.shape}"
            )

    @classmethod
    def of(cls, presence: Mapping[int, bool], num_labels: int) -> "Evidence":
        """Return evidence that holds for every image: whether the label of each column given is present."""
        values_BL, known_BL = np.zeros((2, 1, num_labels), dtype=bool)
        columns = list(presence)
        known_BL[0, columns] = True
        values_BL[0, columns] = list(presence.values())
        return cls(values_BL, known_BL)


def parse_evidence(texts: Iterable[str], label_space: LabelSpace) -> dict[int, bool]:
    """Return {column: is present} of texts such as `dining table=1`, `person=0`, `dog` or `!cat`.

    Raises LabelError for an unknown label, and QueryError for a value that is neither or a label stated both ways.
    """
    presence: dict[int, bool] = {}
    for text in texts:
        name, is_present = _read(text)
        column = label_space.column(name)
        if presence.setdefault(column, is_present) != is_present:
            raise QueryError(f"contradictory evidence: {name!r} is stated as present and as absent; keep one of them")
    return presence


def _read(text: str) -> tuple[str, bool]:
    name, equals, value = text.partition("=")
    if equals and value.strip().lower() not in PRESENCE:
        raise QueryError(f"evidence {text!r} gives {value.strip()!r}; write LABEL=1 (present) or LABEL=0 (absent)")
    if equals:
        return name.strip(), PRESENCE[value.strip().lower()]
    return name.strip().removeprefix("!").strip(), not name.strip().startswith("!")
