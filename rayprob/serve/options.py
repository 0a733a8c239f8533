"""The options of a request: a JSON object with what is asked about an image."""

import json
from typing import Any, NoReturn

from pydantic import Field

from rayprob.config.spec import Spec
from rayprob.errors import SpecError

MOST_BYTES = 2**18  # of the options' text
WHERE = "options"


class Options(Spec):
    """What is asked about an image."""

    bundle: str | None = None
    """Which bundle answers; null is the first one."""
    queries: tuple[str, ...] = ()
    """Queries such as `P(fork | dining table, !person)`."""
    evidence: dict[str, Any] = Field(default={})
    """What is known about the image: {label: true or false}."""
    rule: str | None = None
    """The rule that chooses the label set; null is the best that the bundle has."""
    top: int = Field(default=5, gt=0)
    """How many labels and label sets to list."""
    marginals: bool = False
    """Also return the marginals of all labels, in column order."""
    explain: bool | tuple[str, ...] = False
    """Maps that explain labels: of the label set (true), or of these labels."""
    explain_method: str = "auto"
    """How the maps are computed."""


def read_options(text: str | bytes | None) -> Options:
    """Return the options in a JSON text; those of no text are the defaults. Raises SpecError that names each fault."""
    return Options.parse(read_object(text, WHERE) if text else {}, WHERE)


def read_object(text: str | bytes, where: str) -> dict[str, Any]:
    """Return a JSON object. Raises SpecError for anything else, a key stated twice, NaN, and nesting too deep to read."""
    if len(text) > MOST_BYTES:
        raise SpecError(f"{where}: {len(text):,} bytes of JSON; at most {MOST_BYTES:,} are allowed")
    try:
        value = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_once)
    except RecursionError:
        raise SpecError(f"{where}: too many levels of lists and mappings") from None
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError, and ours
        raise SpecError(f'{where}: expected a JSON object such as {{"top": 3}}; {error}') from error
    if not isinstance(value, dict):
        raise SpecError(f'{where}: expected a JSON object such as {{"top": 3}}; got {type(value).__name__}')
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r:.80} is stated twice")
    return found
