"""Names figure files: one PNG per image, named after the image, in a folder that may already hold figures.

Each figure records which image it shows, so that rerunning a command replaces its own figures and no other file.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath

from rayprob.files import storage
from rayprob.files.uris import absolute, caseless
from rayprob.predict.images import Image
from rayprob.text import counted

MARK = "rayprob image"  # key of a PNG text chunk
MARK_BYTES = 4096  # at the beginning of a file, which contain its mark
MOST_BYTES = 200  # per name: file systems allow 255, and a file being written has a longer name
NUMBERED = re.compile(r"(.+)-\d+")


class FigureFiles:
    """Chooses the file names of one call in a folder, and counts replaced and numbered files for the summary."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._there = {caseless(name): name for name in storage.list_names(folder) if name.lower().endswith(".png")}
        self._families = _families(self._there)
        self._marks: dict[str, bytes] = {}
        self._given: set[str] = set()
        self._next: dict[str, int] = {}
        self.num_replaced = 0
        self.num_numbered = 0

    def path_for(self, image: Image) -> str:
        """Return the path for the figure of an image: that of its earlier figure, or a new name.

        Names that differ only in case count as equal, because some file systems ignore case. Deterministic: the result
        depends only on the folder and the images passed so far.
        """
        stem = file_stem(image.name)
        name = self._own(stem, mark_of(image).encode()) or self._free(stem)
        self._given.add(caseless(name))
        self.num_replaced += caseless(name) in self._there
        self.num_numbered += caseless(name) != caseless(f"{stem}.png")
        return storage.join(self._folder, name)

    def summary(self) -> str:
        """Return one line: how many figures were written, how many replaced earlier ones, and how many have numbers and why."""
        parts = [f"{self._folder}: {counted(len(self._given), 'figure')} written"]
        if self.num_replaced:
            parts.append(f"{self.num_replaced:,} replaced an earlier figure of the same image")
        if self.num_numbered:
            parts.append(f"{self.num_numbered:,} with a number added, because the name was taken")
        return ", ".join(parts)

    def _own(self, stem: str, mark: bytes) -> str | None:
        """Return the file in the folder that is this image's figure from an earlier call."""
        family = [key for key in self._families.get(caseless(stem), ()) if key not in self._given]
        return next((self._there[key] for key in family if mark in self._mark(key)), None)

    def _free(self, stem: str) -> str:
        number = self._next.get(caseless(stem), 1)
        while self._is_taken(name := f"{stem}-{number}.png" if number > 1 else f"{stem}.png"):
            number += 1
        self._next[caseless(stem)] = number
        return name

    def _is_taken(self, name: str) -> bool:
        return caseless(name) in self._given or caseless(name) in self._there

    def _mark(self, key: str) -> bytes:
        if key not in self._marks:
            uri = storage.join(self._folder, self._there[key])
            self._marks[key] = storage.read_bytes(uri, 0, min(MARK_BYTES, storage.size_bytes(uri)))
        return self._marks[key]


def mark_of(image: Image) -> str:
    """Return an identifier of an image: 32 hex digits derived from its location, the same in any working directory."""
    return hashlib.sha256(absolute(image.name).encode(errors="surrogateescape")).hexdigest()[:32]


def file_stem(name: str) -> str:
    """Return a file name for an image, without suffix: not hidden, not too long, without control characters."""
    stem = "".join("_" if unicodedata.category(letter) in ("Cc", "Cs") else letter for letter in PurePosixPath(name).stem)
    short = stem.lstrip(".").encode()[:MOST_BYTES].decode(errors="ignore")
    return short or "image"


def _families(keys: Iterable[str]) -> dict[str, list[str]]:
    """Return, by stem, the files that may be figures of images with that stem: STEM.png and STEM-NUMBER.png."""
    families: dict[str, list[str]] = {}
    for key in keys:
        stem = key.removesuffix(".png")
        families.setdefault(stem, []).append(key)
        if numbered := NUMBERED.fullmatch(stem):
            families.setdefault(numbered[1], []).append(key)
    return families
