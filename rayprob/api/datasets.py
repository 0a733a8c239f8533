"""The commands that create datasets, as functions, without importing torch. They log and never print."""

import os
from collections.abc import Callable

from rayprob.data.building.build import BuildProgress, Summary, build, in_process, on_ray
from rayprob.data.building.recipe import Recipe
from rayprob.scenes.generate import ScenesSpec, ScenesSummary, generate_scenes


def draw_scenes(
    folder: str | os.PathLike[str],
    *,
    num_train: int = 4000,
    num_val: int = 1000,
    size_px: int = 160,
    num_labels: int = 80,
    seed: int = 0,
    label_noise: float = 0.0,
    num_processes: int = 1,
    on_progress: Callable[[int], None] = lambda num_images: None,
) -> ScenesSummary:
    """Draw a dataset in the layout of COCO-2014, with COCO's labels and their real co-occurrence, as `rayprob scenes` does.

    `folder` must be new or empty, or contain an unfinished call with the same arguments, which is continued. `size_px` is the
    long side of the images; equal arguments give equal bytes, whatever `num_processes`. `on_progress` gets the number of images
    drawn since it was last called.

    Raises SpecError for a number out of range, SourceError for a folder with other contents, StorageError if it cannot be
    written.

    Example::

        rp.draw_scenes("scenes", num_train=1000, num_val=200, size_px=128, num_labels=20)
    """
    asked = {"num_train": num_train, "num_val": num_val, "size_px": size_px, "num_labels": num_labels}
    spec = ScenesSpec.parse({**asked, "seed": seed, "label_noise": label_noise}, where="scenes")
    return generate_scenes(os.fspath(folder), spec, num_processes=num_processes, on_progress=on_progress)


def shard(
    recipe: Recipe,
    *,
    grow: bool = False,
    use_ray: bool = True,
    on_progress: Callable[[BuildProgress], None] = lambda progress: None,
) -> Summary:
    """Build the dataset of a recipe as WebDataset shards in `recipe.root`, or resume a stopped build, as `rayprob shard` does.

    With `grow`, images that the source has gained are added to a dataset that is built already, as `rayprob shard --grow` does.
    Ray tasks write the shards, on the cluster of RAY_ADDRESS or on all cores of this machine; `use_ray=False` writes them one
    by one in this process, which is faster for a few thousand images. `on_progress` gets the shards and images done.

    Raises SourceError for annotations or images that cannot be used, DatasetError for too many rejected images or a folder with
    another dataset, StorageError, and RunError if the cluster does not answer.

    Example::

        recipe = rp.Recipe.read("shards/coco2014.yaml")
        rp.shard(recipe)
        rp.Dataset.open(recipe.root)
    """
    return build(recipe, run_tasks=on_ray() if use_ray else in_process, on_progress=on_progress, grow=grow)
