"""The front door: one verb a function; only this file prints. Heavy imports stay inside the verbs, so that --help is fast."""

import logging
import sys
from typing import Annotated

import typer
from rich.console import Console

from rayprob.errors import RayprobError

app = typer.Typer(
    name="rayprob",
    help="Multi-label image classification with honest probabilities: scenes -> shard -> train -> evaluate.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the file; repeat for more.")
]


@app.callback()
def setup(verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what the package logs.")] = False) -> None:
    """Set up logging before any verb."""
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s")


def main() -> None:
    """Run the CLI; a RayprobError becomes its message and exit code 1, Ctrl-C exit code 130."""
    try:
        app()
    except RayprobError as error:
        err.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        err.print("stopped")
        sys.exit(130)
