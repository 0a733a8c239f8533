"""What the cells of tables and JSON state: present, absent or unknown labels, and lists of labels. A cell is text, a number, a
boolean, a list, or None."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from rayprob.data.sources.faults import short
from rayprob.errors import SourceError

State = Literal["present", "absent", "unknown"]
STATES: dict[str, State] = {
    "1": "present",
    "true": "present",
    "0": "absent",
    "false": "absent",
    "": "unknown",
    "nan": "unknown",
}
WHOLE = re.compile(r"([-+]?\d+)\.0*")


@dataclass(frozen=True)
class Values:
    """What the values of cells mean. Numbers are compared as numbers: 1, 1.0 and "1.0" are the same value."""

    states: Mapping[str, State] = field(default_factory=dict)  # in addition to STATES
    present_from: float | None = None
    absent_to: float | None = None

    @cached_property
    def _all(self) -> dict[str, State]:
        return {**STATES, **{as_text(value): state for value, state in self.states.items()}}

    def of(self, cell: Any, where: str) -> State:
        """Return the state that a cell stands for. Raises SourceError for an unknown value."""
        text = as_text(cell).lower()
        if text in self._all:
            return self._all[text]
        if (self.present_from is not None or self.absent_to is not None) and (number := _number(text)) is not None:
            return self._of_number(number)
        raise SourceError(
            f"{where} is {short(cell)}, which `values` does not define; it has "
            f"{', '.join(f'{value!r}: {state}' for value, state in self._all.items())}"
        )

    def _of_number(self, number: float) -> State:
        if self.present_from is not None and number >= self.present_from:
            return "present"
        return "absent" if self.absent_to is not None and number <= self.absent_to else "unknown"


def as_text(cell: Any) -> str:
    """Return a cell as stripped text, whole numbers without a decimal point; "" for an empty cell."""
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float):
        return str(int(cell)) if math.isfinite(cell) and cell.is_integer() else str(cell)
    text = str(cell).strip()
    whole = WHOLE.fullmatch(text)
    return whole[1] if whole else text


def as_list(cell: Any, separator: str | None, where: str) -> list[str]:
    """Return the labels in a cell: a list, text split at the separator, or text that is a list in JSON or Python."""
    items = _items(cell, separator)
    if any(isinstance(item, list | dict | bytes) for item in items):
        raise SourceError(f"{where} is {short(cell)}; a cell of labels must contain a list of names or numbers")
    return [text for item in items if (text := as_text(item))]


def _items(cell: Any, separator: str | None) -> Sequence[Any]:
    if not isinstance(cell, str):
        return [] if cell is None else cell if isinstance(cell, list) else [cell]
    text = cell.strip()
    if separator is not None:
        return text.split(separator) if separator.strip() else text.split()
    return _literal(text) if text.startswith("[") and text.endswith("]") else [text]


def _literal(text: str) -> list[Any]:
    """Parse a list that JSON writes as ["a", "b"] and pandas as ['a', 'b']."""
    try:
        items: list[Any] = json.loads(text)
    except (ValueError, RecursionError):
        return [part.strip().strip("'\"") for part in text[1:-1].split(",")]
    return items


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def stem(name: str, suffixes: Sequence[str]) -> str:
    """Return a file name without its suffix, if that is one of `suffixes`, which are in lower case and start with a dot."""
    head, dot, ending = name.rpartition(".")
    return head if head and dot + ending.lower() in suffixes else name
