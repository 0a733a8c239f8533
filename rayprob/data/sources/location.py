"""A folder or file that the user gives: its contents, and which split a path names."""

import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from rayprob.data.images import is_clutter
from rayprob.errors import SourceError
from rayprob.files import storage
from rayprob.images.kinds import IMAGE_SUFFIXES
from rayprob.text import first_of

# In a path, whole words: instances_train2014.json, valid/_annotations.coco.json.
SPLITS = {"train": r"train(ing)?", "val": r"val(id|idation)?|dev", "test": r"test(ing)?"}
PROBED = 200


@dataclass(frozen=True)
class Location:
    """The folder `root` with the files in and below it, and which of them may have labels: all, or the one that was given."""

    root: str
    files: tuple[str, ...]  # below root, without clutter
    asked: tuple[str, ...]  # those of them that may have labels

    @classmethod
    def at(cls, path: str) -> "Location":
        """Return the location of a folder, or of a file and its folder. Raises SourceError if there is no such path."""
        if storage.is_folder(path):
            files = tuple(name for name in storage.list_below(path).size_of if not is_clutter(name))
            return cls(path, files, files)
        if not storage.exists(path):
            raise SourceError(f"cannot read {path}: no such file or folder; give the folder that contains images and labels")
        root, name = posixpath.split(path)
        files = tuple(one for one in storage.list_below(root or ".").size_of if not is_clutter(one))
        return cls(root or ".", files, (name,))

    def named(self, *suffixes: str) -> list[str]:
        """Return the files that may have labels and end with one of the suffixes."""
        return [name for name in self.asked if name.lower().endswith(suffixes)]

    def uri(self, name: str) -> str:
        """Return the path or URI of a file or folder below the root; an empty name is the root."""
        return storage.join(self.root, name) if name else self.root

    @cached_property
    def images(self) -> list[str]:
        """The files with an image suffix."""
        return [name for name in self.files if name.lower().endswith(IMAGE_SUFFIXES)]

    def folder_of(self, names: Iterable[str], split: str = "", beside: str = "") -> str | None:
        """Return the folder below the root in which most of these names are images, with or without suffix.

        If several tie, it is that of the split, then that of the file `beside`. None if no image has such a name.
        """
        votes = Counter(prefix for name in list(names)[:PROBED] for prefix in self._prefixes(name))
        if not votes:
            return None
        folder = posixpath.dirname(beside)
        best = max(votes, key=lambda prefix: (votes[prefix], split_in(prefix) == split, prefix.rstrip("/") == folder))
        return best.rstrip("/")

    def what_lies_there(self) -> str:
        """Return the number of files per suffix, for an error."""
        kinds = Counter(posixpath.splitext(name)[1].lower() or "no suffix" for name in self.files)
        return first_of([f"{count:,} {kind}" for kind, count in kinds.most_common()], 5) or "no files"

    def _prefixes(self, name: str) -> Iterator[str]:
        stem = posixpath.splitext(name)[0] if name.lower().endswith(IMAGE_SUFFIXES) else name
        for path in self._by_stem.get(posixpath.basename(stem), ()):
            end = path if path.endswith(name) else posixpath.splitext(path)[0]
            if end == name or end.endswith(f"/{name}"):
                yield end[: len(end) - len(name)]

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for path in self.images:
            found.setdefault(posixpath.splitext(posixpath.basename(path))[0], []).append(path)
        return found


def split_in(path: str) -> str | None:
    """Return the split that a path names, the file's name before its folders; None if it does not name one."""
    for part in reversed(path.lower().split("/")):
        for split, pattern in SPLITS.items():
            if re.search(rf"(?<![a-z])({pattern})(?![a-z])", part):
                return split
    return None


def by_split(names: Iterable[str], what: str) -> dict[str, str]:
    """Return the file or folder of each split, train first; a single one is train, whatever its name. Raises SourceError."""
    some = list(names)
    if len(some) == 1:
        return {"train": some[0]}
    found: dict[str, str] = {}
    for name in some:
        split = split_in(name)
        if split is None:
            raise SourceError(f"{what}: {name} does not name a split; put train, val or test into its name, or give one file")
        if split in found:
            raise SourceError(f"{what}: {found[split]} and {name} are both for {split}; give one of them")
        found[split] = name
    if "train" not in found:
        raise SourceError(f"{what}: there are {', '.join(found)} but no train; give the folder that contains both")
    return {split: found[split] for split in SPLITS if split in found}
