"""The commands of rayprob that documents show, and what the command line says of them. For tests of documents and of help."""

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer
from typer.main import get_command

from rayprob.calibrate.search_spec import ThresholdSearch
from rayprob.cli.app import app
from rayprob.config.spec import override, read_yaml
from rayprob.data.building.recipe import Recipe
from rayprob.errors import RayprobError
from rayprob.runs.spec import Run
from rayprob.serve.spec import ServeFile
from rayprob.sweep.search import Sweep
from rayprob.systems.spec import SystemsFile
from rayprob.train.refit import RefitSpec

FENCED = re.compile(r"^```\w*\n(.*?)^```$", re.M | re.S)
SPAN = re.compile(r"`([^`\n]+)`")
# In a header of YAML or shell, commands are indented by more than prose.
INDENTED = re.compile(r"^#(?: {2,}|\t)(.*)$", re.M)
# Where a command begins: a line, a prompt, another command's end; and cluster/slurm.sh, which takes a verb in rayprob's place.
COMMAND = re.compile(
    r"(?:(?:^ *|[$;&] *|-- |bin/|python -m |next: | {3,})rayprob|sbatch .*slurm\.sh) (-*[a-z].*?)(?= {3,}rayprob|$)"
)
ENDS = {"|", "&", "&&", ";", ">", "2>", "||"}


def blocks(text: str) -> list[str]:
    """Return the code blocks of a Markdown page."""
    return FENCED.findall(text)


def header_commands(text: str) -> str:
    """Return what is indented in the comments of a file, without the comment signs."""
    return "\n".join(INDENTED.findall(text))


def rayprob_commands(code: str) -> Iterator[list[str]]:
    """Yield the arguments of each `rayprob` command in lines of shell; a comment, a pipe, `;` or wide space ends it."""
    for line in re.sub(r"\\\n\s*", "", code).splitlines():
        for found in COMMAND.finditer(line):
            yield _until_its_end(found[1])


def _until_its_end(text: str) -> list[str]:
    lexer = shlex.shlex(text, posix=True, punctuation_chars="|&;")
    lexer.whitespace_split, lexer.commenters = True, "#"
    try:
        words = list(lexer)
    except ValueError:  # an apostrophe of prose behind a command
        words = text.split("#")[0].split()
    end = next((place for place, word in enumerate(words) if word in ENDS or set(word) <= set("|&;")), len(words))
    return words[:end]


def verbs() -> dict[str, Any]:
    """Return the commands of the app by name."""
    group: Any = get_command(app)
    return dict(group.commands)


def fault_of(arguments: list[str], *, whole: bool = True) -> str | None:
    """Return what the command line says against arguments, nothing of which is run; `whole` asks for all that is required."""
    known = verbs()
    if not arguments or arguments[0] not in known:
        return f"unknown verb {arguments[:1]}"
    verb = known[arguments[0]]
    if not whole:
        options = {name for param in verb.params for name in (*param.opts, *param.secondary_opts)} | {"-h", "--help"}
        unknown = [word for word in arguments[1:] if re.fullmatch(r"--?[a-z][a-z-]*", word) and word not in options]
        return f"unknown options {unknown}" if unknown else None
    try:
        verb.make_context(arguments[0], list(arguments[1:]))
    except typer.Exit:
        return None
    except Exception as error:
        return str(getattr(error, "message", error))
    return None


def _read_by_its_keys(file: str, overrides: list[str]) -> object:
    keys = read_yaml(file, overrides)
    readers = {"thresholds": ThresholdSearch, "systems": SystemsFile, "search": Sweep, "bundles": ServeFile}
    reader: Any = next((reader for key, reader in readers.items() if key in keys), Run)
    return reader.read(file, overrides)


READERS: dict[str, Callable[[str, list[str]], object]] = {
    **dict.fromkeys(("train", "lr-find", "tune", "submit"), _read_by_its_keys),
    "shard": Recipe.read,
    "refit": lambda _, overrides: RefitSpec.parse(override({}, overrides), where="refit"),
}


def fault_of_keys(arguments: list[str], root: Path) -> str | None:
    """Return what is wrong with the keys that a command sets by `--set`, of a file below `root` or of a refit."""
    verb, *rest = arguments
    overrides = [rest[place + 1] for place, word in enumerate(rest[:-1]) if word == "--set"]
    file = next((word for word in rest if word.endswith(".yaml") and (root / word).exists()), "")
    is_example = "..." in arguments or any(text.startswith("plugins=") for text in overrides)  # a reader fills it in
    if not overrides or verb not in READERS or not (file or verb == "refit") or is_example:
        return None
    try:
        READERS[verb](str(root / file), overrides)
    except RayprobError as error:
        return str(error)
    return None
