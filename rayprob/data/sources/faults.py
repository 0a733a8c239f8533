"""Faults that any source may have: unusable names of labels and files. Each is counted, named, and comes with a remedy."""

import re
import reprlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from rayprob.errors import LabelError, SourceError
from rayprob.files.uris import is_utf8
from rayprob.labels import LabelSpace, composed
from rayprob.text import first_of

NEVER_IN_NAMES = re.compile(r"[\\\0\n\r]")
ODD_NAME = r"^$|^[/.]|\.\.|://|[\\\x00\n\r]"  # all names that `on_file_names` refuses except invalid UTF-8, and a few others
SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxother = SHORT.maxlong = 80


@dataclass(frozen=True)
class Faults:
    """Raises for the faults of one source; `where` names it."""

    where: str

    def on_any(self, what: str, found: Iterable[object], remedy: str) -> None:
        """Raise SourceError with the number of faults and the first five, if there are any."""
        faults = list(found)
        if faults:
            raise SourceError(f"{self.where}: {len(faults):,} x {what}: {first_of(faults, 5)}; {remedy}")

    def on_label_names(self, names: Sequence[str]) -> None:
        """Raise SourceError for label names that are empty, padded, unprintable or given twice."""
        self.on_any(
            "empty or padded label name",
            (repr(name) for name in names if not name or name != name.strip()),
            "name each category, without blanks at the start or the end",
        )
        self.on_any(
            "label name that cannot be printed",
            (ascii(name) for name in names if not is_utf8(name) or any(unicodedata.category(sign) == "Cc" for sign in name)),
            "use names without control characters and lone surrogates",
        )
        self.on_any(
            "duplicate label name",
            map(repr, doubles(map(composed, names))),
            "each category must have its own name; two Unicode spellings of an accent count as one",
        )

    def on_file_names(self, names: Sequence[str], kind: str = "file_name") -> None:
        """Raise SourceError for names that are URLs or that lead out of the images folder."""
        self.on_any(
            f"{kind} that is a URL",
            (ascii(name) for name in names if "://" in name),
            "download the images and give each file's path below the images folder",
        )
        self.on_any(
            f"backslash in a {kind}",
            (ascii(name) for name in names if "\\" in name and is_safe(name.replace("\\", "/"))),
            "write / between folders, as in dir/0.jpg",
        )
        self.on_any(
            f"unsafe {kind}",
            (ascii(name) for name in names if not is_safe(name) or not is_utf8(name)),
            "allowed: a relative path below the images folder, without '..'",
        )


def label_space(where: str, names: Sequence[str], ids: Sequence[int] | None = None) -> LabelSpace:
    """Return the label space of names; without `ids` they are numbered from 0. Raises SourceError for unusable names."""
    if not names:
        raise SourceError(f"{where}: no label occurs; a dataset needs at least one")
    Faults(where).on_label_names(names)
    try:
        return LabelSpace(tuple(names), tuple(range(len(names)) if ids is None else ids))
    except LabelError as error:
        raise SourceError(f"{where}: {error}") from error


def is_safe(file_name: str) -> bool:
    """Return whether a file name stays below the folder it is joined to."""
    parts = file_name.split("/")
    is_relative = parts[0] != "" and any(part not in ("", ".") for part in parts)
    return is_relative and ".." not in parts and not NEVER_IN_NAMES.search(file_name)


def normalised(file_name: str) -> str:
    """Return a safe file name in its shortest form: ./0.jpg and a//0.jpg become 0.jpg and a/0.jpg."""
    is_odd = "//" in file_name or "./" in file_name or file_name.endswith(("/", "/."))
    return str(PurePosixPath(file_name)) if is_odd else file_name


def short(value: Any) -> str:
    """Return a value as text for an error, shortened if it is large or deeply nested."""
    return SHORT.repr(value)


def doubles(values: Iterable[Any]) -> list[Any]:
    """Return the values that occur more than once."""
    return [value for value, count in Counter(values).items() if count > 1]
