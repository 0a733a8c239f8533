"""Recognises the layout of a folder of images and labels, and writes a recipe that reads it. L labels."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from rayprob.data.building.recipe import Recipe
from rayprob.data.sources import formats
from rayprob.data.sources.image_files import ImageFiles
from rayprob.data.sources.join_labels import ColumnMap, joined_space
from rayprob.data.sources.location import Location
from rayprob.data.sources.recognise_layouts import LAYOUTS, Splits
from rayprob.data.sources.rows import ImageRow, Rest, rows_of
from rayprob.errors import SampleError, SourceError, StorageError, one_line
from rayprob.files import storage
from rayprob.images.kinds import kind_of

MAGIC_BYTES = 160  # enough to recognise the kind of an image


@dataclass(frozen=True)
class RecognisedSplit:
    """The contents of one split of a source."""

    num_images: int  # in the list of labels
    num_missing: int  # of them, without a file
    num_labelled: int  # with at least one label present
    num_unknown: int  # pairs of image and label that are unknown
    rest: Rest  # the state of labels that an image does not list
    prevalence: dict[str, float]  # of each label, among the images that state it
    short_sides_px: tuple[int, ...]  # of images with a label, if the source states their size


@dataclass(frozen=True)
class Recognised:
    """A recognised layout: its format, a recipe that reads it, as plain data, its splits and its labels."""

    format: str
    recipe: dict[str, Any]
    splits: dict[str, RecognisedSplit]
    labels: tuple[str, ...]


def recognise(path: str, name: str = "mine") -> Recognised:
    """Return a recipe for the folder or file at `path`, and what it would read.

    Raises SourceError if no format or more than one fits, and for faults in the labels.
    """
    place = Location.at(path)
    fits, faults = _fits(place)
    if len(fits) > 1:
        raise SourceError(
            f"{path} could be {' or '.join(fits)}; give the file with the labels, or write the recipe with format: "
            f"{next(iter(fits))}"
        )
    if not fits:
        seen = f"; tried {'; '.join(faults)}" if faults else ""
        raise SourceError(
            f"{path} has no layout of images and labels that rayprob knows; found {place.what_lies_there()}{seen}; known are "
            f"{', '.join(LAYOUTS)}: see docs/how-to/label-formats.md"
        )
    ((found, splits),) = fits.items()
    holdout = {} if "train" in splits else {"holdout": None}
    return _described(found, {"name": name, "splits": splits, **holdout})


def _fits(place: Location) -> tuple[dict[str, Splits], list[str]]:
    fits: dict[str, Splits] = {}
    faults: list[str] = []
    for name, layout in LAYOUTS.items():
        # Folders of images are the last resort, if nothing else has labels.
        if name == "folders" and (fits or faults):
            break
        try:
            if splits := layout(place):
                fits[name] = splits
        except (SourceError, StorageError) as error:
            faults.append(f"{name}: {one_line(error)}")
    return fits, faults


def _described(found: str, recipe: dict[str, Any]) -> Recognised:
    parsed = Recipe.parse(recipe)
    stated = {split: formats.read(source) for split, source in parsed.splits.items()}
    described = {split: source.described for split, source in parsed.splits.items()}
    space = joined_space(stated, described, None)
    splits = {}
    for split, one in stated.items():
        columns = ColumnMap(one, space)
        rows = [columns.of(row) for row in rows_of(one.batches)]
        splits[split] = _counted(rows, one.rest, space.names, _num_missing(rows, one.images))
    return Recognised(found, recipe, splits, space.names)


def _num_missing(rows: list[ImageRow], folder: str) -> int:
    """Return the number of missing files. Raises SourceError if the first existing one is of an unsupported kind."""
    outside = [row for row in rows if not (row.content or row.container)]
    if not outside:
        return 0
    files = ImageFiles(folder)
    places = [place for row in outside if (place := files.find(row.file_name, row.other_names)) is not None]
    for name, size_bytes in places[:1]:
        try:
            kind_of(storage.read_bytes(storage.join(folder, name), 0, min(size_bytes, MAGIC_BYTES)))
        except SampleError as error:
            raise SourceError(f"{name} {error}") from error
    return len(outside) - len(places)


def _counted(rows: list[ImageRow], rest: Rest, names: tuple[str, ...], num_missing: int) -> RecognisedSplit:
    present, absent, unknown = (
        Counter(column for row in rows for column in getattr(row, lists))
        for lists in ("labels", "absent_labels", "unknown_labels")
    )
    known = {
        column: present[column] + absent[column] if rest == "unknown" else len(rows) - unknown[column]
        for column in range(len(names))
    }
    return RecognisedSplit(
        num_images=len(rows),
        num_missing=num_missing,
        num_labelled=sum(bool(row.labels) for row in rows),
        num_unknown=len(rows) * len(names) - sum(known.values()),
        rest=rest,
        prevalence={name: present[column] / max(known[column], 1) for column, name in enumerate(names)},
        short_sides_px=tuple(side for row in rows if row.labels and (side := min(row.height_px, row.width_px)) > 0),
    )
