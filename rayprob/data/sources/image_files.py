"""The files of an images folder, found by the names that a source gives: with or without a suffix, and by links."""

import posixpath
from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property

from rayprob.data.images import is_clutter, warn_of_skipped
from rayprob.data.sources.faults import normalised
from rayprob.errors import SourceError, StorageError
from rayprob.files import storage
from rayprob.files.folders import Listing
from rayprob.files.uris import caseless
from rayprob.images.kinds import IMAGE_SUFFIXES
from rayprob.text import first_of


class ImageFiles:
    """The files below a folder or URI. Raises SourceError where it cannot be listed."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._listing = _list_files(folder)

    def __len__(self) -> int:
        return len(self._listing.size_of)

    def find(self, name: str, other_names: Iterable[str] = ()) -> tuple[str, int] | None:
        """Return the name and size of the file that a source calls `name`, or one of the other names; None where none is there.

        A name without the suffix of an image is that of the one image that has it before its suffix.
        """
        if (size_bytes := self._size_of(name)) is not None:
            return name, size_bytes
        for other in map(normalised, other_names):
            if (size_bytes := self._size_of(other)) is not None:
                return other, size_bytes
        alike = self._of_stem.get(name, ()) if not name.lower().endswith(IMAGE_SUFFIXES) else ()
        return (alike[0], self._listing.size_of[alike[0]]) if len(alike) == 1 else None

    def why_absent(self, name: str) -> str:
        """Return what is there in the place of a file that was not found, and what to do where that is known."""
        if name in self._listing.unusable:
            return self._listing.unusable[name]
        if several := self._of_stem.get(name, ()):
            return f"{self.folder} has {first_of(several, 3)} of that name; give the name with its suffix"
        alike = self._alike.get(caseless(name))
        if alike is not None:
            form = "letter case" if alike.lower() == name.lower() else "letter case or the form of its accents (NFC, NFD)"
            return f"{self.folder} has {alike}, which differs in {form}; rename one of them"
        head, _, rest = name.partition("/")
        if head == posixpath.basename(self.folder.rstrip("/")) and self.find(rest):
            return f"{self.folder} has {rest}; give its parent as the images folder, for the names begin with {head}/"
        return f"no file of that name in {self.folder}"

    def warn_of_others(self, used: set[str]) -> None:
        """Log one line on hidden files that no name led to, and on those that cannot be used."""
        clutter = [name for name in self._listing.size_of if is_clutter(name) and name not in used]
        warn_of_skipped(self.folder, clutter, self._listing.unusable)

    def images(self) -> list[str]:
        """Return the names of files with the suffix of an image, without clutter."""
        return [name for name in self._listing.size_of if name.lower().endswith(IMAGE_SUFFIXES) and not is_clutter(name)]

    def _size_of(self, name: str) -> int | None:
        found = self._listing.size_of.get(name)
        if found is None and name.startswith(self._below_links):
            uri = storage.join(self.folder, name)
            found = storage.size_bytes(uri) if storage.exists(uri) and not storage.is_folder(uri) else None
        return found

    @cached_property
    def _below_links(self) -> tuple[str, ...]:
        """Folders that are listed under another path."""
        return tuple(f"{link}/" for link in self._listing.again)

    @cached_property
    def _of_stem(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for name in self.images():
            found[posixpath.splitext(name)[0]].append(name)
        return dict(found)

    @cached_property
    def _alike(self) -> dict[str, str]:
        return {caseless(name): name for name in self._listing.size_of}


def _list_files(folder: str) -> Listing:
    try:
        if storage.is_folder(folder):
            return storage.list_below(folder)
        reason = "it is a file" if storage.exists(folder) else "no such folder"
    except StorageError as error:
        reason = str(error)
    raise SourceError(f"cannot list the images folder {folder}: {reason}; give the folder that holds the images")
