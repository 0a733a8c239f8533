"""Recognises COCO's layout: annotation files in JSON, one per split, and the folder with the images of each."""

import posixpath
import re
from collections import Counter
from collections.abc import Iterable
from itertools import islice

from rayprob.data.sources import coco
from rayprob.data.sources.coco import CocoSource
from rayprob.data.sources.location import SPLITS, split_in
from rayprob.data.sources.rows import ImageRow, rows_of
from rayprob.errors import SampleError, SourceError
from rayprob.files import storage
from rayprob.files.folders import Listing
from rayprob.images.kinds import kind_of
from rayprob.labels import LabelSpace
from rayprob.project.found import Found, FoundSplit

# In a path, whole words: instances_train2014.json, valid/_annotations.coco.json.
# COCO's files next to instances_*.json annotate captions, key points and regions, not images.
NOT_INSTANCES = re.compile(r"^(captions|person_keypoints|stuff|panoptic|image_info)_")
MOST_FILES = 12  # more JSON files than splits mean another format, such as one file per image
PROBED_IMAGES = 50
MAGIC_BYTES = 160  # enough to tell what kind of file it is


def find_coco(folder: str, listing: Listing) -> Found | None:
    """Return the splits and labels of the COCO annotations below a folder, or None if there are none.

    Raises SourceError if two files claim one split, if none is for training, if label sets differ between splits, and if the
    images of a split are missing or of a kind that is not read.
    """
    files = [name for name in listing.size_of if name.endswith(".json") and not NOT_INSTANCES.match(posixpath.basename(name))]
    named = [name for name in files if posixpath.basename(name).startswith("instances_")]
    files = named or files
    if not files or len(files) > MOST_FILES:
        return None
    splits: dict[str, FoundSplit] = {}
    spaces: dict[str, LabelSpace] = {}
    for split, name in _file_of_split(folder, files).items():
        annotations = storage.join(folder, name)
        source = coco.read(CocoSource(images=folder, annotations=annotations))
        spaces[split], stated = source.label_space, list(rows_of(source.batches))
        first = splits["train"].keys["annotations"] if splits else annotations
        spaces["train"].require_same(spaces[split], first, annotations)
        splits[split] = _split(annotations, _images_folder(folder, listing, name, split, stated), stated)
    return Found(folder, splits, spaces["train"].names)


def _file_of_split(folder: str, files: list[str]) -> dict[str, str]:
    """Return the annotations file of each split, `train` first; a single file is `train`, whatever its name."""
    if len(files) == 1:
        return {"train": files[0]}
    found: dict[str, str] = {}
    for name in files:
        split = split_in(name)
        if split is None:
            raise SourceError(
                f"the name {storage.join(folder, name)} contains no split; put train, val or test into the name of the file or "
                f"its folder, or keep one JSON file in {folder}"
            )
        if split in found:
            raise SourceError(f"{folder} has two annotation files for {split}: {found[split]} and {name}; keep one of them")
        found[split] = name
    if "train" not in found:
        raise SourceError(f"{folder} has annotations for {', '.join(found)} but not for train; give the folder that has both")
    return {split: found[split] for split in SPLITS if split in found}


def _images_folder(folder: str, listing: Listing, annotations: str, split: str, stated: list[ImageRow]) -> str:
    """Return the folder that contains the images of a split, under the names in its annotations."""
    names = [image.file_name for image in islice(stated, PROBED_IMAGES)]
    votes = Counter(_prefixes(listing.size_of, names))
    if not votes:
        example = f" such as {names[0]}" if names else ""
        raise SourceError(
            f"none of the images of {storage.join(folder, annotations)} is below {folder}{example}; give a folder that "
            "contains both images and annotations"
        )
    beside = posixpath.dirname(annotations)
    # Splits may use the same names in their own folders: then take the folder named after the split, or that of its file.
    best = max(votes, key=lambda prefix: (votes[prefix], split_in(prefix) == split, prefix.rstrip("/") == beside))
    _require_read(storage.join(folder, best + next(name for name in names if best + name in listing.size_of)))
    return storage.join(folder, best.rstrip("/")) if best else folder


def _prefixes(paths: Iterable[str], names: list[str]) -> Iterable[str]:
    by_base: dict[str, list[str]] = {}
    for name in names:
        by_base.setdefault(posixpath.basename(name), []).append(name)
    for path in paths:
        for name in by_base.get(posixpath.basename(path), ()):
            if path == name or path.endswith(f"/{name}"):
                yield path[: len(path) - len(name)]


def _require_read(uri: str) -> None:
    with storage.open_input(uri) as file:
        begins = file.read(MAGIC_BYTES)
    try:
        kind_of(begins)
    except SampleError as error:
        raise SourceError(f"{uri} {error}") from error


def _split(annotations: str, images: str, stated: list[ImageRow]) -> FoundSplit:
    labelled = [image for image in stated if image.labels]
    if not labelled:
        raise SourceError(
            f"{annotations} lists {len(stated):,} images, but none has a label; annotate some, or give another folder"
        )
    sides = tuple(min(image.height_px, image.width_px) for image in labelled if min(image.height_px, image.width_px) > 0)
    keys = {"images": images, "annotations": annotations}
    return FoundSplit(keys, len(labelled), len(stated) - len(labelled), sides)
