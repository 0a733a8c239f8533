"""Plugins: modules outside this package that register parts by name.

A run file lists them, `plugins: [my_parts]`, and a module ends with its tables: HEADS = {"wide": WideHead}. Modules are
imported by name, from Python's path, from the folder of the file that lists them, or from the working folder.
"""

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from rayprob.errors import RayprobError, SpecError, one_line
from rayprob.registry import OPEN, TABLES

_folders: list[str] = []


def look_in(folders: Iterable[str | Path]) -> None:
    """Also look for plugins in these folders, after Python's path. Processes that start later inherit the folders."""
    for folder in map(os.path.abspath, folders):
        if folder not in _folders:
            _folders.append(folder)
        if folder not in sys.path:
            sys.path.append(folder)


def folders() -> list[str]:
    """Return the folders in which this process looks for plugins besides Python's path, for `look_in` in another process."""
    return list(_folders)


def load(names: Sequence[str], error: type[RayprobError] = SpecError, *, of: str = "", was: str = "") -> None:
    """Import the modules `names` and register their parts, once; the next call also fills tables that are defined later.

    Raises `error` for a module that is missing or fails, SpecError for a clash of names. Messages name the owner of the
    plugins, `of`, and the path at which one of them `was` before.
    """
    if names:
        look_in([os.getcwd()])
    for name in names:
        module = _imported(name, error, of, was)
        found = {table: getattr(module, table) for table in TABLES if hasattr(module, table)}
        if not found:
            raise error(f"the plugin {name} defines none of the tables {', '.join(TABLES)}; add one at the end of the module")
        for table, parts in found.items():
            if table in OPEN:
                _require_own(name, table, parts)
                OPEN[table].join(parts, name)


def file_of(name: str) -> Path:
    """Return the path of a plugin: the file of its module, or the folder of its outermost package. Raises SpecError."""
    spec = importlib.util.find_spec(name.partition(".")[0])
    if spec is None:
        raise SpecError(_absence(name, "", ""))
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(spec.origin or "")


def _imported(name: str, error: type[RayprobError], of: str, was: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise error(f"plugins must be module names, such as my_parts for a my_parts.py next to the file; got {name!r:.200}")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name is None or not f"{name}.".startswith(f"{missing.name}."):
            raise error(_failure(name, missing)) from None  # the plugin exists, but a module that it imports does not
        raise error(_absence(name, of, was)) from None
    except (Exception, SystemExit) as failure:
        raise error(_failure(name, failure)) from None


def _absence(name: str, of: str, was: str) -> str:
    top = name.partition(".")[0]
    missing = f"there is no module {name}, a plugin{f' of {of}' if of else ''}"
    if was:
        return f"{missing}; it was {was}: export PYTHONPATH={os.path.dirname(was)}, install its package, or copy it here"
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


def _require_own(name: str, table: str, parts: Any) -> None:
    if parts is OPEN[table]:
        raise SpecError(
            f'the plugin {name} imports {table} from rayprob; define its own table instead: {table} = {{"name": part}}'
        )
    if not isinstance(parts, dict):
        raise SpecError(
            f"the table {table} of the plugin {name} is a {type(parts).__name__}; it must be a dict of parts by name"
        )
