"""The source of a recipe: the annotations of every split joined with the files that are really there."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

from pyarrow import fs

from rayprob import storage
from rayprob.data import coco
from rayprob.data.coco import SourceImage
from rayprob.data.recipe import Recipe, Source
from rayprob.errors import LabelError, SourceError
from rayprob.labels import LabelSpace

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reject:
    """An image that did not become a sample, and why."""

    sample_id: int
    split: str
    file_name: str
    reason: str


@dataclass(frozen=True)
class SourceData:
    """What the source holds: per split the images to shard, and the listed images whose file is missing."""

    label_space: LabelSpace
    images: dict[str, list[SourceImage]]
    missing: list[Reject]


def read_source(recipe: Recipe) -> SourceData:
    """Read annotations and list images of every split. Raises SourceError naming the file or split at fault."""
    images, missing, spaces = {}, [], {}
    for split, source in recipe.splits.items():
        spaces[split], stated = coco.read(source.annotations)
        _check_counts(split, source, stated)
        labelled = stated if recipe.keep_unlabelled else [image for image in stated if image.labels]
        images[split], lost = _join(split, source, labelled)
        missing += lost
        log.info("%s: %s images stated, %s to shard, %s missing", split, len(stated), len(images[split]), len(lost))
        if not labelled:
            raise SourceError(
                f"split {split} is empty: {source.annotations} states {len(stated):,} images and none to keep; "
                "annotate some, drop the split, or set keep_unlabelled: true"
            )
    _check_same_space(recipe.splits, spaces)
    _check_disjoint(images)
    return SourceData(next(iter(spaces.values())), images, missing)


def _check_counts(split: str, source: Source, stated: list[SourceImage]) -> None:
    labelled = sum(bool(image.labels) for image in stated)
    found, expected = (labelled, len(stated) - labelled), source.expect
    if expected and found != (expected.labelled, expected.unlabelled):
        raise SourceError(
            f"{source.annotations} states {found[0]:,} images with and {found[1]:,} without a label; splits.{split}.expect "
            f"says {expected.labelled:,} and {expected.unlabelled:,}; download it again, or mend or remove `expect`"
        )


def _join(split: str, source: Source, stated: list[SourceImage]) -> tuple[list[SourceImage], list[Reject]]:
    size_of = _list_files(source.images)
    found = [replace(image, size_bytes=size_of[image.file_name]) for image in stated if image.file_name in size_of]
    if stated and not found:
        raise SourceError(
            f"none of the {len(stated):,} images of split {split} is in {source.images}: {stated[0].file_name} is missing, "
            f"{len(size_of):,} other files are there; give the folder that belongs to {source.annotations}"
        )
    reason = f"missing: no file of that name in {source.images}"
    lost = [Reject(i.sample_id, split, i.file_name, reason) for i in stated if i.file_name not in size_of]
    return found, lost


def _list_files(folder: str) -> dict[str, int]:
    """Return the size of every file below a folder, by its path from there."""
    filesystem, path = storage.resolve(folder)
    try:
        entries = filesystem.get_file_info(fs.FileSelector(path, recursive=True))
    except OSError as error:
        raise SourceError(f"cannot list the images folder {folder}: {error}; give the folder that holds the images") from error
    start = len(path.rstrip("/")) + 1
    return {entry.path[start:]: entry.size for entry in entries if entry.type == fs.FileType.File}


def _check_same_space(splits: Mapping[str, Source], spaces: Mapping[str, LabelSpace]) -> None:
    first, *others = splits
    for other in others:
        try:
            spaces[first].require_same(spaces[other], splits[first].annotations, splits[other].annotations)
        except LabelError as error:
            raise SourceError(str(error)) from error


def _check_disjoint(images: Mapping[str, list[SourceImage]]) -> None:
    split_of: dict[int, str] = {}
    twice = []
    for split, members in images.items():
        twice += [
            f"{image.sample_id} ({split_of[image.sample_id]}, {split})" for image in members if image.sample_id in split_of
        ]
        split_of |= dict.fromkeys((image.sample_id for image in members), split)
    if twice:
        raise SourceError(
            f"{len(twice):,} image ids are in two splits: {', '.join(twice[:5])}; an image id names one sample of the dataset, "
            "and a sample in two splits would be trained on and tested on; drop it from one"
        )
