"""What two splits share: the same image file, which is an error, or equal ids, which is not."""

import logging
import posixpath
from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from rayprob.data.sources.faults import normalised
from rayprob.data.sources.image import SourceImages
from rayprob.data.sources.rows import values
from rayprob.data.sources.sample_ids import Keys, filled, hashes_of, repeated, shared_keys
from rayprob.errors import SourceError
from rayprob.files import storage, uris
from rayprob.text import first_of

log = logging.getLogger(__name__)


def check_disjoint(folders: Mapping[str, str], images: Mapping[str, SourceImages], keys: Mapping[str, Keys]) -> None:
    """Raise SourceError if two splits have the same image file. Ids that merely restart in each split are allowed."""
    if twice := _in_two(folders, images):
        raise SourceError(
            f"{len(twice):,} images are in two splits: {first_of(twice, 5)}; training and testing would share them; remove "
            "each from one split"
        )
    if shared := shared_keys(keys):
        count, *first = shared
        log.warning(
            "%s image ids are in two splits, such as %s (%s and %s), of different files: sample ids are hashes of split and id",
            f"{count:,}",
            *first,
        )


def _in_two(folders: Mapping[str, str], images: Mapping[str, SourceImages]) -> list[str]:
    """Return the locations of images that are in two splits, each with both splits."""
    if len(images) < 2:
        return []
    places_of = {split: partial(_places, _one_spelling(folders[split]), members) for split, members in images.items()}
    hashes = {split: filled(len(images[split]), map(hashes_of, places())) for split, places in places_of.items()}
    suspects = repeated(np.concatenate(list(hashes.values())))
    split_of: dict[str, str] = {}
    twice: list[str] = []
    for split, places_of_split in places_of.items() if len(suspects) else ():
        places = list(_suspected(places_of_split(), hashes[split], suspects))
        twice += [f"{place} ({split_of[place]}, {split})" for place in places if place in split_of]
        split_of |= dict.fromkeys(places, split)
    return twice


def _suspected(places: Iterator[list[str]], hashes_N: NDArray[np.int64], suspects: NDArray[np.int64]) -> Iterator[str]:
    first = 0
    for some in places:
        yield from (some[row] for row in np.flatnonzero(np.isin(hashes_N[first : first + len(some)], suspects)).tolist())
        first += len(some)


def _places(folder: str, images: SourceImages) -> Iterator[list[str]]:
    """Yield, batch by batch, where images are stored, in a normalised spelling."""
    for batch in images.batches:
        columns = (values(batch.column(name)) for name in ("file_name", "container", "offset_bytes"))
        yield [
            f"{container}, byte {offset_bytes}" if container else _path(folder, name)
            for name, container, offset_bytes in zip(*columns, strict=True)
        ]


def _one_spelling(folder: str) -> str:
    absolute = uris.absolute(folder)
    return posixpath.normpath(absolute).rstrip("/") if storage.is_local(absolute) else absolute


def _path(folder: str, file_name: str) -> str:
    if storage.is_local(folder):
        return f"{folder}/{normalised(file_name)}"
    return posixpath.normpath(storage.join(folder, file_name))
