"""The source of a recipe: the annotations of every split joined with the files that are really there."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from rayprob.data.building.recipe import Recipe, Source
from rayprob.data.images import is_clutter, warn_of_skipped
from rayprob.data.sources import coco
from rayprob.data.sources.coco import SourceImage
from rayprob.errors import LabelError, SourceError, StorageError
from rayprob.files import storage
from rayprob.files.folders import Listing
from rayprob.files.uris import caseless
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
    listing = _list_files(source.images)
    size_of = listing.size_of | _reached_by_links(source.images, listing, stated)
    found = [replace(image, size_bytes=size_of[image.file_name]) for image in stated if image.file_name in size_of]
    absent = [image for image in stated if image.file_name not in size_of]
    why = _Absence(source, listing)
    lost = [Reject(image.sample_id, split, image.file_name, f"missing: {why.of(image.file_name)}") for image in absent]
    if stated and not found:
        raise SourceError(
            f"none of the {len(stated):,} images of split {split} is in {source.images}: {lost[0].file_name} is "
            f"{lost[0].reason}; {len(size_of):,} other files are there; give the folder that belongs to {source.annotations}"
        )
    names = {image.file_name for image in stated}
    warn_of_skipped(source.images, [name for name in size_of if is_clutter(name) and name not in names], listing.unusable)
    return found, lost


def _list_files(folder: str) -> Listing:
    try:
        if storage.is_folder(folder):
            return storage.list_below(folder)
        reason = "no such folder"
    except StorageError as error:
        reason = str(error)
    raise SourceError(f"cannot list the images folder {folder}: {reason}; give the folder that holds the images")


def _reached_by_links(folder: str, listing: Listing, stated: list[SourceImage]) -> dict[str, int]:
    """Return the sizes of files that the annotations name by a link to a folder that is listed under another path."""
    below = tuple(f"{link}/" for link in listing.again)
    asked = [image.file_name for image in stated if image.file_name.startswith(below)] if below else []
    uri_of = {name: storage.join(folder, name) for name in asked}
    return {name: storage.size_bytes(uri) for name, uri in uri_of.items() if storage.exists(uri) and not storage.is_folder(uri)}


@dataclass(frozen=True)
class _Absence:
    """Why a file that annotations name is not in the folder of images."""

    source: Source
    listing: Listing

    def of(self, file_name: str) -> str:
        """Return what is there in its place, and what to do where that is known."""
        if file_name in self.listing.unusable:
            return self.listing.unusable[file_name]
        alike = self._alike.get(caseless(file_name))
        if alike is None:
            return f"no file of that name in {self.source.images}"
        form = "letter case" if alike.lower() == file_name.lower() else "letter case or the form of its accents (NFC, NFD)"
        return f"{self.source.images} has {alike}, which differs in {form}; rename one of them"

    @cached_property
    def _alike(self) -> dict[str, str]:
        return {caseless(name): name for name in self.listing.size_of}


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
