"""Names for codes or numbers that annotations use instead of labels, from the recipe or a file."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from rayprob.config import strict_yaml
from rayprob.data.sources.faults import short
from rayprob.data.sources.text_file import read_lines, read_text
from rayprob.errors import SourceError, SpecError
from rayprob.files import uris

REMEDY = (
    "give a list of names, a mapping from code to name, or a file: .txt with a name per line, .csv with code and name, .yaml"
)
Names = Mapping[str, str]


def read_names(given: str | Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """Return the name of each code; the codes of a list are positions, from 0.

    A file is a list with a name per line (.txt, .names), CSV with a code and a name per row, or YAML or JSON with a list or
    mapping, under the key `names` or not. Raises SourceError.
    """
    if isinstance(given, str):
        return _of_file(given)
    if isinstance(given, Mapping):
        return {str(code): name for code, name in given.items()}
    return {str(place): name for place, name in enumerate(given)}


def distinct(where: str, names: Names) -> dict[str, str]:
    """Return unique names: a name that several codes share is followed by the code in parentheses."""
    times: dict[str, int] = {}
    for name in names.values():
        times[name] = times.get(name, 0) + 1
    return {code: name if times[name] == 1 else f"{name} ({code})" for code, name in names.items()}


def by_number(code: str) -> tuple[int, str]:
    """Return a sort key that puts numeric codes last, in the order of their values."""
    return (int(code), "") if is_number(code) else (-1, code)


def is_number(code: str) -> bool:
    """Return whether a code is a non-negative integer that fits into 64 bits."""
    return code.isascii() and code.isdecimal() and len(code) < 19


def _of_file(uri: str) -> dict[str, str]:
    suffix = uris.split(uri)[1].lower().rpartition(".")[2]
    if suffix == "csv":
        return _of_csv(uri)
    if suffix in ("yaml", "yml", "json"):
        return _of_document(uri, suffix)
    return read_names(read_lines(uri))


def _of_csv(uri: str) -> dict[str, str]:
    try:
        rows = [row for row in csv.reader(io.StringIO(read_text(uri), newline="")) if any(row)]
    except csv.Error as error:
        raise SourceError(f"{uri} cannot be read as CSV ({error}); {REMEDY}") from error
    if any(len(row) < 2 for row in rows) or not rows:
        raise SourceError(f"{uri} has rows without a code and a name; {REMEDY}")
    # Open Images V5 has no header, V6 has LabelName,DisplayName.
    start = (
        1 if {cell.strip().lower() for cell in rows[0][:2]} & {"labelname", "displayname", "name", "code", "id", "label"} else 0
    )
    pairs = [(row[0].strip(), row[1].strip()) for row in rows[start:]]
    if len(dict(pairs)) < len(pairs):
        raise SourceError(f"{uri} lists a code twice; keep one row per code")
    return dict(pairs)


def _of_document(uri: str, suffix: str) -> dict[str, str]:
    text = read_text(uri)
    try:
        # YAML's keys may be numbers here, as in `names: {0: cat}`.
        value: Any = json.loads(text) if suffix == "json" else strict_yaml.load(text, uri, number_keys=True)
    except (ValueError, RecursionError, SpecError) as error:
        raise SourceError(f"{uri} cannot be read: {error}; {REMEDY}") from error
    names = value.get("names", value) if isinstance(value, dict) else value
    are_texts = isinstance(names, list | dict) and all(
        isinstance(name, str | int | float) and not isinstance(name, bool)
        for name in (names.values() if isinstance(names, dict) else names)
    )
    if not are_texts or not names:
        raise SourceError(f"{uri} contains {short(names)}, not names; {REMEDY}")
    written = {
        code: getattr(name, "text", str(name))
        for code, name in (names.items() if isinstance(names, dict) else enumerate(names))
    }
    return {str(code): name.strip() for code, name in written.items()}
