"""The files that a path stands for: one file, those in a folder, or those that match a pattern."""

from fnmatch import fnmatchcase

import braceexpand

from rayprob.data.images import is_clutter
from rayprob.errors import SourceError
from rayprob.files import storage, uris

WILDCARDS = frozenset("*?[{")


def files_of(given: str, suffixes: tuple[str, ...], *, refused: tuple[str, ...] = ()) -> list[str]:
    """Return the sorted files that `given` stands for: one file, those of a pattern, or those in and below a folder.

    A pattern may contain `*`, `?` and `[abc]` in its last part, and braces such as `{000..012}` anywhere. Files in a folder
    count if they end with one of `suffixes`, or of `refused`, which the caller reports. Raises SourceError if there is no file.
    """
    found = sorted({file for one in _expanded(given) for file in _files(one, (*suffixes, *refused))})
    if not found:
        raise SourceError(f"{given} matches no file that ends with {' or '.join(suffixes)}; check the path")
    return found


def _expanded(given: str) -> list[str]:
    if "{" not in given or storage.exists(given):
        return [given]
    try:
        return list(braceexpand.braceexpand(given))
    except ValueError as error:
        raise SourceError(f"{given} has unbalanced braces ({error}); write for example shard-{{000..012}}.tar") from error


def _files(one: str, suffixes: tuple[str, ...]) -> list[str]:
    if storage.is_folder(one):
        names = [name for name in storage.list_below(one).size_of if not is_clutter(name) and name.lower().endswith(suffixes)]
        return [storage.join(one, name) for name in names]
    folder, name = uris.split(one)
    if not WILDCARDS & set(name) or storage.exists(one):
        return [one] if storage.exists(one) else []
    return [storage.join(folder or ".", found) for found in storage.list_names(folder or ".") if fnmatchcase(found, name)]
