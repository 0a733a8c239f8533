"""Finds out what a folder of labelled images contains: COCO's layout by rules of its own, any other format it recognises."""

from rayprob.data.sources.recognise import recognise
from rayprob.errors import LabelError, SourceError, StorageError
from rayprob.files import storage
from rayprob.files.folders import Listing
from rayprob.project.find_coco import find_coco
from rayprob.project.found import Found, FoundSplit


def find(folder: str) -> Found:
    """Return what a folder of images and annotations, or a file in it, contains, with absolute paths. Raises SourceError."""
    where = str(storage.local_path(folder).resolve()) if storage.is_local(folder) else folder
    if storage.exists(where) and not storage.is_folder(where):
        return _as_found(where)
    try:
        return find_coco(where, _list(where)) or _as_found(where)
    except LabelError as error:
        raise SourceError(str(error)) from error


def _as_found(where: str) -> Found:
    recognised = recognise(where)
    splits = {
        name: FoundSplit(
            keys=recognised.recipe["splits"][name],
            num_labelled=split.num_labelled,
            num_unlabelled=split.num_images - split.num_labelled,
            short_sides_px=split.short_sides_px,
        )
        for name, split in recognised.splits.items()
    }
    if "train" not in splits:
        raise SourceError(f"{where} has {', '.join(splits)} but no train; give the folder that has both")
    return Found(where, splits, recognised.labels)


def _list(folder: str) -> Listing:
    try:
        if storage.is_folder(folder):
            return storage.list_below(folder)
        reason = "it is a file" if storage.exists(folder) else "no such folder"
    except StorageError as error:
        reason = str(error)
    raise SourceError(f"cannot read {folder}: {reason}; give the folder that contains images and annotations")
