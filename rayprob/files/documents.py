"""JSON and JSON Lines files, read as plain data and validated against a shape, so that damage is found on reading.

Readers can rely on each key of the shape. Other keys are kept unchanged.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rayprob.config.faults import faults_of
from rayprob.errors import RayprobError, RunError, one_line
from rayprob.files import storage

# A few faults are enough to find the location; a damaged file has hundreds.
MOST_FAULTS = 3

Count = Annotated[int, Field(ge=0, lt=2**53)]  # safe in arrays and in other programs' JSON


class Shape(BaseModel):
    """The required keys of a mapping, with their types. An integer is accepted as a float; there are no other conversions."""

    model_config = ConfigDict(strict=True, extra="allow")


def read_json(
    uri: str, shape: type[Shape] | None = None, *, error: type[RayprobError] = RunError, remedy: str
) -> dict[str, Any]:
    """Return the mapping in the JSON file at `uri`. Raises `error` for anything else, StorageError if it does not exist."""
    return require_shape(parse_json(storage.read_bytes(uri), uri, error, remedy), shape, uri, error=error, remedy=remedy)


def read_lines(
    uri: str, shapes: Mapping[str, type[Shape]], *, error: type[RayprobError] = RunError, remedy: str
) -> list[dict[str, Any]]:
    """Return the rows of a file of JSON lines; `shapes` maps each `kind` of row to its shape.

    Raises `error` for a row of an unknown kind or a wrong shape.
    """
    return [row_of(line, shapes, f"{uri}, line {n}", error=error, remedy=remedy) for n, line in whole_lines(uri)]


def whole_lines(uri: str) -> Iterator[tuple[int, bytes]]:
    """Yield the number and content of each line that is not empty.

    A last line without a newline was cut short by a crash, and is left out.
    """
    for number, line in enumerate(storage.read_bytes(uri).split(b"\n")[:-1], start=1):
        if line:
            yield number, line


def row_of(
    line: bytes, shapes: Mapping[str, type[Shape]], where: str, *, error: type[RayprobError], remedy: str = ""
) -> dict[str, Any]:
    """Return the row in a line of JSON. Raises `error` for a row of an unknown kind or a wrong shape."""
    row = require_shape(parse_json(line, where, error, remedy), None, where, error=error, remedy=remedy)
    kind = row.get("kind")
    if not isinstance(kind, str) or kind not in shapes:
        raise error(f"{where}: kind is {kind!r:.50}; allowed: {', '.join(shapes)}; {remedy}")
    return require_shape(row, shapes[kind], where, error=error, remedy=remedy)


def parse_json(content: bytes | str, where: str, error: type[RayprobError], remedy: str) -> Any:
    """Return the value of a JSON text. Raises `error` if it is not JSON, or contains text that is not Unicode."""
    try:
        value = json.loads(content)
        # An escape such as \ud800 is valid JSON, but a string with it cannot be printed or written.
        if (b"\\u" if isinstance(content, bytes) else "\\u") in content:  # type: ignore[operator]
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as reason:
        raise error(f"{where} is not JSON ({one_line(reason)}); {remedy}") from reason
    return value


def require_shape(
    value: Any, shape: type[Shape] | None, where: str, *, error: type[RayprobError] = RunError, remedy: str
) -> dict[str, Any]:
    """Return `value` if it is a mapping of this shape. Raises `error` that names missing keys and wrong types."""
    if not isinstance(value, dict):
        raise error(f"{where} contains {type(value).__name__}, not a mapping; {remedy}")
    if shape is not None:
        try:
            shape.model_validate(value)
        except ValidationError as found:
            raise error(f"{where}: {'; '.join(faults_of(shape, found)[:MOST_FAULTS])}; {remedy}") from None
    return value


def json_values(value: Any) -> Any:
    """Return plain data for JSON: floats of six significant digits, null where they are not finite, dataclasses as mappings."""
    match value:
        case bool() | str() | int() | None:
            return value
        case float():
            return float(f"{value:.6g}") if math.isfinite(value) else None
        case Mapping():
            return {key: json_values(inner) for key, inner in value.items()}
        case Sequence():
            return [json_values(inner) for inner in value]
        case _:
            return json_values(asdict(value))
