"""COCO annotations -> one SourceImage per image, in the order of the file; read with pycocotools, checked before."""

import contextlib
import io
import math
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from rayprob.data.sources.coco_check import check, normalised
from rayprob.data.sources.json_file import Pairs, read_json
from rayprob.errors import LabelError, SourceError
from rayprob.labels import LabelSpace

LARGEST = float(np.finfo(np.float32).max)  # areas are stored in 32 bits


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One image of the source: where it lies and what its annotations state. Labels are columns, ascending."""

    sample_id: int
    file_name: str
    height_px: int  # as declared; 0 where the source does not say
    width_px: int
    labels: tuple[int, ...]
    label_areas_px2: tuple[float, ...]  # beside `labels`: the area of the largest object with that label
    unknown_labels: tuple[int, ...]
    size_bytes: int = 0  # of the file, once it was found


def read(annotations: str) -> tuple[LabelSpace, list[SourceImage]]:
    """Return the label space and the images of a COCO annotations file; `iscrowd` boxes count as present.

    An image entry may carry `unknown_category_ids`: labels that its annotators did not look for. Segmentations are
    dropped while the file is parsed, so that memory stays a small multiple of the file. Raises SourceError.
    """
    content = read_json(annotations, "COCO JSON", lambda pairs: _without_segmentation(annotations, pairs))
    check(annotations, content)
    label_space = _label_space(annotations, content["categories"])
    boxes_of = _index(content).imgToAnns
    return label_space, [_image(entry, boxes_of.get(entry["id"], []), label_space) for entry in content["images"]]


def _without_segmentation(annotations: str, pairs: Pairs) -> dict[str, Any]:
    node = dict(pairs)
    if len(node) < len(pairs):
        twice = next(key for place, (key, _) in enumerate(pairs) if key in dict(pairs[:place]))
        raise SourceError(f"{annotations}: the key {twice!r} is given twice in one mapping; keep one")
    node.pop("segmentation", None)
    return node


def _label_space(annotations: str, categories: list[dict[str, Any]]) -> LabelSpace:
    ordered = sorted(categories, key=itemgetter("id"))
    try:
        return LabelSpace(tuple(c["name"] for c in ordered), tuple(c["id"] for c in ordered))
    except LabelError as error:
        raise SourceError(f"{annotations}: {error}") from error


def _index(content: dict[str, Any]) -> COCO:
    coco = COCO()
    coco.dataset = content
    # pycocotools prints its progress.
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _image(entry: dict[str, Any], boxes: list[dict[str, Any]], label_space: LabelSpace) -> SourceImage:
    area_of: dict[int, float] = {}
    for box in boxes:
        column = label_space.column_of_category[box["category_id"]]
        area_of[column] = max(area_of.get(column, 0.0), _area_px2(box))
    labels = sorted(area_of)
    unknown = sorted(label_space.column_of_category[category] for category in entry.get("unknown_category_ids") or ())
    return SourceImage(
        sample_id=entry["id"],
        file_name=normalised(entry["file_name"]),
        height_px=int(_number(entry.get("height")) or 0),
        width_px=int(_number(entry.get("width")) or 0),
        labels=tuple(labels),
        label_areas_px2=tuple(area_of[column] for column in labels),
        unknown_labels=tuple(unknown),
    )


def _area_px2(box: dict[str, Any]) -> float:
    """Return the area that an annotation states, else that of its box; 0 where it has neither: labels need no geometry."""
    area = _number(box.get("area"))
    if area is not None:
        return area
    bbox = box.get("bbox")
    sides = [_number(side) for side in bbox[2:]] if isinstance(bbox, list) and len(bbox) == 4 else [0.0]
    return _number(math.prod(sides)) or 0.0 if None not in sides else 0.0


def _number(value: Any) -> float | None:
    """Return a length or area; None for anything else: null, "", NaN, a list, a negative number or one that is not finite."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if 0 <= number <= LARGEST else None
