"""The one registry lookup: a part by its name, and the one error for a name that does not exist."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

from rayprob.errors import RayprobError, SpecError
from rayprob.text import first_of

T = TypeVar("T")
LONGEST = 200


def choose(table: Mapping[str, T], name: str, what: str, error: type[RayprobError] = SpecError) -> T:
    """Return `table[name]`; `what` names the kind of part in the error (`unknown loss 'bec'; nearest: bce; ...`)."""
    if name in table:
        return table[name]
    raise error(unknown(name, table, what))


def unknown(name: str, allowed: Iterable[str], what: str) -> str:
    """Return the message for an unknown `name`: the nearest names first, then all allowed ones (at most 40)."""
    names = [str(candidate) for candidate in allowed]
    as_written = {candidate.lower(): candidate for candidate in names}
    # Matching takes time with the square of a name's length, and what is much longer than every name is near to none.
    candidates = as_written if len(name) <= LONGEST else ()
    nearest = [as_written[match] for match in get_close_matches(name.lower(), candidates, n=3, cutoff=0.6)]
    hint = f"; nearest: {', '.join(nearest)}" if nearest else ""
    return f"unknown {what} {name!r:.{LONGEST}}{hint}; allowed: {first_of(names, 40, in_all=True)}"
