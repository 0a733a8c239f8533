"""The verb that lists runs: runs. Heavy imports stay inside it; app.py puts it on the app."""

import json
from typing import Annotated

import typer

from rayprob.cli.help import one_of
from rayprob.cli.terminal import AsJson, err, out, status

SORTS = ("when", "name", "best", "speed", "state")


def runs(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="A folder or URI with runs somewhere below it.")] = ".",
    sort: Annotated[
        str, typer.Option("--sort", metavar="KEY", help=f"{', '.join(SORTS[:-1])} or state.", autocompletion=one_of(*SORTS))
    ] = "when",
    every: Annotated[bool, typer.Option("--all", help="Also list the trials of sweeps and the runs of systems.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the runs and sweeps below a folder: state, epoch, best mAP.

    Running ones come first, then the latest. Of the folder of a sweep or of systems, each run is listed.

    Examples:

      rayprob runs
      rayprob runs demo/sweep --sort best
      rayprob runs s3://bucket/runs --json
    """
    if sort not in SORTS:
        raise typer.BadParameter(f"--sort takes {', '.join(SORTS[:-1])} or {SORTS[-1]}; got {sort!r:.50}")
    from rayprob.cli.show_runs import show_runs, sorted_runs
    from rayprob.runs.listing import list_runs

    with status(err, f"looking for runs below {folder}"):
        found = sorted_runs(list_runs(folder, every=every), sort)
    if as_json:
        typer.echo(json.dumps({"folder": folder, "runs": [row.to_dict() for row in found]}))
        return
    show_runs(out, folder, found)
