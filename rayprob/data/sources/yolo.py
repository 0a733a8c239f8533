"""YOLO: for images/X.jpg a file labels/X.txt with a line per object, whose first number is the label."""

import posixpath
from collections.abc import Iterator, Sequence
from functools import partial

import pyarrow as pa

from rayprob.data.sources.faults import label_space, short
from rayprob.data.sources.image_files import ImageFiles
from rayprob.data.sources.label_list import by_number, distinct, is_number, read_names
from rayprob.data.sources.parts import chunks_of, in_order
from rayprob.data.sources.rows import ImageRow, Stated, batch_of
from rayprob.data.sources.spec import Source
from rayprob.data.sources.text_file import read_lines
from rayprob.errors import SourceError
from rayprob.files import storage, uris

NAME_LISTS = ("data.yaml", "dataset.yaml", "classes.txt", "obj.names")


class YoloSource(Source):
    """Labels in YOLO's text files. `images` is the folder of one split, such as data/train/images."""

    annotations: str | None = None
    """The folder of text files; null takes that of images with its last `images` replaced by `labels`, else the same folder."""
    names: str | list[str] | dict[str, str] | None = None
    """The label names: data.yaml, classes.txt with a name per line, a list or a mapping; null finds the file above `images`."""

    @property
    def described(self) -> str:
        """Where the labels come from, for messages."""
        return self.annotations or labels_folder(self.images)


def read(source: YoloSource) -> Stated:
    """Return the labels of all images of a folder; an image without a text file, or with an empty one, has no labels.

    Boxes, polygons and rotated boxes count alike. Raises SourceError.
    """
    names = distinct(source.described, read_names(source.names or _names_above(source.images)))
    order = sorted(names, key=by_number)
    if wrong := [code for code in names if not is_number(code)]:
        raise SourceError(f"names: {wrong[0]!r:.80} is not a label number; YOLO numbers labels from 0")
    images = _images(source)
    return Stated(
        label_space=label_space(f"names of {source.images}", [names[code] for code in order], [int(code) for code in order]),
        rest=source.rest or "absent",
        batches=_batches(source, images, {int(code): column for column, code in enumerate(order)}),
        images=source.images,
        dropped={},
    )


def _names_above(images: str) -> str:
    """Return the file of names in the folder of images or one of the three above it. Raises SourceError if it is missing."""
    folder = images.rstrip("/")
    for _ in range(4):
        for name in NAME_LISTS:
            if storage.exists(uri := storage.join(folder or ".", name)):
                return uri
        folder, _ = uris.split(folder)
    raise SourceError(f"no {' or '.join(NAME_LISTS)} is in {images} or above it; give the label names as `names`")


def labels_folder(images: str) -> str:
    """Return the folder of text files for a folder of images, found as Ultralytics does."""
    parent, name = uris.split(images)
    below: list[str] = []
    while name and name != "images":
        below.insert(0, name)
        parent, name = uris.split(parent)
    return storage.join(parent, "labels", *below) if name else images


def _images(source: YoloSource) -> list[str]:
    images = ImageFiles(source.images).images()
    texts = {name.removesuffix(".txt") for name in storage.list_below(source.described).size_of if name.endswith(".txt")}
    stems = {posixpath.splitext(name)[0] for name in images}
    if images and not texts & stems:
        raise SourceError(
            f"{source.described} has no text file for an image in {source.images}; give the folder of text files "
            "as `annotations`"
        )
    return images


def _batches(source: YoloSource, images: list[str], column_of: dict[int, int]) -> Iterator[pa.RecordBatch]:
    below = set(storage.list_below(source.described).size_of)
    stated = [(name, f"{posixpath.splitext(name)[0]}.txt" in below) for name in images]
    yield from in_order(partial(_read_chunk, uris.absolute(source.described), column_of), chunks_of(stated))


def _read_chunk(folder: str, column_of: dict[int, int], images: Sequence[tuple[str, bool]]) -> pa.RecordBatch:
    """Return the rows of some images, and for each whether it has a text file."""
    rows = []
    for name, has_text in images:
        stem = posixpath.splitext(name)[0]
        labels = _labels(storage.join(folder, f"{stem}.txt"), column_of) if has_text else set()
        rows.append(ImageRow(key=stem, file_name=name, labels=tuple(sorted(labels))))
    return batch_of(rows)


def _labels(uri: str, column_of: dict[int, int]) -> set[int]:
    found = set()
    for place, line in enumerate(read_lines(uri), start=1):
        number = line.split()[0].removesuffix(".0")
        if not is_number(number) or int(number) not in column_of:
            raise SourceError(
                f"{uri}, line {place}: {short(number)} is not a label number; allowed: 0 to {max(column_of)}, as in `names`"
            )
        found.add(column_of[int(number)])
    return found
