"""How `--help` reads: verbs in panels, each line whole at 80 columns, and examples as they are typed at the foot of a verb.

A verb's docstring is its help: a first line of at most 66 letters, which the list of verbs shows; then what else there is to
know; then `Examples:` with one command per line.
"""

from collections.abc import Iterable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

EXAMPLES = "\nExamples:\n\n"


class Verb(TyperCommand):
    """A verb whose examples stand below its options, line by line as in its docstring."""

    @property
    def summary(self) -> str:
        """The first line of the help, without its full stop."""
        return (self.help or "").partition("\n")[0].rstrip(".")

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """Write the help without its examples."""
        _write_text(formatter, (self.help or "").partition(EXAMPLES)[0])

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options; an argument by its name alone, as the usage line shows whether it is required."""
        records: dict[str, list[tuple[str, str]]] = {"argument": [], "option": []}
        for param in self.get_params(ctx):
            if record := param.get_help_record(ctx):
                records[param.param_type_name].append(record)
        arguments = [(name.partition(" ")[0], text.removesuffix("[required]").rstrip()) for name, text in records["argument"]]
        _write_list(formatter, "Arguments", arguments)
        _write_list(formatter, "Options", records["option"])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, one per line, never wrapped: they are to be copied."""
        write_verbatim(formatter, "Examples", (self.help or "").partition(EXAMPLES)[2].splitlines())


class Verbs(TyperGroup):
    """The list of verbs, by panel."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write each panel as a heading with its verbs; all panels share one width of names, so that the lines align."""
        panels: dict[str, list[tuple[str, str]]] = {}
        verbs = [(name, verb) for name in self.list_commands(ctx) if isinstance(verb := self.get_command(ctx, name), Verb)]
        width = max(len(name) for name, _ in verbs)
        for name, verb in verbs:
            panels.setdefault(str(verb.rich_help_panel), []).append((name.ljust(width), verb.summary))
        for panel, rows in panels.items():
            _write_list(formatter, panel, rows)

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """Write what rayprob is for, and the commands that a newcomer types first."""
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
    """Write lines below a heading as they are; nothing where there are none."""
    kept = [line.strip() for line in lines if line.strip()]
    if not kept:
        return
    with formatter.section(heading):
        for line in kept:
            formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


def one_of(*choices: str) -> Any:
    """Return a completion for an option that takes one of a few words, or something else."""

    def complete(incomplete: str) -> list[str]:
        return [choice for choice in choices if choice.startswith(incomplete)]

    return complete


def show_version(asked: bool) -> None:
    """Print the version and end, where it was asked for."""
    if asked:
        from rayprob import __version__

        typer.echo(f"rayprob {__version__}")
        raise typer.Exit
