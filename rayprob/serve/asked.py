"""From the arguments of `rayprob serve` to a `ServeFile`: folders by name, or one YAML file, and what overrides it."""

from collections.abc import Mapping, Sequence
from typing import Any

from rayprob.config.spec import assigned, override, read_kind, with_overrides
from rayprob.errors import SpecError
from rayprob.serve.spec import ServeFile, name_and_folder, run_name

COMMAND = "rayprob serve"
OPTIONS = {
    "host": "--host",
    "port": "--port",
    "token_file": "--token-file",
    "replicas.number": "--replicas",
    "replicas.most": "--max-replicas",
    "batch.images": "--batch",
}


def read_served(bundles: Sequence[str], given: Mapping[str, Any], overrides: Sequence[str]) -> ServeFile:
    """Return what to serve; `given` are values of options by the dotted keys of OPTIONS, and None leaves a key alone.

    Raises SpecError for two bundles with the same name, and for values that do not fit, by the names of their options.
    """
    is_file = len(bundles) == 1 and bundles[0].endswith((".yaml", ".yml"))
    where = bundles[0] if is_file else COMMAND

    def read(overrides: Sequence[str]) -> ServeFile:
        value = read_kind(bundles[0], (), ServeFile.file_kind) if is_file else {"bundles": _by_name(bundles)}
        for key, to in given.items():
            value = value if to is None else assigned(value, key, to, OPTIONS[key])
        return ServeFile.parse(override(value, overrides), where, options=OPTIONS)

    return with_overrides(read, overrides)


def _by_name(bundles: Sequence[str]) -> dict[str, str]:
    """Return the folders by name: as asked, or that of the run, or that of the folder if another run has the same name."""
    named: dict[str, str] = {}
    for text in bundles:
        name, folder = name_and_folder(text)
        of_run = run_name(folder) if folder == text else ""
        name = of_run if of_run and of_run not in named else name
        if name in named:
            raise SpecError(f"two bundles are named {name}: {named[name]} and {folder}; name them, NAME=FOLDER")
        named[name] = folder
    return named
