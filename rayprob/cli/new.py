"""The verb for a new project: new. Heavy imports stay inside it; app.py puts it on the app."""

from typing import Annotated

import typer

from rayprob.cli.terminal import err, out, status


def complete_starters(incomplete: str) -> list[str]:
    """Return the run files that come with rayprob and start with `incomplete`."""
    from rayprob.project.starters import starter_names

    return [name for name in starter_names() if name.startswith(incomplete)]


def new(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="The project's folder, created if it is missing.")],
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FOLDER",
            help="Your images with labels: COCO, LVIS, a table, Pascal VOC, YOLO, folders, Hugging Face, WebDataset.",
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            "--backbone", metavar="NAME", help="With --from: the network, such as timm/resnet18; by default resnet50."
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option("--weights", metavar="FILE", help="With --backbone: a file with its weights, for use without internet."),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(
            "--like",
            metavar="NAME",
            help="Without --from: one of rayprob's run files, such as paper; by default demo-sweep.",
            autocompletion=complete_starters,
        ),
    ] = None,
) -> None:
    """Write a project: a recipe, a run file, a sweep and a README.

    With --from, they fit the images in a folder; without, they train on generated images. Never overwrites a file.

    Examples:

      rayprob new demo
      rayprob new birds --from ~/birds
      rayprob new baseline --like paper
    """
    from rayprob.cli.show_new import show_found, show_written
    from rayprob.project.new import new_from, new_like

    if source is None:
        if backbone or weights:
            raise typer.BadParameter("--backbone and --weights need --from FOLDER")
        show_written(out, new_like(folder, like or "demo-sweep"))
        return
    if like:
        raise typer.BadParameter("--like and --from cannot be combined; --from writes a run file of its own")
    with status(err, f"looking at the images and annotations in {source}"):
        written, found, network = new_from(folder, source, backbone=backbone, weights=weights)
    show_found(out, found, network)
    show_written(out, written)
