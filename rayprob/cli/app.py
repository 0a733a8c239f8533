"""The entry point: registers the verbs by panel, and turns errors into messages. Only verbs print."""

import logging
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from rayprob.cli.calibrate import calibrate
from rayprob.cli.cluster import doctor, submit
from rayprob.cli.compare import compare
from rayprob.cli.data import inspect, scenes, shard, verify
from rayprob.cli.export import export
from rayprob.cli.help import Verb, Verbs, show_version
from rayprob.cli.new import new
from rayprob.cli.prior import prior
from rayprob.cli.runs import runs
from rayprob.cli.serve import serve
from rayprob.cli.terminal import LogLines, err, show_line, show_message, show_what_can_be_shown
from rayprob.cli.train import evaluate, lr_find, refit, train
from rayprob.cli.trained import predict, report
from rayprob.cli.tune import tune
from rayprob.errors import RayprobError

PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "Projects": (new,),
    "Data": (scenes, shard, verify, inspect),
    "Training": (train, evaluate, lr_find, tune, refit, runs),
    "Probabilities and predictions": (calibrate, prior, predict, serve, report, compare, export),
    "Clusters": (submit, doctor),
}
app = typer.Typer(
    name="rayprob",
    cls=Verbs,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def setup(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what the package logs.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=show_version)
    ] = False,
) -> None:
    """Train multi-label image classifiers whose probabilities can be trusted.

    Start here:
      rayprob new birds --from ~/birds && cd birds
      rayprob shard shards/birds.yaml
      rayprob train tune_configs/birds.yaml

    Without images, `rayprob new demo` draws some. `rayprob VERB --help` has examples.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(LogLines("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler])


for panel, verbs in PANELS.items():
    for verb in verbs:
        app.command(verb.__name__.replace("_", "-"), cls=Verb, rich_help_panel=panel)(verb)


def main() -> None:
    """Run the CLI; a RayprobError becomes its message and exit code 1, Ctrl-C exit code 130."""
    show_what_can_be_shown()
    try:
        app(prog_name="rayprob")
    except RayprobError as error:
        show_message(err, f"error: {error}", "red")
        sys.exit(1)
    except KeyboardInterrupt:
        show_line(err, "stopped")
        sys.exit(130)
