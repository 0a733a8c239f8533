"""Finds out what a folder of labelled images contains, in any format that rayprob reads."""

from typing import Any

from rayprob.data.sources.recognise import RecognisedSplit, recognise
from rayprob.errors import LabelError, SourceError
from rayprob.files import storage
from rayprob.project.found import Found, FoundSplit
from rayprob.text import counted


def find(folder: str) -> Found:
    """Return what a folder of images and annotations, or a file in it, contains, with absolute paths. Raises SourceError."""
    where = str(storage.local_path(folder).resolve()) if storage.is_local(folder) else folder
    try:
        recognised = recognise(where)
    except LabelError as error:
        raise SourceError(str(error)) from error
    splits = {name: _split(recognised.recipe["splits"][name], split) for name, split in recognised.splits.items()}
    if "train" not in splits:
        raise SourceError(f"{where} has {', '.join(splits)} but no train; give the folder that has both")
    return Found(where, splits, recognised.labels)


def _split(keys: dict[str, Any], split: RecognisedSplit) -> FoundSplit:
    """Return a split whose images are there and have labels. Raises SourceError for any other."""
    source = keys.get("annotations", keys["images"])
    if split.num_missing == split.num_images > 0:
        raise SourceError(
            f"none of the images of {source} is below {keys['images']}; give a folder that contains both images and annotations"
        )
    if not split.num_labelled:
        raise SourceError(
            f"{source} lists {counted(split.num_images, 'image')}, but none has a label; annotate some, or give another folder"
        )
    return FoundSplit(
        keys,
        split.num_labelled,
        split.num_images - split.num_labelled,
        split.short_sides_px,
        split.num_unknown,
        split.rest,
        split.prevalence,
    )
