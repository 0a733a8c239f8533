"""Splits by files of names: a line has the file name of an image, with or without folder and suffix, or its id. N images."""

import logging
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from rayprob.arrays import Ints
from rayprob.data.building.units import FREE
from rayprob.data.sources.cells import stem
from rayprob.data.sources.faults import Faults, normalised
from rayprob.data.sources.image import SourceImage
from rayprob.data.sources.text_file import read_lines
from rayprob.errors import SourceError
from rayprob.images.kinds import IMAGE_SUFFIXES
from rayprob.text import first_of

log = logging.getLogger(__name__)


@dataclass
class _Found:
    """The images that a name fits the closest way: 0 by its whole file name, 4 by its id."""

    closeness: int = 5
    rows: list[int] = field(default_factory=list)

    def add(self, closeness: int, row: int) -> None:
        if closeness < self.closeness:
            self.closeness, self.rows = closeness, []
        if closeness == self.closeness:
            self.rows.append(row)


def place_in_lists(lists: Mapping[int, str], images: Sequence[SourceImage], split: str) -> Ints:
    """Return the key of the list that names each image; FREE for an image that no list names [N].

    Files are text with a name per line. Names without an image, and names given again, are counted in a warning. Raises
    SourceError for an image in two lists, a name that fits several images, and a list none of whose names fits.
    """
    names_of = {place: [normalised(line) for line in read_lines(uri)] for place, uri in lists.items()}
    found = _find({name for names in names_of.values() for name in names}, images)
    place_N = np.full(len(images), FREE)
    twice: list[str] = []
    for place, names in names_of.items():
        _check_found(lists[place], names, found, images, split)
        rows = [found[name].rows[0] for name in names if name in found]
        twice += [images[row].file_name for row in dict.fromkeys(rows) if place_N[row] != FREE]
        place_N[rows] = place
        if repeated := len(rows) - len({*rows}):
            log.warning("%s: %s lines name an image that a line before names", lists[place], f"{repeated:,}")
    Faults("divide.into").on_any("image named in two files", twice, "name each image in one of them")
    return place_N


def _find(names: set[str], images: Iterable[SourceImage]) -> dict[str, _Found]:
    found: dict[str, _Found] = {}
    for row, image in enumerate(images):
        for closeness, name in enumerate(_names(image)):
            if name in names:
                found.setdefault(name, _Found()).add(closeness, row)
    return found


def _names(image: SourceImage) -> Iterator[str]:
    """Yield what a line may call an image, the closest first."""
    base = posixpath.basename(image.file_name)
    yield from (image.file_name, stem(image.file_name, IMAGE_SUFFIXES), base, stem(base, IMAGE_SUFFIXES), str(image.sample_id))


def _check_found(
    uri: str, names: Sequence[str], found: Mapping[str, _Found], images: Sequence[SourceImage], split: str
) -> None:
    if not names:
        raise SourceError(f"{uri} is empty; write the name of an image on each line")
    lost = [name for name in names if name not in found]
    called = first_of((image.file_name for image in islice(images, 4)), 3)
    if len(lost) == len(names):
        raise SourceError(
            f"{uri}: none of its {len(names):,} names fits an image of {split}: {first_of(map(ascii, names), 3)}; images are "
            f"called {called}"
        )
    several = [
        f"{name!a} ({first_of((images[row].file_name for row in found[name].rows), 3)})"
        for name in dict.fromkeys(names)
        if name in found and len(found[name].rows) > 1
    ]
    Faults(uri).on_any("name that several images have", several, "give each its path below the images folder")
    if lost:
        log.warning(
            "%s: %s of %s names fit no image of %s that is sharded, such as %s; images are called %s",
            uri,
            f"{len(lost):,}",
            f"{len(names):,}",
            split,
            first_of(map(ascii, lost), 3),
            called,
        )
