"""The verb that makes a label prior. Heavy imports stay inside it; app.py puts it on the app."""

import json
from typing import Annotated

import typer

from rayprob.cli.terminal import AsJson, err, out, status
from rayprob.text import counted


def prior(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE...", help="Label sets: built datasets, .parquet or .csv tables; several are joined."),
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="PRIOR", help="The file to write, such as coco.safetensors.")
    ],
    split: Annotated[str, typer.Option("--split", metavar="SPLIT", help="Which split of a built dataset.")] = "train",
    column: Annotated[
        str, typer.Option("--column", metavar="NAME", help="The column of a .parquet table that holds lists of labels.")
    ] = "labels",
    names: Annotated[
        str | None,
        typer.Option("--names", metavar="NAMES", help="What numbers in that column stand for: coco, or a file of names."),
    ] = None,
    said: Annotated[
        str | None, typer.Option("--source", metavar="TEXT", help="A description of where the label sets come from.")
    ] = None,
    most: Annotated[int, typer.Option("--components", metavar="K", help="The largest number of components to try.")] = 200,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Seed of the held-out part and of the fits.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Learn which labels occur together, from label sets alone.

    Writes a label prior for `rayprob calibrate --prior PRIOR`. It needs no images.

    Examples:

      rayprob prior my-labels.csv shards/mine -o mine.safetensors
    """
    from rayprob.calibrate.make_prior import make_prior
    from rayprob.cli.show_prior import show_prior

    with status(err, "reading label sets") as say:
        made = make_prior(
            sources,
            output,
            split=split,
            column=column,
            names=names,
            source=said,
            most_components=most,
            seed=seed,
            on_fit=lambda k: say(f"fitting {counted(k, 'component')}"),
        )
    if as_json:
        typer.echo(json.dumps(made.to_dict()))
        return
    show_prior(out, made)
