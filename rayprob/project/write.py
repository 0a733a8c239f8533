"""Writes a project: recipe, run file, sweep file and a README with their commands. Never overwrites a file."""

import json
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from rayprob import __version__
from rayprob.errors import StorageError
from rayprob.project.fitting import Fit, Network
from rayprob.project.found import Found
from rayprob.text import first_of

# A command in the header of a file, with continuation lines.
COMMAND = re.compile(r"^#   (rayprob (?:.*\\\n#\s+)*.*)$", re.M)
INTRODUCTION = f"""\
Written by `rayprob new`. Each file opens with what it does; run its commands in this folder, with rayprob {__version__}
installed. CHECKOUT is the folder of its source:

```
. CHECKOUT/.venv/bin/activate      # the environment that `make demo` creates there
pip install CHECKOUT               # or install it into the active environment
```

Then:"""
TIMM_EXTRA = "pip install 'rayprob[timm]'"
NAME_LETTERS = re.compile(r"[^a-z0-9_-]+")


@dataclass(frozen=True)
class Written:
    """A project as it was written."""

    folder: Path
    files: tuple[str, ...]  # below the folder
    next_commands: tuple[str, ...]


def write_project(folder: str, files: dict[str, str]) -> Written:
    """Write the files of a project and a README into a folder, which is created if missing.

    Raises StorageError, before anything is written, if the folder already has one of the files or is not writable.
    """
    home = Path(folder).expanduser()
    files = {**files, "README.md": readme(home.resolve().name, files)}
    try:
        existing = [name for name in files if (home / name).exists()]
        if existing:
            raise StorageError(
                f"{folder} already has {first_of(existing, 4)}; `rayprob new` never overwrites files: give a new folder"
            )
        for name, text in files.items():
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            with (home / name).open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise StorageError(
            f"cannot write {error.filename or folder}: {error.strerror}; give a folder you can write to"
        ) from error
    first_run = next(text for name, text in files.items() if name.startswith("tune_configs/"))
    missing = () if find_spec("timm") else extras_of(files)
    return Written(home, tuple(files), (*missing, *commands_in(first_run)))


def commands_in(text: str) -> tuple[str, ...]:
    """Return the rayprob commands in the header of a file, in order."""
    return tuple(re.sub(r"\\\n#\s+", "", command) for command in COMMAND.findall(text))


def extras_of(files: dict[str, str]) -> tuple[str, ...]:
    """Return the command that installs what the run files need beyond rayprob's own dependencies, if anything."""
    return (TIMM_EXTRA,) if any("backbone: timm/" in text for text in files.values()) else ()


def readme(title: str, files: dict[str, str]) -> str:
    """Return a README: how to install rayprob, then the commands of each run file, including those of its recipe."""
    commands = {name: commands_in(text) for name, text in files.items() if name.startswith("tune_configs/")}
    blocks = [extras_of(files), *((f"# {name}", *lines) for name, lines in commands.items())]
    body = "\n\n".join("\n".join(lines) for lines in blocks if lines)
    return f"# {title}\n\n{INTRODUCTION}\n\n```\n{body}\n```\n"


def name_for(folder: str) -> str:
    """Return a name for the dataset and the run of a project, derived from its folder's name."""
    return NAME_LETTERS.sub("-", Path(folder).expanduser().resolve().name.lower()).strip("-_") or "mine"


def files_for(name: str, found: Found, fit: Fit, network: Network) -> dict[str, str]:
    """Return the files of a project that fits what was found, by their paths."""
    environment = Environment(  # YAML, not HTML; names from users are quoted
        loader=PackageLoader("rayprob.project"), undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True
    )
    environment.filters["quoted"] = _quoted
    facts = {"name": name, "found": found, "fit": fit, "network": network}
    templates = {
        f"shards/{name}.yaml": "recipe.yaml",
        f"tune_configs/{name}.yaml": "run_file.yaml",
        f"tune_configs/{name}-sweep.yaml": "sweep_file.yaml",
    }
    return {path: environment.get_template(template).render(facts) for path, template in templates.items()}


def _quoted(value: Any) -> str:
    """Return a value as YAML in one line, text in quotes only where it needs them."""
    text = value if isinstance(value, str) else ""
    return text if re.fullmatch(r"[A-Za-z_/.][\w/. -]*[\w/.]", text) else json.dumps(value, ensure_ascii=False)
