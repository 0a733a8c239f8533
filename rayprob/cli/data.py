"""Verbs about datasets: scenes, shard, verify, inspect. Heavy imports stay inside them; app.py puts them on the app."""

import json
import os
from typing import Annotated

import typer

from rayprob.cli.terminal import AsJson, Overrides, err, out, show_line, show_message, status
from rayprob.text import counted

DatasetArgument = Annotated[str, typer.Argument(metavar="DATASET", help="A built dataset: a folder or URI.")]


def scenes(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A new or empty folder, such as demo/scenes.")],
    num_train: Annotated[int, typer.Option("--train", metavar="N", help="Images to train on.")] = 4000,
    num_val: Annotated[int, typer.Option("--val", metavar="N", help="Images to test on.")] = 1000,
    size_px: Annotated[int, typer.Option("--size", metavar="PX", help="Long side of the images in pixels.")] = 160,
    num_labels: Annotated[
        int, typer.Option("--labels", metavar="N", help="How many of COCO's labels, the most prevalent first.")
    ] = 80,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="The same seed gives the same bytes.")] = 0,
    label_noise: Annotated[
        float, typer.Option("--label-noise", metavar="SHARE", help="Fraction of the annotated labels to falsify.")
    ] = 0.0,
    num_processes: Annotated[
        int | None, typer.Option("--processes", metavar="N", help="How many draw; by default one per core.")
    ] = None,
) -> None:
    """Draw images with labels, to try rayprob without data.

    They come in the layout of COCO-2014, with COCO's labels and their real co-occurrence.

    Examples:

      rayprob scenes demo/scenes
      rayprob scenes demo/scenes --train 4000 --val 1000 --size 128 --labels 20
    """
    from rayprob.cli.show_data import scenes_progress, show_scenes
    from rayprob.scenes.generate import ScenesSpec, generate_scenes

    asked = {"num_train": num_train, "num_val": num_val, "size_px": size_px, "num_labels": num_labels}
    options = {"num_train": "--train", "num_val": "--val", "size_px": "--size", "num_labels": "--labels"}
    options |= {"seed": "--seed", "label_noise": "--label-noise"}
    spec = ScenesSpec.parse({**asked, "seed": seed, "label_noise": label_noise}, where="scenes", options=options)
    processes = (os.cpu_count() or 1) if num_processes is None else num_processes
    try:
        with scenes_progress(err, spec.num_images) as on_progress:
            summary = generate_scenes(folder, spec, num_processes=processes, on_progress=on_progress)
    except KeyboardInterrupt:
        show_line(err, "stopped; the same command continues from there")
        raise typer.Exit(130) from None
    show_scenes(out, folder, summary)


def shard(
    recipe_file: Annotated[str, typer.Argument(metavar="RECIPE.yaml", help="A recipe, such as shards/coco2014.yaml.")],
    overrides: Overrides = None,
    grow: Annotated[bool, typer.Option("--grow", help="Add images that the source has gained to a built dataset.")] = False,
) -> None:
    """Build a dataset of WebDataset shards, or add to one.

    Examples:

      rayprob shard shards/scenes.yaml
      rayprob shard shards/coco2014.yaml --set target=s3://bucket/coco2014
      rayprob shard shards/scenes.yaml --grow
    """
    from rayprob.cli.show_data import shard_progress, show_summary
    from rayprob.data.building.build import build, on_ray
    from rayprob.data.building.recipe import Recipe

    recipe = Recipe.read(recipe_file, overrides or ())
    try:
        with shard_progress(err) as on_progress:
            summary = build(recipe, run_tasks=on_ray(), on_progress=on_progress, grow=grow)
    except KeyboardInterrupt as stopped:
        show_message(err, str(stopped) or "stopped")
        raise typer.Exit(130) from None
    show_summary(out, summary)


def verify(dataset: DatasetArgument) -> None:
    """Read every byte of a dataset again, and list what is damaged.

    Datasets of more than 4 GiB are read by Ray tasks, and all if RAY_ADDRESS is set. The exit code is 1 if a fault is found.

    Examples:

      rayprob verify demo/shards
    """
    from rayprob.cli.show_data import bytes_progress
    from rayprob.data.tasks import in_process
    from rayprob.data.verify import is_worth_ray, on_ray
    from rayprob.data.verify import verify as find_faults

    run_tasks = on_ray() if is_worth_ray(dataset) else in_process
    with bytes_progress(err, "verifying") as on_progress:
        faults = find_faults(dataset, on_progress, run_tasks=run_tasks)
    for fault in faults:
        show_line(out, str(fault))
    if faults:
        show_line(err, f"{counted(len(faults), 'fault')} in {dataset}", "red")
        raise typer.Exit(1)
    show_line(out, f"{dataset}: every byte is as it was built")


def inspect(
    dataset: DatasetArgument,
    top: Annotated[int, typer.Option("--top", metavar="N", help="How many label sets and co-occurrences to show.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Show counts, prevalences and co-occurrences of a dataset.

    Examples:

      rayprob inspect demo/shards
      rayprob inspect demo/shards --json
    """
    from rayprob.cli.show_data import show_inspection
    from rayprob.data.inspect import inspect as find_facts

    with status(err, f"reading the manifest of {dataset}"):
        found = find_facts(dataset, top=top)
    if as_json:
        typer.echo(json.dumps(found.to_dict()))
        return
    show_inspection(out, found)
