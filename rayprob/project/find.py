"""Recognises the contents of a folder of labelled images. Each format that recipes can read has a function in `FORMATS`."""

from collections.abc import Callable

from rayprob.errors import LabelError, SourceError, StorageError
from rayprob.files import storage
from rayprob.files.folders import Listing
from rayprob.project.find_coco import find_coco, what_lies_there
from rayprob.project.found import Found

# (folder, its listing) -> what was found, or None for another format. The first result counts.
FORMATS: dict[str, Callable[[str, Listing], Found | None]] = {"COCO": find_coco}


def find(folder: str) -> Found:
    """Return the splits and labels in a folder of images and annotations, with absolute paths. Raises SourceError."""
    where = str(storage.local_path(folder).resolve()) if storage.is_local(folder) else folder
    listing = _list(where)
    for recognise in FORMATS.values():
        try:
            found = recognise(where, listing)
        except LabelError as error:
            raise SourceError(str(error)) from error
        if found:
            return found
    raise SourceError(
        f"no readable annotations in {folder}; found {what_lies_there(listing)}. rayprob reads {', '.join(FORMATS)}: a "
        "JSON file with images, annotations and categories, such as annotations/instances_train.json, for each split"
    )


def _list(folder: str) -> Listing:
    try:
        if storage.is_folder(folder):
            return storage.list_below(folder)
        reason = "it is a file" if storage.exists(folder) else "no such folder"
    except StorageError as error:
        reason = str(error)
    raise SourceError(f"cannot read {folder}: {reason}; give the folder that contains images and annotations")
