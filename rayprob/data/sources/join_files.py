"""Joins the rows of a split with the files of its images folder. N rows of a batch."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rayprob.data.images import is_clutter
from rayprob.data.manifest.columns import numbers, to_array
from rayprob.data.sources.batch_file import BatchFile, taken
from rayprob.data.sources.file_sizes import NOT_THERE
from rayprob.data.sources.image import IMAGES, SourceImages
from rayprob.data.sources.image_files import ImageFiles
from rayprob.data.sources.rows import Rest, Stated, has_text, lengths, values
from rayprob.data.sources.sample_ids import filled
from rayprob.data.sources.spec import Source
from rayprob.errors import SourceError
from rayprob.files import uris


@dataclass(frozen=True)
class Reject:
    """An image that did not become a sample, and why."""

    sample_id: int
    split: str
    file_name: str
    reason: str


def join_files(
    split: str,
    source: Source,
    stated: Stated,
    rows: BatchFile,
    ids_N: NDArray[np.int64],
    files_of: Callable[[str], ImageFiles],
) -> tuple[SourceImages, list[Reject]]:
    """Return the images of a split whose file exists, and a Reject for each of the others.

    Raises SourceError if all files are missing or the folder cannot be listed. The folder is not listed if all images are in
    containers.
    """
    found = BatchFile(IMAGES, rows.folder)
    lost: list[Reject] = []
    is_outside, used = False, set[str]()
    for first, batch in rows.with_starts():
        place = _place(batch, stated.images, files_of)
        is_there_N = place.size_bytes_N != NOT_THERE
        images = _images(batch, ids_N[first : first + batch.num_rows], place, stated.rest)
        found.append(images if is_there_N.all() else taken(images, np.flatnonzero(is_there_N)))
        is_outside |= bool((place.is_outside_N & is_there_N).any())
        if place.is_outside_N.any() and files_of(stated.images).clutter:
            used |= {name for name in found[-1].column("file_name").to_pylist() if is_clutter(name)}
        for row in np.flatnonzero(~is_there_N).tolist():
            name = batch.column("file_name")[row].as_py()
            reason = f"missing: {files_of(stated.images).why_absent(name)}"
            lost.append(Reject(int(ids_N[first + row]), split, name, reason))
    if lost and not found.num_rows:
        raise SourceError(
            f"none of the {len(lost):,} images of split {split} is in {stated.images}: {lost[0].file_name} is "
            f"{lost[0].reason}; it has {len(files_of(stated.images)):,} other files; give the folder that belongs to "
            f"{source.described}"
        )
    if is_outside:
        files_of(stated.images).warn_of_others(used)
    names = ("sample_id", "size_bytes", *(("group",) if source.is_grouped else ()))
    return SourceImages(found, *(filled(found.num_rows, (numbers(b.column(name)) for b in found)) for name in names)), lost


@dataclass(frozen=True)
class _Place:
    """Where the images of a batch are: in files of their own, maybe under other names than in the source, or in containers."""

    is_outside_N: NDArray[np.bool_]  # the image is a file of its own
    size_bytes_N: NDArray[np.int64]  # NOT_THERE for a missing file
    renamed: dict[int, str]


def _place(batch: pa.RecordBatch, folder: str, files_of: Callable[[str], ImageFiles]) -> _Place:
    is_outside_N = ~has_text(batch.column("container"))
    size_bytes_N, renamed = numbers(batch.column("size_bytes")).copy(), dict[int, str]()
    if is_outside_N.any():
        rows = np.flatnonzero(is_outside_N)
        outside = taken(batch, rows)
        names, others = (list(values(outside.column(name))) for name in ("file_name", "other_names"))
        size_bytes_N[rows], new_names = files_of(folder).find_all(names, others)
        renamed = {int(rows[place]): name for place, name in new_names.items()}
    return _Place(is_outside_N, size_bytes_N, renamed)


def _images(batch: pa.RecordBatch, ids_N: NDArray[np.int64], place: _Place, rest: Rest) -> pa.RecordBatch:
    columns = {name: batch.column(name) for name in IMAGES.names if name in batch.schema.names}
    columns |= {"sample_id": to_array(ids_N, pa.int64()), "size_bytes": to_array(place.size_bytes_N, pa.int64())}
    columns["label_areas_px2"] = _areas(batch)
    if place.renamed:
        names = columns["file_name"].to_pylist()
        columns["file_name"] = to_array([place.renamed.get(row, name) for row, name in enumerate(names)], pa.string())
    if rest == "absent":
        columns["absent_labels"] = to_array([()] * batch.num_rows, IMAGES.field("absent_labels").type)
    if not place.is_outside_N.all():
        containers = [uris.absolute(one) if one else "" for one in columns["container"].to_pylist()]
        columns["container"] = to_array(containers, pa.string())
    return pa.RecordBatch.from_arrays([columns[name] for name in IMAGES.names], schema=IMAGES)


def _areas(batch: pa.RecordBatch) -> pa.Array:
    """Return the areas parallel to the labels, 0 in rows without areas."""
    labels, areas = batch.column("labels"), batch.column("label_areas_px2")
    per_row_N = lengths(labels)
    if np.array_equal(per_row_N, lengths(areas)):
        return areas
    filled_in = np.zeros(int(per_row_N.sum()))
    filled_in[np.repeat(lengths(areas) > 0, per_row_N)] = numbers(areas.flatten())
    offsets = numbers(labels.offsets)
    return pa.ListArray.from_arrays(to_array(offsets - offsets[0], pa.int32()), to_array(filled_in, pa.float64()))
