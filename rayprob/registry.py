"""Tables of parts by name, open to plugins, with one lookup and one error for unknown names."""

import pkgutil
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import TypeVar

from rayprob.errors import RayprobError, SpecError
from rayprob.text import first_of

T = TypeVar("T")
LONGEST = 200
MANY = 20  # names; with more, a message lists only those near to what was written
HERE = "rayprob"
# The names that a module of parts may give its tables (`plugins.py`).
TABLES = (
    *("BACKBONES", "NECKS", "POOLINGS", "HEADS", "LOSSES", "AUXILIARIES", "FAMILIES"),
    *("OPTIMIZERS", "SCHEDULES", "TRANSFORMS", "SOURCES", "EXPLAINERS", "SINKS"),
)
OPEN: dict[str, "PartTable[object]"] = {}


class PartTable(dict[str, T]):
    """An open table of parts by name, at the end of the module that defines them. Plugins add their own.

    `origin` has the module that each part comes from.
    """

    def __init__(self, name: str, parts: Mapping[str, T]) -> None:
        """`name` is one of TABLES; the process has one table of that name."""
        assert name in TABLES, name
        super().__init__(parts)
        self.name = name
        self.origin = dict.fromkeys(parts, HERE)
        OPEN[name] = self  # type: ignore[assignment]  # a table of any parts

    def join(self, parts: Mapping[str, T], origin: str) -> None:
        """Add the parts of a module, once. Raises SpecError as `require_free`, and then adds none of them."""
        self.require_free(parts, origin)
        for name, part in parts.items():
            self.origin.setdefault(name, origin)
            self[name] = part

    def require_free(self, parts: Mapping[str, T], origin: str) -> None:
        """Raise SpecError for a name that another module gave to another part; a module may repeat a part that it imports."""
        for name, part in parts.items():
            taken = self.origin.get(name, origin)
            if taken != origin and self[name] is not part:
                raise SpecError(f"two parts are named {name!r}: in {self.name} of {origin} and of {taken}; rename one of them")


def join_modules(package: str, folders: Iterable[str]) -> None:
    """Add the parts of every module of one of our own packages, which is in `folders`, in the order of the modules' names."""
    for found in pkgutil.iter_modules(folders):
        module = import_module(f"{package}.{found.name}")
        for name in TABLES:
            parts = vars(module).get(name)
            if parts and not isinstance(parts, PartTable):  # which is the whole table, where it is defined or imported
                OPEN[name].join(parts, HERE)


def choose(table: Mapping[str, T], name: str, what: str, error: type[RayprobError] = SpecError) -> T:
    """Return `table[name]`; `what` names the kind of part in the error (`unknown loss 'bec'; nearest: bce; ...`)."""
    if name in table:
        return table[name]
    raise error(unknown(name, table, what))


def unknown(name: str, allowed: Iterable[str], what: str) -> str:
    """Return the message for an unknown `name`: the nearest names, then all allowed ones, or their number if they are many."""
    names = [str(candidate) for candidate in allowed]
    are_many = len(names) > MANY
    as_written = {candidate.lower(): candidate for candidate in names}
    # Matching takes time with the square of a name's length, and what is much longer than every name is near to none.
    candidates = as_written if len(name) <= LONGEST else ()
    nearest = [as_written[match] for match in get_close_matches(name.lower(), candidates, n=5 if are_many else 3, cutoff=0.6)]
    hint = f"; nearest: {', '.join(nearest)}" if nearest else ""
    listed = f"{len(names):,} are allowed" if are_many and nearest else f"allowed: {first_of(names, MANY, in_all=True)}"
    return f"unknown {what} {name!r:.{LONGEST}}{hint}; {listed}"
