"""Pascal VOC: one XML file per image, and lists of images in ImageSets/Main (VOC devkit, "Annotation")."""

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from xml.etree.ElementTree import Element

import pyarrow as pa

from rayprob.data.sources.faults import label_space
from rayprob.data.sources.numbered_rows import NumberedRows
from rayprob.data.sources.parts import chunks_of, in_order
from rayprob.data.sources.rows import ImageRow, Stated, batch_of
from rayprob.data.sources.spec import Source
from rayprob.data.sources.text_file import read_lines
from rayprob.data.sources.xml_file import read_xml, text_of
from rayprob.errors import SourceError
from rayprob.files import storage, uris
from rayprob.registry import unknown

ANNOTATIONS, IMAGES, SETS = "Annotations", "JPEGImages", "ImageSets/Main"
LARGEST_PX = 2**31


class VocSource(Source):
    """Labels in Pascal VOC's layout. `images` is its folder, such as VOC2007, or one with XML files next to images."""

    set: str | None = None
    """The images of ImageSets/Main/SET.txt, such as trainval; null takes every XML file."""


@dataclass(frozen=True)
class _Object:
    label: str
    is_difficult: bool
    area_px2: float


@dataclass(frozen=True)
class _Annotation:
    key: str
    file_name: str
    height_px: int
    width_px: int
    objects: list[_Object]


def read(source: VocSource) -> Stated:
    """Return the labels in the XML files of a set.

    A label is present if an object has its name, and unknown if all such objects are `difficult`. Parts and actions of objects
    are not labels. Raises SourceError.
    """
    root, rows = source.images, NumberedRows()
    for batch, names in in_order(partial(_read_chunk, uris.absolute(root)), chunks_of(_xml_files(source))):
        rows.add(batch, names)
    ordered = sorted(rows.number_of)
    return Stated(
        label_space=label_space(source.described, ordered),
        rest=source.rest or "absent",
        batches=rows.batches(ordered),
        images=root,
        dropped={},
        is_declared=False,
    )


def _read_chunk(images: str, files: Sequence[str]) -> tuple[pa.RecordBatch, list[str]]:
    """Return the rows of some XML files, and the label names that their labels index."""
    annotations = [_annotation(images, file) for file in files]
    names = list(dict.fromkeys(one.label for annotation in annotations for one in annotation.objects))
    column_of = {name: column for column, name in enumerate(names)}
    return batch_of([_row(annotation, column_of) for annotation in annotations]), names


def _xml_files(source: VocSource) -> list[str]:
    root = source.images
    if not storage.is_folder(root):
        raise SourceError(f"cannot list the images folder {root}: no such folder; give the folder that contains {ANNOTATIONS}")
    if source.set is not None:
        return [f"{ANNOTATIONS}/{stem}.xml" for stem in _stems(root, source.set)]
    files = [name for name in storage.list_below(root).size_of if name.lower().endswith(".xml")]
    annotations = [name for name in files if name.startswith(f"{ANNOTATIONS}/")] or files
    if not annotations:
        raise SourceError(f"{root} contains no XML file; give the folder with {ANNOTATIONS}, or with XML files next to images")
    return annotations


def _stems(root: str, name: str) -> list[str]:
    sets = [file.removesuffix(".txt") for file in storage.list_names(storage.join(root, SETS)) if file.endswith(".txt")]
    if name not in sets:
        whole = [one for one in sets if "_" not in one] or sets
        raise SourceError(f"{storage.join(root, SETS)}: {unknown(name, whole, 'set')}")
    # A line of CLASS_train.txt has a value after the stem.
    return [line.split()[0] for line in read_lines(storage.join(root, SETS, f"{name}.txt"))]


def _images_beside(file: str) -> str:
    """Return the folder of an XML file's image: JPEGImages for files in Annotations, else the file's own."""
    folder = posixpath.dirname(file)
    if folder == ANNOTATIONS or folder.startswith(f"{ANNOTATIONS}/"):
        return posixpath.join(IMAGES, folder.removeprefix(ANNOTATIONS).strip("/"))
    return folder


def _annotation(images: str, file: str) -> _Annotation:
    uri, folder = storage.join(images, file), _images_beside(file)
    root = read_xml(uri)
    if root.tag != "annotation":
        raise SourceError(f"{uri} contains <{root.tag:.80}>, not <annotation>; give VOC's XML")
    stem = posixpath.splitext(posixpath.basename(file))[0]
    named = text_of(root, "filename")
    # In exports <filename> is often a path on another machine, or lacks its suffix.
    suffix = posixpath.splitext(named)[1] if named else ""
    return _Annotation(
        key=posixpath.join(folder.removeprefix(IMAGES).strip("/"), stem),
        file_name=posixpath.join(folder, stem + suffix),
        height_px=_pixels(root, "size/height"),
        width_px=_pixels(root, "size/width"),
        objects=[_object(uri, node) for node in root.findall("object")],
    )


def _object(uri: str, node: Element) -> _Object:
    name = text_of(node, "name")
    if name is None:
        raise SourceError(f"{uri} has an object without a name; name it or drop it")
    difficult = text_of(node, "difficult") or "0"
    if difficult not in ("0", "1"):
        raise SourceError(f"{uri}: difficult is {difficult!r:.80} in an object {name!r:.80}; it must be 0 or 1")
    sides = [
        _number(node, f"bndbox/{end}") - _number(node, f"bndbox/{start}") for start, end in (("xmin", "xmax"), ("ymin", "ymax"))
    ]
    return _Object(name, difficult == "1", max(sides[0], 0.0) * max(sides[1], 0.0))


def _row(annotation: _Annotation, column_of: dict[str, int]) -> ImageRow:
    area_of: dict[int, float] = {}
    for one in annotation.objects:
        if not one.is_difficult:
            column = column_of[one.label]
            area_of[column] = max(area_of.get(column, 0.0), one.area_px2)
    labels = tuple(sorted(area_of))
    difficult = {column_of[one.label] for one in annotation.objects if one.is_difficult}
    return ImageRow(
        key=annotation.key,
        file_name=annotation.file_name,
        height_px=annotation.height_px,
        width_px=annotation.width_px,
        labels=labels,
        label_areas_px2=tuple(area_of[column] for column in labels),
        unknown_labels=tuple(sorted(difficult - set(labels))),
    )


def _pixels(node: Element, path: str) -> int:
    number = _number(node, path)
    return int(number) if number < LARGEST_PX else 0


def _number(node: Element, path: str) -> float:
    """Return a coordinate; 0 if it is missing, negative or not a number, since labels do not need geometry."""
    try:
        number = float(text_of(node, path) or 0)
    except ValueError:
        return 0.0
    return number if 0 <= number < LARGEST_PX else 0.0
