"""A Sphinx directive, `{commands}`: every verb of the command line with its arguments and options, from the app itself."""

import inspect
import re
import typing
from collections.abc import Callable, Iterator
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from typer.models import ArgumentInfo, OptionInfo

from rayprob.cli.app import app as rayprob_app


class Commands(SphinxDirective):
    """One section for each verb."""

    def run(self) -> list[nodes.Node]:
        found: list[nodes.Node] = []
        for command in rayprob_app.registered_commands:
            assert command.callback
            name = command.name or command.callback.__name__.replace("_", "-")
            section = nodes.section(ids=[f"rayprob-{name}"], names=[f"rayprob {name}"])
            section += nodes.title("", f"rayprob {name}")
            self.state.document.note_explicit_target(section)
            self.state.nested_parse(StringList(list(described(name, command.callback)), source=name), 0, section)
            found.append(section)
        return found


def described(name: str, verb: Callable[..., Any]) -> Iterator[str]:
    """Yield the Markdown of one verb."""
    rows = list(parameters(verb))
    arguments = [label for label, _, is_option in rows if not is_option]
    yield from ("```", " ".join(["rayprob", name, *arguments, "[OPTIONS]"]), "```", "")
    yield from paragraphs(inspect.getdoc(verb) or "")
    yield from ("", "| | |", "|---|---|", *(f"| `{label}` | {cell(text)} |" for label, text, _ in rows), "")


def parameters(verb: Callable[..., Any]) -> Iterator[tuple[str, str, bool]]:
    """Yield how each parameter is written, its help, and whether it is an option."""
    hints = typing.get_type_hints(verb, include_extras=True)
    for name, parameter in inspect.signature(verb).parameters.items():
        kind, *marks = typing.get_args(hints[name])
        mark = next((mark for mark in marks if isinstance(mark, OptionInfo | ArgumentInfo)), None)
        if isinstance(mark, ArgumentInfo):
            yield mark.metavar or name.upper(), mark.help or "", False
        elif mark and not mark.hidden:
            # In Annotated, typer treats the first name as a default until it builds the command.
            words = [word for word in (mark.default, *(mark.param_decls or ())) if isinstance(word, str)]
            given = [word for word in words if word.startswith("-")] or [f"--{name.replace('_', '-')}"]
            value = "" if kind is bool else f" {mark.metavar or name.upper()}"
            yield f"{', '.join(given)}{value}", f"{mark.help or ''}{default(parameter.default)}", True


def default(value: object) -> str:
    """Return a default in brackets, or "" if there is none worth mentioning."""
    return "" if value in (None, False, inspect.Parameter.empty) or value == [] else f" [default: {value}]"


def paragraphs(text: str) -> Iterator[str]:
    """Yield help text as Markdown; an indented block is kept verbatim."""
    for block in re.split(r"\n\s*\n", text.replace("\b", "")):
        lines = block.strip("\n").split("\n")
        is_code = all(line.startswith("  ") for line in lines)
        yield from (["```", *(line.strip() for line in lines), "```", ""] if is_code else [*lines, ""])


def cell(text: str) -> str:
    """Return text that fits into one table cell."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def setup(app: Sphinx) -> dict[str, bool]:
    """Make the directive known to Sphinx."""
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True}
