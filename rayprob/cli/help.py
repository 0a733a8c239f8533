"""The layout of `--help`: verbs in panels, no line cut at 80 columns, and a verb's examples at the end, as they are typed.

A verb's docstring is its help: a first line of at most 66 letters, which the list of verbs shows; then the details; then
`Examples:` with one command per line.
"""

from collections.abc import Iterable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

EXAMPLES = "\nExamples:\n\n"


class Verb(TyperCommand):
    """A verb whose examples follow its options, line by line as in its docstring."""

    @property
    def summary(self) -> str:
        """The first line of the help, without its full stop."""
        return (self.help or "").partition("\n")[0].rstrip(".")

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """Write the help without its examples."""
        _write_text(formatter, (self.help or "").partition(EXAMPLES)[0])

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options; arguments by name only, since the usage line shows whether they are required."""
        records: dict[str, list[tuple[str, str]]] = {"argument": [], "option": []}
        for param in self.get_params(ctx):
            if record := param.get_help_record(ctx):
                records[param.param_type_name].append(record)
        arguments = [(name.partition(" ")[0], text.removesuffix("[required]").rstrip()) for name, text in records["argument"]]
        _write_list(formatter, "Arguments", arguments)
        _write_list(formatter, "Options", records["option"])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, one per line and never wrapped, so that they can be copied."""
        write_verbatim(formatter, "Examples", (self.help or "").partition(EXAMPLES)[2].splitlines())


class Verbs(TyperGroup):
    """The list of verbs, by panel."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write each panel as a heading with its verbs; names have the same width in all panels, so that the lines align."""
        panels: dict[str, list[tuple[str, str]]] = {}
        verbs = [(name, verb) for name in self.list_commands(ctx) if isinstance(verb := self.get_command(ctx, name), Verb)]
        width = max(len(name) for name, _ in verbs)
        for name, verb in verbs:
            panels.setdefault(str(verb.rich_help_panel), []).append((name.ljust(width), verb.summary))
        for panel, rows in panels.items():
            _write_list(formatter, panel, rows)

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """Write what rayprob is for, and the first commands for a newcomer."""
        text, _, below = (self.help or "").partition("\nStart here:\n")
        commands, _, rest = below.partition("\n\n")
        _write_text(formatter, text)
        write_verbatim(formatter, "Start here", commands.splitlines())
        _write_text(formatter, rest)


def _write_text(formatter: Any, text: str) -> None:
    formatter.write_paragraph()
    with formatter.indentation():
        formatter.write_text(text.strip())


def _write_list(formatter: Any, heading: str, rows: list[tuple[str, str]]) -> None:
    if rows:
        with formatter.section(heading):
            formatter.write_dl(rows)


def write_verbatim(formatter: Any, heading: str, lines: Iterable[str]) -> None:
    """Write lines unchanged below a heading; nothing if there are no lines."""
    kept = [line.strip() for line in lines if line.strip()]
    if not kept:
        return
    with formatter.section(heading):
        for line in kept:
            formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


def one_of(*choices: str) -> Any:
    """Return a shell completion that suggests `choices`; other values stay allowed."""

    def complete(incomplete: str) -> list[str]:
        return [choice for choice in choices if choice.startswith(incomplete)]

    return complete


def show_version(asked: bool) -> None:
    """Print the version and exit, if `asked`."""
    if asked:
        from rayprob import __version__

        typer.echo(f"rayprob {__version__}")
        raise typer.Exit
