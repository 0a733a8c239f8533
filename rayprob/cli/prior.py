"""The verb that makes a label prior. Heavy imports stay inside it; cli.py puts it on the app."""

import json
from typing import Annotated

import typer

from rayprob.cli.terminal import err, out, status


def prior(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE...", help="Label sets: built datasets, .parquet or .csv tables; several are joined."),
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="PRIOR", help="The file to write, such as coco.safetensors.")
    ],
    split: Annotated[str, typer.Option("--split", help="Which split of a built dataset.")] = "train",
    column: Annotated[
        str, typer.Option("--column", help="The column of a .parquet table that holds lists of labels.")
    ] = "labels",
    names: Annotated[
        str | None,
        typer.Option("--names", metavar="NAMES", help="What numbers in that column stand for: coco, or a file of names."),
    ] = None,
    said: Annotated[
        str | None, typer.Option("--source", metavar="TEXT", help="Where the label sets come from, in words.")
    ] = None,
    most: Annotated[int, typer.Option("--components", metavar="K", help="The most components to try.")] = 200,
    seed: Annotated[int, typer.Option("--seed", help="Of the held-out part and of the fits.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Learn from label sets, without images, which labels go together: a prior for `calibrate --prior PRIOR`."""
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
            on_fit=lambda k: say(f"fitting {k} component(s)"),
        )
    if as_json:
        typer.echo(json.dumps(made.to_dict()))
        return
    show_prior(out, made)
