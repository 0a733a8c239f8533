"""The verb `compare`. Heavy imports stay inside it; app.py registers it."""

import json
from typing import Annotated

import typer

from rayprob.cli.terminal import AsJson, DataOption, SplitOption, err, out


def compare(
    folders: Annotated[
        list[str],
        typer.Argument(metavar="RUN", help="Folders of finished runs; with --data, also of bundles. The first is A."),
    ],
    split: SplitOption = "val",
    data: DataOption = None,
    page: Annotated[
        str | None, typer.Option("--out", "-o", metavar="PAGE", help="Also write an HTML page, such as comparison.html.")
    ] = None,
    draws: Annotated[int, typer.Option("--draws", metavar="N", help="Draws of images for intervals and p-values.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Seed of the draws.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Compare runs, and find which differences are more than chance.

    Each run is compared with the first, on the images and labels that all have. Missing predictions are computed
    first. `rayprob report RUN RUN...` writes the same as a page.

    Examples:

      rayprob compare demo/run demo/again
      rayprob compare demo/run demo/again --split holdout -o comparison.html
      rayprob compare demo/run demo/again/bundle --data demo/shards --json
    """
    from rayprob.cli.show_compare import compared, show_comparison, show_written

    comparison, written = compared(err, folders, split, data, page, draws=draws, seed=seed)
    if as_json:
        typer.echo(json.dumps(comparison.to_dict()))
        return
    show_comparison(out, comparison)
    if written:
        show_written(out, written)
