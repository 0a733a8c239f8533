"""Evidence: the labels that a query takes as known. B images (1: the same evidence for all), L labels."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from rayprob.arrays import Bools, Floats
from rayprob.errors import LabelError, QueryError, RayprobError
from rayprob.labels import LabelSpace
from rayprob.probability.queries.expression import QUOTE, quoted
from rayprob.registry import unknown

PRESENCE = {"1": True, "present": True, "yes": True, "true": True, "0": False, "absent": False, "no": False, "false": False}
QUOTED = re.compile(r'(?P<absent>!?)\s*"(?P<name>(?:[^"]|"")*)"\s*(?:=\s*(?P<value>\w+))?')


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
        """Return evidence that holds for every image, from {column: is present}."""
        values_BL, known_BL = np.zeros((2, 1, num_labels), dtype=bool)
        columns = list(presence)
        known_BL[0, columns] = True
        values_BL[0, columns] = list(presence.values())
        return cls(values_BL, known_BL)

    def made_certain(self, logits_BL: Floats) -> Floats:
        """Return logits with those of the known labels at plus or minus infinity."""
        return np.where(self.known_BL, np.where(self.values_BL, np.inf, -np.inf), logits_BL)


def parse_evidence(texts: Iterable[str], label_space: LabelSpace) -> dict[int, bool]:
    """Return {column: is present} of texts such as `dining table=1`, `person=0`, `dog` or `!cat`.

    Any name can be quoted; quotes inside it are doubled: `"a=1"=0`, `!"5"" nut"`. Raises LabelError for an unknown label, and
    QueryError for any other value, a label stated both ways, or a text that can be read as two labels.
    """
    presence: dict[int, bool] = {}
    for text in texts:
        column, is_present = _read(text, label_space)
        if presence.setdefault(column, is_present) != is_present:
            name = label_space.names[column]
            raise QueryError(f"contradictory evidence: {name!r} is stated as present and as absent; keep one of them")
    return presence


def known_labels(evidence: Mapping[str, bool], label_space: LabelSpace) -> dict[int, bool]:
    """Return {column: is present} of a mapping such as `{"dining table": True, "person": False}`.

    Raises LabelError for an unknown label, QueryError for a value that is not a truth value, and for a label stated both ways.
    """
    presence: dict[int, bool] = {}
    for name, is_present in evidence.items():
        column, stated = label_space.column(str(name)), truth_of(name, is_present)
        if presence.setdefault(column, stated) != stated:
            raise QueryError(f"contradictory evidence: {name!r} is stated as present and as absent; keep one of them")
    return presence


def truth_of(name: str, is_present: object) -> bool:
    """Return whether a label is stated present. Raises QueryError for a value that is not a truth value."""
    if not isinstance(is_present, bool | int | np.bool_) or is_present not in (0, 1):
        raise QueryError(f"evidence for {name!r} must be True (present) or False (absent); got {is_present!r:.100}")
    return bool(is_present)


def _read(text: str, label_space: LabelSpace) -> tuple[int, bool]:
    in_quotes = _in_quotes(text)
    if in_quotes and (column := label_space.find(in_quotes[0])) is not None:
        return column, in_quotes[1]
    found: dict[int, bool] = {}
    for name, is_present in _without_quotes(text):
        columns = (label_space.find(spelling) for spelling in (name, name.strip()))
        if (column := next((column for column in columns if column is not None), None)) is not None:
            found[column] = is_present
    if len(found) > 1:
        either = " or ".join(f"{quoted(label_space.names[column])}={value:d}" for column, value in found.items())
        raise QueryError(f"evidence {text!r} can be read in more than one way; write {either}")
    if not found:
        raise _unreadable(text, in_quotes, label_space)
    return next(iter(found.items()))


def _in_quotes(text: str) -> tuple[str, bool] | None:
    """Return the name and presence of `"NAME"`, `!"NAME"` or `"NAME"=VALUE`; None for any other text."""
    match = QUOTED.fullmatch(text.strip())
    value = match["value"] if match else None
    if not match or (value is not None and (match["absent"] or value.lower() not in PRESENCE)):
        return None
    is_present = not match["absent"] if value is None else PRESENCE[value.lower()]
    return match["name"].replace(2 * QUOTE, QUOTE), is_present


def _without_quotes(text: str) -> Iterator[tuple[str, bool]]:
    """Yield each name and presence that a text may mean: a name may itself begin with ! or end with =1."""
    yield text, True
    if text.strip().startswith("!"):
        yield text.strip().removeprefix("!"), False
    name, equals, value = text.rpartition("=")
    if equals and value.strip().lower() in PRESENCE:
        yield name, PRESENCE[value.strip().lower()]


def _unreadable(text: str, in_quotes: tuple[str, bool] | None, label_space: LabelSpace) -> RayprobError:
    name, equals, value = text.rpartition("=")
    if equals and value.strip().lower() not in PRESENCE:
        return QueryError(f"evidence {text!r} gives {value.strip()!r}; write LABEL=1 (present) or LABEL=0 (absent)")
    *_, (name, _) = _without_quotes(text)
    return LabelError(unknown(in_quotes[0] if in_quotes else name.strip(), label_space.names, "label"))
