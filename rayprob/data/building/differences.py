"""Where the source of a dataset that grows no longer states what the dataset has: counted, named, and otherwise ignored."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from rayprob.arrays import Bools, Ints
from rayprob.data.building.before import Before
from rayprob.data.building.groups_file import NO_GROUPS
from rayprob.data.building.recipe import HOLDOUT, Recipe
from rayprob.data.building.stated import stated_of
from rayprob.data.sources.image import SourceImages
from rayprob.data.sources.rows import Rest
from rayprob.data.sources.source import SourceData
from rayprob.errors import DatasetError
from rayprob.text import counted, first_of

log = logging.getLogger(__name__)
NEW_DATASET = "build a dataset of its own with another target to have them"


@dataclass(frozen=True)
class Differences:
    """How many samples of a dataset its source no longer has, or has otherwise. All stay as they are."""

    vanished: int = 0
    other_labels: int = 0
    other_size: int = 0  # of the image file
    other_split: int = 0


@dataclass
class _Found:
    """Samples of one kind, a few of them by name."""

    count: int = 0
    examples: tuple[str, ...] = ()

    def add(self, images: SourceImages, rows: Ints) -> None:
        self.count += len(rows)
        self.examples += tuple(images[row].file_name for row in rows[:4].tolist())


def fitting(before: Before, source: SourceData, recipe: Recipe) -> SourceData:
    """Return the source with the dataset's label space, and without missing images that are samples already.

    Raises DatasetError if the two have different labels, or other states for labels that are not listed.
    """
    ours, theirs = before.label_space.names, source.label_space.names
    if ours != theirs:
        new, gone = ([name for name in one if name not in {*other}] for one, other in ((theirs, ours), (ours, theirs)))
        what = "; ".join(
            f"{words} {first_of(names, 5, in_all=True)}"
            for words, names in (("new in the source:", new), ("no longer in it:", gone))
            if names
        )
        raise DatasetError(
            f"{before.root} cannot grow by other labels ({what or 'the same in another order'}): its images do not state them; "
            f"to leave new ones out, set labels to the {len(ours):,} names in its labels.json, in their order: "
            f"[{first_of(ours, 3)}]; or give another target"
        )
    rests = {split: rest for name, rest in source.rest.items() for split in _splits_of(recipe, name)}
    if other := [split for split, rest in rests.items() if before.facts.get("rest", {}).get(split, "absent") != rest]:
        raise DatasetError(
            f"{before.root} cannot grow: labels that the source of {other[0]} does not list for an image are "
            f"{rests[other[0]]} now, and were not before; undo the change of the source, or give another target"
        )
    known = before.knows(np.array([reject.sample_id for reject in source.missing], dtype=np.int64))
    missing = [reject for reject, is_known in zip(source.missing, known.tolist(), strict=True) if not is_known]
    return replace(source, label_space=before.label_space, missing=missing)


def differences(before: Before, source: SourceData, recipe: Recipe) -> Differences:
    """Count the samples that the source has otherwise, and log them. Raises DatasetError if it has none of the samples."""
    seen_N = np.zeros(len(before.ids_N), dtype=bool)
    labels, sizes, splits = _Found(), _Found(), _Found()
    for name, images in source.images.items():
        rows = np.flatnonzero(before.has(images.ids_N))
        places = np.searchsorted(before.ids_N, images.ids_N[rows])
        seen_N[places] = True
        labels.add(images, rows[_stated(images, source.rest[name])[rows] != before.stated_N[places]])
        if recipe.encode is None:
            sizes.add(images, rows[images.size_bytes_N[rows] != before.size_bytes_N[places]])
        own = [before.splits.index(split) for split in _splits_of(recipe, name) if split in before.splits]
        splits.add(images, rows[~np.isin(before.splits_N[places], own)])
    if not seen_N.any():
        why = f" (they are hashes of keys now: {source.ids_note})" if source.ids_note else ""
        raise DatasetError(
            f"the source has none of the {counted(len(seen_N), 'image')} of {before.root}, by their sample ids{why}; give the "
            "source that it was built from, with more images, or another target"
        )
    gone = before.ids_N[~seen_N]
    vanished = _Found(len(gone), tuple(f"sample {sample_id}" for sample_id in gone[:4].tolist()))
    _log(before, vanished, "are no longer in the source, or their files are missing; they stay samples")
    _log(before, labels, f"have other labels in the source now; the dataset keeps the old ones: {NEW_DATASET}")
    _log(before, sizes, f"have files of another size now; the dataset keeps the old ones: {NEW_DATASET}")
    _log(before, splits, "are in another split of the source now; they stay where they are")
    _warn_of_forgotten(before, source, recipe, ~seen_N)
    return Differences(vanished.count, labels.count, sizes.count, splits.count)


def _warn_of_forgotten(before: Before, source: SourceData, recipe: Recipe, is_gone_N: Bools) -> None:
    """Log that new images may be of groups of images that the source lost before groups.parquet recorded them."""
    grouped = {name: images for name, images in source.images.items() if images.groups_N is not None}
    if not grouped or "stratified" not in [part.by for part in (recipe.divide, recipe.holdout) if part]:
        return  # a hash puts the images of a group into the same split again
    places = [before.splits.index(split) for name in grouped for split in _splits_of(recipe, name) if split in before.splits]
    num_lost = int((is_gone_N & np.isin(before.splits_N, places) & ~np.isin(before.ids_N, before.groups.ids_N)).sum())
    every = NO_GROUPS.updated(grouped.values())
    new = every.among(every.ids_N[~before.knows(every.ids_N)])
    num_new = len(np.setdiff1d(new, before.groups.updated(grouped.values()).among(before.ids_N)))
    if num_lost and num_new:
        log.warning(
            "%s was built before groups were recorded: new images of %s may belong to those of the %s that are no longer in "
            "the source, and then be in another split than they are; put those back, or give another target",
            before.root,
            counted(num_new, "group"),
            counted(num_lost, "image"),
        )


def _stated(images: SourceImages, rest: Rest) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return stated_of((pa.Table.from_batches([batch]) for batch in images.batches), with_absent=rest == "unknown")


def _splits_of(recipe: Recipe, source: str) -> Iterator[str]:
    """Yield the splits that images of a source may be in."""
    names = [*recipe.divide.into] if recipe.divide and recipe.divide.of == source else [source]
    yield from names
    if recipe.holdout and recipe.holdout.of in names:
        yield HOLDOUT


def _log(before: Before, found: _Found, what: str) -> None:
    if found.count:
        examples: Sequence[str] = found.examples[: max(4, found.count)]
        log.warning("%s of %s %s: %s", counted(found.count, "image"), before.root, what, first_of(examples, 3))
