"""Plugins: modules outside this package that register parts by name.

A run file lists them, `plugins: [my_parts]`, and a module ends with its tables: HEADS = {"wide": WideHead}. Modules are
imported by name, from Python's path, from the folder of the file that lists them, or from the working folder.
"""

import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from rayprob.errors import RayprobError, SpecError, one_line
from rayprob.registry import OPEN, TABLES, PartTable

_folders: list[str] = []
_added: list[str] = []  # those that were not in Python's path before


def look_in(folders: Iterable[str | Path]) -> None:
    """Also look for plugins in these folders, after Python's path. Processes that start later inherit the folders."""
    for folder in map(os.path.abspath, folders):
        if folder not in _folders:
            _folders.append(folder)
        if folder not in sys.path:
            sys.path.append(folder)
            _added.append(folder)


def look_beside(files: Iterable[str | Path], names: Sequence[str]) -> None:
    """Also look for the plugins `names` in the folders of the files that list them.

    Raises SpecError if a new process would import another module of that name than this process.
    """
    beside = [os.path.dirname(os.path.abspath(file)) for file in files]
    look_in(beside)
    for name in names:
        expected = _file_in_new_process(name, beside)
        if expected is not None:
            _require_file(name, [expected], SpecError)


def folders() -> list[str]:
    """Return the folders in which this process looks for plugins besides Python's path, for `look_in` in another process."""
    return list(_folders)


def load(names: Sequence[str], error: type[RayprobError] = SpecError, *, of: str = "", was: str = "") -> None:
    """Import the modules `names` and register their parts, once; the next call also fills tables that are defined later.

    Raises `error` for a module that is missing or that fails, and for one of the same name that this process has imported from
    elsewhere; SpecError for a clash of names. For messages, `of` is what lists the plugins, and `was` a plugin's former path.
    """
    if names:
        look_in([os.getcwd()])
    for name in names:
        if name in sys.modules and os.path.exists(was):
            _require_file(name, [Path(was), _file_in_new_process(name, ()) or Path(was)], error)
        module = _imported(name, error, of, was)
        found = {table: getattr(module, table) for table in TABLES if hasattr(module, table)}
        if not found:
            raise error(f"the plugin {name} defines none of the tables {', '.join(TABLES)}; add one at the end of the module")
        opened = [(OPEN[table], parts) for table, parts in found.items() if table in OPEN]
        for table, parts in opened:  # check all tables first, so that either all parts of a module are added or none
            _require_own(name, table, parts)
            table.require_free(parts, name)
        for table, parts in opened:
            table.join(parts, name)


def file_of(name: str) -> Path:
    """Return the path of a plugin: the file of its module, or the folder of its outermost package. Raises SpecError."""
    _require_name(name, SpecError)
    spec = _found(name.partition(".")[0])
    if spec is None:
        raise SpecError(_absence(name, "", ""))
    return _place_of(spec)


def sum_of(name: str) -> str:
    """Return the sha256 of a plugin's module file; it does not cover other files of a package."""
    spec = _found(name)
    return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest() if spec and spec.origin and spec.has_location else ""


def _found(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):  # its parent fails or is not a package, or it has no spec, such as __main__
        return None


def _place_of(spec: ModuleSpec) -> Path:
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(spec.origin or "")


def _file_in_new_process(name: str, beside: Sequence[str]) -> Path | None:
    """Return `file_of` a plugin in a new process, if files in the folders `beside` list it."""
    own = [folder for folder in sys.path if folder not in _added]
    spec = PathFinder.find_spec(name.partition(".")[0], [*own, *beside, os.getcwd()])
    return None if spec is None else _place_of(spec)


def _require_file(name: str, expected: Sequence[Path], error: type[RayprobError]) -> None:
    found = file_of(name)
    if os.path.realpath(found) not in map(os.path.realpath, expected):
        raise error(
            f"the plugin {name} is {found} in this process, where {expected[0]} is needed; a process can import only one "
            "module of a name: use one of them in another process, or rename one"
        )


def _imported(name: str, error: type[RayprobError], of: str, was: str) -> ModuleType:
    _require_name(name, error)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name is None or not f"{name}.".startswith(f"{missing.name}."):
            raise error(_failure(name, missing)) from None  # the plugin exists, but a module that it imports does not
        raise error(_absence(name, of, was)) from None
    except (Exception, SystemExit) as failure:
        raise error(_failure(name, failure)) from None


def _require_name(name: str, error: type[RayprobError]) -> None:
    if not all(part.isidentifier() for part in name.split(".")) or name == "__main__":
        raise error(f"plugins must be module names, such as my_parts for a my_parts.py next to the file; got {name!r:.200}")


def _absence(name: str, of: str, was: str) -> str:
    top = name.partition(".")[0]
    missing = f"there is no module {name}, a plugin{f' of {of}' if of else ''}"
    if was:
        return f"{missing}; it was at {was}: export PYTHONPATH={os.path.dirname(was)}, install its package, or copy it here"
    return (
        f"{missing}; put {top}.py next to the file that lists it or into the working folder, install its package, "
        "or add its folder to Python's path: export PYTHONPATH=FOLDER"
    )


def _failure(name: str, failure: BaseException) -> str:
    """Return the exception that importing a module raised, and the line in it."""
    where = _place(failure)
    return f"the plugin {name} cannot be imported: {type(failure).__name__}: {one_line(failure)}{where}; fix it there"


def _place(failure: BaseException) -> str:
    if isinstance(failure, SyntaxError) and failure.filename:
        return f" ({failure.filename}, line {failure.lineno})"
    frames = traceback.extract_tb(failure.__traceback__)
    not_own = (__file__, importlib.__file__, "<frozen importlib._bootstrap>", "<frozen importlib._bootstrap_external>")
    own = [frame for frame in frames if frame.filename not in not_own]
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""


def _require_own(name: str, table: PartTable[Any], parts: Any) -> None:
    if parts is table:
        raise SpecError(
            f"the plugin {name} imports {table.name} from rayprob; define its own table instead: "
            f'{table.name} = {{"name": part}}'
        )
    if not isinstance(parts, dict):
        found = type(parts).__name__
        raise SpecError(f"the table {table.name} of the plugin {name} is a {found}; it must be a dict of parts by name")
