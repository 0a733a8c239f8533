"""The source of a recipe: what every split states, joined with the files that are really there."""

import logging
import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from rayprob.data.building.recipe import Recipe
from rayprob.data.sources import formats
from rayprob.data.sources.faults import Faults, doubles
from rayprob.data.sources.image import SourceImage
from rayprob.data.sources.image_files import ImageFiles
from rayprob.data.sources.join_labels import ColumnMap, joined_space
from rayprob.data.sources.rows import ImageRow, Rest, Stated, rows_of
from rayprob.data.sources.sample_ids import sample_ids, shared_keys
from rayprob.data.sources.spec import Source
from rayprob.data.sources.spool import Spool
from rayprob.errors import SourceError
from rayprob.files import storage, uris
from rayprob.labels import LabelSpace
from rayprob.text import first_of

log = logging.getLogger(__name__)
NOTHING_STATED = "no label is stated, present or absent"


@dataclass(frozen=True)
class Reject:
    """An image that did not become a sample, and why."""

    sample_id: int
    split: str
    file_name: str
    reason: str


@dataclass(frozen=True)
class SourceData:
    """What the source holds: per split the images to shard, and the listed images whose file is missing.

    `rest` has for each split what holds for labels that an image lists nowhere; `dropped`, how much was left out, by reason.
    """

    label_space: LabelSpace
    images: dict[str, list[SourceImage]]
    missing: list[Reject]
    folders: dict[str, str]  # of each split: what its file names count from
    rest: dict[str, Rest]
    dropped: dict[str, dict[str, int]]


def read_source(recipe: Recipe) -> SourceData:
    """Read the labels and list the images of every split. Raises SourceError naming the file or split at fault."""
    stated = {split: formats.read(source) for split, source in recipe.splits.items()}
    described = {split: source.described for split, source in recipe.splits.items()}
    space = joined_space(stated, described, recipe.labels)
    rows, dropped = {}, {}
    for split, one in stated.items():
        rows[split], dropped[split] = _rows_to_shard(recipe, split, one, space)
    keys = {split: [row.key for row in some] for split, some in rows.items()}
    ids, files_of = sample_ids(keys), cache(ImageFiles)
    images: dict[str, list[SourceImage]] = {}
    missing: list[Reject] = []
    for split, one in stated.items():
        images[split], lost = _join(split, recipe.splits[split], one, zip(ids[split], rows[split], strict=True), files_of)
        missing += lost
        log.info("%s: %s images to shard, %s missing", split, len(images[split]), len(lost))
    folders = {split: one.images for split, one in stated.items()}
    _check_disjoint(folders, images, keys)
    return SourceData(space, images, missing, folders, {split: one.rest for split, one in stated.items()}, dropped)


def _rows_to_shard(recipe: Recipe, split: str, stated: Stated, space: LabelSpace) -> tuple[list[ImageRow], dict[str, int]]:
    """Return the rows that become samples, with the dataset's columns, and how much was left out, by reason."""
    source, columns = recipe.splits[split], ColumnMap(stated, space)
    with Spool(recipe.root, split) as spool:
        every = [spool.put(row) for row in rows_of(stated.batches)]
    _check_counts(split, source, every)
    moved = [columns.of(row) for row in every]
    kept = [row for row in moved if recipe.keep_unlabelled or row.labels or row.absent_labels]
    if not kept:
        raise SourceError(
            f"split {split} is empty: {source.described} states {len(every):,} images and none to keep; "
            "annotate some, drop the split, or set keep_unlabelled: true"
        )
    _check_names(source, kept)
    unstated = {NOTHING_STATED: len(every) - len(kept)} if len(kept) < len(every) else {}
    return kept, {**stated.dropped, **columns.dropped, **unstated}


def _check_counts(split: str, source: Source, stated: Sequence[ImageRow]) -> None:
    labelled = sum(bool(row.labels) for row in stated)
    found, expected = (labelled, len(stated) - labelled), source.expect
    if expected and found != (expected.labelled, expected.unlabelled):
        raise SourceError(
            f"{source.described} states {found[0]:,} images with and {found[1]:,} without a label; splits.{split}.expect "
            f"says {expected.labelled:,} and {expected.unlabelled:,}; download it again, or mend or remove `expect`"
        )


def _check_names(source: Source, rows: Sequence[ImageRow]) -> None:
    fail = Faults(source.described)
    fail.on_file_names([row.file_name for row in rows])
    fail.on_any("image listed twice", map(ascii, doubles(row.key for row in rows)), "list each image once; drop one entry")


def _join(
    split: str,
    source: Source,
    stated: Stated,
    rows: Iterable[tuple[int, ImageRow]],
    files_of: Callable[[str], ImageFiles],
) -> tuple[list[SourceImage], list[Reject]]:
    """Return the images of a split whose file is there, and a Reject for each of the others."""
    found: list[SourceImage] = []
    lost: list[Reject] = []
    for sample_id, row in rows:
        if row.container:
            container = uris.absolute(row.container)
            found.append(_image(sample_id, row, stated.rest, row.file_name, row.size_bytes, container))
        elif place := files_of(stated.images).find(row.file_name, row.other_names):
            found.append(_image(sample_id, row, stated.rest, *place))
        else:
            lost.append(
                Reject(sample_id, split, row.file_name, f"missing: {files_of(stated.images).why_absent(row.file_name)}")
            )
    if lost and not found:
        raise SourceError(
            f"none of the {len(lost):,} images of split {split} is in {stated.images}: {lost[0].file_name} is "
            f"{lost[0].reason}; {len(files_of(stated.images)):,} other files are there; give the folder that belongs to "
            f"{source.described}"
        )
    if not all(image.container for image in found):
        files_of(stated.images).warn_of_others({image.file_name for image in found})
    return found, lost


def _image(sample_id: int, row: ImageRow, rest: Rest, file_name: str, size_bytes: int, container: str = "") -> SourceImage:
    return SourceImage(
        sample_id=sample_id,
        file_name=file_name,
        height_px=row.height_px,
        width_px=row.width_px,
        labels=row.labels,
        label_areas_px2=row.label_areas_px2 or (0.0,) * len(row.labels),
        unknown_labels=row.unknown_labels,
        size_bytes=size_bytes,
        absent_labels=row.absent_labels if rest == "unknown" else (),
        container=container,
        offset_bytes=row.offset_bytes,
        group=row.group,
    )


def _check_disjoint(
    folders: Mapping[str, str], images: Mapping[str, Sequence[SourceImage]], keys: Mapping[str, Sequence[str]]
) -> None:
    """Raise SourceError where two splits have the same picture. Ids that only restart in each split are no fault."""
    split_of: dict[str, str] = {}
    twice: list[str] = []
    for split, members in images.items() if len(images) > 1 else ():
        folder = uris.absolute(folders[split])
        places = [_place(folder, image) for image in members]
        twice += [f"{place} ({split_of[place]}, {split})" for place in places if place in split_of]
        split_of |= dict.fromkeys(places, split)
    if twice:
        raise SourceError(
            f"{len(twice):,} images are in two splits: {first_of(twice, 5)}; they would be trained on and tested on; drop each "
            "from one"
        )
    if shared := list(shared_keys(keys)):
        log.warning(
            "%s image ids are in two splits, such as %s (%s and %s), of different files: sample ids are hashes of split and id",
            f"{len(shared):,}",
            *shared[0],
        )


def _place(folder: str, image: SourceImage) -> str:
    """Return where the bytes of an image lie, in one spelling."""
    if image.container:
        return f"{image.container}, byte {image.offset_bytes}"
    return posixpath.normpath(storage.join(folder, image.file_name))
