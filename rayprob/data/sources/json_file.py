"""A user's JSON file, read with as little memory as possible; errors name what the file contains instead."""

import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

from rayprob.errors import SourceError, one_line
from rayprob.files import storage

Pairs = list[tuple[str, Any]]
AGAIN = "download it again"
GZIP = b"\x1f\x8b"
MAGIC = {
    b"PK": ("is a ZIP archive", "unpack it"),
    b"7z": ("is a 7z archive", "unpack it"),
    b"PAR1": ("is a Parquet file", "set format: table in the recipe, or format: huggingface if it contains the images"),
    b"SQLite": ("is an SQLite database", "write it as JSON"),
    b"\xff\xd8\xff": ("is a JPEG image", "give the annotations file"),
    b"\x89PNG": ("is a PNG image", "give the annotations file"),
}
SHOWN = 60


def read_json(uri: str, wanted: str, hook: Callable[[Pairs], Any]) -> Any:
    """Return the value in a JSON file in UTF-8, 16 or 32, gzipped or not; `hook` builds each mapping.

    `wanted` names the format in errors.

    Raises a SourceError that names what the file contains instead, and what to do.
    """
    content = _unpacked(uri, storage.read_bytes(uri))
    for magic, (what, remedy) in MAGIC.items():
        if content.startswith(magic):
            raise SourceError(f"{uri} {what}, not {wanted}; {remedy}")
    text = _decoded(uri, content)
    del content
    if not text.strip():
        raise SourceError(f"{uri} is empty; {AGAIN}")
    try:
        return json.loads(text, object_pairs_hook=hook)
    except RecursionError as error:
        raise SourceError(f"{uri} is not readable JSON: it is nested too deeply; export it again") from error
    except json.JSONDecodeError as error:
        raise SourceError(f"{uri} {_what_it_is(text, error, wanted)}") from error
    except ValueError as error:  # an integer of thousands of digits
        raise SourceError(f"{uri} is not readable JSON: {error}; export it again") from error


def _unpacked(uri: str, content: bytes) -> bytes:
    if not content.startswith(GZIP):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{uri} is a gzip archive that cannot be unpacked ({one_line(error)}); {AGAIN}") from error


def _decoded(uri: str, content: bytes) -> str:
    encoding = json.detect_encoding(content)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise SourceError(
            f"{uri} is not text in {encoding.upper()}: {error.reason} at byte {error.start:,}; save it as UTF-8, or {AGAIN}"
        ) from error


def _what_it_is(text: str, error: json.JSONDecodeError, wanted: str) -> str:
    start = text.lstrip()
    first_line = start.splitlines()[0]
    if "<annotation" in start[:200]:
        return f"looks like Pascal VOC's XML, not {wanted}; set format: voc in the recipe"
    if start.startswith("<"):
        return f"looks like HTML or XML, not {wanted}: it begins {first_line[:SHOWN]!r}; give {wanted}, or {AGAIN}"
    if not start.startswith(("{", "[")):
        looks = "CSV" if any(mark in first_line for mark in ",;\t") else "plain text"
        return f"looks like {looks}, not {wanted}: it begins {first_line[:SHOWN]!r}; set format: table in the recipe"
    if error.msg == "Extra data":
        return (
            f"contains more than one JSON value (the second starts at line {error.lineno}), not {wanted}; set format: table in "
            "the recipe for JSON lines, or write one mapping"
        )
    if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated"):
        return f"is cut short: it ends in the middle of a value ({error}); {AGAIN}"
    return f"is not JSON: {error}; fix it there, or {AGAIN}"
