"""The files that a path stands for: itself, those of a folder, or those that fit its wildcards."""

from fnmatch import fnmatchcase

import braceexpand

from rayprob.data.images import is_clutter
from rayprob.errors import SourceError
from rayprob.files import storage, uris

WILDCARDS = frozenset("*?[{")


def files_of(given: str, suffixes: tuple[str, ...], *, refused: tuple[str, ...] = ()) -> list[str]:
    """Return the sorted files that `given` stands for: one, those in a folder and below with the suffixes, or a pattern's.

    In its last part a pattern may have `*`, `?`, `[abc]`, and anywhere braces such as `{000..012}`. Of a folder, files with the
    suffixes `refused` are returned as well, so that the caller can name them. Raises SourceError where no file is there.
    """
    found = sorted({file for one in _expanded(given) for file in _files(one, (*suffixes, *refused))})
    if not found:
        raise SourceError(f"{given} leads to no file that ends with {' or '.join(suffixes)}; check the path")
    return found


def _expanded(given: str) -> list[str]:
    if "{" not in given or storage.exists(given):
        return [given]
    try:
        return list(braceexpand.braceexpand(given))
    except ValueError as error:
        raise SourceError(f"{given} has braces that do not fit ({error}); write for example shard-{{000..012}}.tar") from error


def _files(one: str, suffixes: tuple[str, ...]) -> list[str]:
    if storage.is_folder(one):
        names = [name for name in storage.list_below(one).size_of if not is_clutter(name) and name.lower().endswith(suffixes)]
        return [storage.join(one, name) for name in names]
    folder, name = uris.split(one)
    if not WILDCARDS & set(name) or storage.exists(one):
        return [one] if storage.exists(one) else []
    return [storage.join(folder or ".", found) for found in storage.list_names(folder or ".") if fnmatchcase(found, name)]
