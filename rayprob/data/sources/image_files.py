"""The files of an images folder, found by the names in a source: with or without a suffix, and through links."""

import posixpath
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rayprob.data.images import is_clutter, warn_of_skipped
from rayprob.data.sources.faults import normalised
from rayprob.data.sources.file_sizes import NOT_THERE, FileSizes
from rayprob.data.sources.parts import in_order
from rayprob.data.sources.sample_ids import hashes_of
from rayprob.errors import SourceError, StorageError
from rayprob.files import storage
from rayprob.files.folders import Files
from rayprob.files.uris import caseless
from rayprob.images.kinds import IMAGE_SUFFIXES
from rayprob.text import first_of

SIDES: tuple[Literal["left"], Literal["right"]] = ("left", "right")


class ImageFiles:
    """The files below a folder or URI; names are kept in `scratch`. Raises SourceError if it cannot be listed."""

    def __init__(self, folder: str, scratch: str | None = None) -> None:
        self.folder = folder
        self.clutter: list[str] = []
        self._files, self._unusable, self._again = self._listed(scratch)

    def __len__(self) -> int:
        return len(self._files)

    def find_all(self, names: list[str], other_names: Sequence[Sequence[str]]) -> tuple[NDArray[np.int64], dict[int, str]]:
        """Return the size of the file that `find` finds for each name [N], NOT_THERE for a missing file, and by row the names
        of files that are named differently in the source.
        """
        sizes_N, renamed = self._files.of(names), dict[int, str]()
        rows = np.flatnonzero(sizes_N == NOT_THERE).tolist()
        plain = [row for row in rows if not (other_names[row] or names[row].startswith(self._below_links))]
        stems = [row for row in plain if not names[row].lower().endswith(IMAGE_SUFFIXES)]
        found = dict(zip(stems, self._of_stem.find_all([names[row] for row in stems]), strict=True)) if stems else {}
        found |= {row: self.find(names[row], other_names[row]) for row in set(rows).difference(plain)}
        for row, place in found.items():
            if place is not None:
                renamed[row], sizes_N[row] = place
        return sizes_N, renamed

    def find(self, name: str, other_names: Iterable[str] = ()) -> tuple[str, int] | None:
        """Return the name and size of the file that a source calls `name`, or one of the other names; None if there is no file.

        A name without an image suffix stands for the one image with that stem.
        """
        if (size_bytes := self._size_of(name)) is not None:
            return name, size_bytes
        for other in map(normalised, other_names):
            if (size_bytes := self._size_of(other)) is not None:
                return other, size_bytes
        return self._of_stem.find_all([name])[0] if not name.lower().endswith(IMAGE_SUFFIXES) else None

    def why_absent(self, name: str) -> str:
        """Return what is there instead of a missing file, and what to do about it if that is known."""
        if name in self._unusable:
            return self._unusable[name]
        if several := self._of_stem.all(name):
            return f"{self.folder} has {first_of(several, 3)} of that name; give the name with its suffix"
        alike = self._alike.get(caseless(name))
        if alike is not None:
            form = "letter case" if alike.lower() == name.lower() else "letter case or the form of its accents (NFC, NFD)"
            return f"{self.folder} has {alike}, which differs in {form}; rename one of them"
        head, _, rest = name.partition("/")
        if head == posixpath.basename(self.folder.rstrip("/")) and self.find(rest):
            return f"{self.folder} has {rest}; give its parent as the images folder, since the names begin with {head}/"
        return f"no file of that name in {self.folder}"

    def warn_of_others(self, used: set[str]) -> None:
        """Log one line that counts hidden files without a name in the source, and names files that cannot be used."""
        clutter = [name for name in self.clutter if name not in used]
        warn_of_skipped(self.folder, clutter, self._unusable)

    def images(self) -> list[str]:
        """Return the sorted names of files with an image suffix, without clutter."""
        return sorted(name for name in self._files if name.lower().endswith(IMAGE_SUFFIXES) and not is_clutter(name))

    def _listed(self, scratch: str | None) -> tuple[FileSizes, Mapping[str, str], Sequence[str]]:
        try:
            if storage.is_folder(self.folder):
                chunks, unusable, again = storage.walk_below(self.folder, in_order)
                return FileSizes(map(self._noted, chunks), scratch), unusable, again
            reason = "it is a file" if storage.exists(self.folder) else "no such folder"
        except StorageError as error:
            reason = str(error)
        raise SourceError(f"cannot list the images folder {self.folder}: {reason}; give the folder that contains the images")

    def _noted(self, files: Files) -> Files:
        """Return the files unchanged, and record which of them are clutter."""
        self.clutter += [name for name, _ in files if is_clutter(name)]
        return files

    def _size_of(self, name: str) -> int | None:
        found = self._files.get(name)
        if found is None and name.startswith(self._below_links):
            uri = storage.join(self.folder, name)
            found = storage.size_bytes(uri) if storage.exists(uri) and not storage.is_folder(uri) else None
        return found

    @cached_property
    def _below_links(self) -> tuple[str, ...]:
        """Folders that are listed under another path."""
        return tuple(f"{link}/" for link in self._again)

    @cached_property
    def _of_stem(self) -> "_Stems":
        return _Stems(self._files)

    @cached_property
    def _alike(self) -> dict[str, str]:
        return {caseless(name): name for name in sorted(self._files)}


class _Stems:
    """The images of a folder by stem (name without suffix), found by a hash. F images."""

    def __init__(self, files: FileSizes) -> None:
        numbers: dict[str, int] = {}
        stems, endings, sizes = array("q"), array("i"), array("q")
        for name, size_bytes in files.items():
            if name.lower().endswith(IMAGE_SUFFIXES) and not is_clutter(name):
                stem, ending = posixpath.splitext(name)
                stems.append(hash(stem))
                endings.append(numbers.setdefault(ending, len(numbers)))
                sizes.append(size_bytes)
        self._endings: list[str] = list(numbers)
        hashes_F = np.frombuffer(stems, np.int64)
        order_F = np.argsort(hashes_F)
        self._hashes_F = hashes_F[order_F]
        self._endings_F, self._sizes_F = np.frombuffer(endings, np.int32)[order_F], np.frombuffer(sizes, np.int64)[order_F]

    def find_all(self, stems: list[str]) -> list[tuple[str, int] | None]:
        """Return the name and size of each stem's image; None if there is no image or more than one."""
        places = self._places(stems)
        return [(self._name(stem, some[0]), int(self._sizes_F[some[0]])) if len(some) == 1 else None for stem, some in places]

    def all(self, stem: str) -> list[str]:
        """Return the sorted names of the images of a stem."""
        ((_, places),) = self._places([stem])
        return sorted(self._name(stem, place) for place in places)

    def _places(self, stems: list[str]) -> Iterator[tuple[str, range]]:
        wanted_N = hashes_of(stems)
        starts, ends = (np.searchsorted(self._hashes_F, wanted_N, side=side).tolist() for side in SIDES)
        return zip(stems, map(range, starts, ends), strict=True)

    def _name(self, stem: str, place: int) -> str:
        return stem + self._endings[int(self._endings_F[place])]
