"""COCO annotations -> one row per image, in the order of the file; checked first, then indexed by pycocotools."""

import contextlib
import io
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pycocotools.coco import COCO

from rayprob.data.sources.coco_check import check_shape, check_values
from rayprob.data.sources.coco_stream import CocoStream
from rayprob.data.sources.coco_variants import as_instances, names_in_url, numbered, with_one_kind_of_id, without_unused_root
from rayprob.data.sources.faults import label_space, normalised
from rayprob.data.sources.groups import group_of
from rayprob.data.sources.json_file import Pairs, read_json
from rayprob.data.sources.json_stream import NotStreamed
from rayprob.data.sources.rows import ALONE, ImageRow, Stated, batches_of
from rayprob.data.sources.spec import Source
from rayprob.errors import SourceError, StorageError
from rayprob.files import storage

log = logging.getLogger(__name__)
LARGEST = float(np.finfo(np.float32).max)  # areas are stored in 32 bits
LARGEST_PX = 2**31
STREAMED_BYTES = 2**24  # larger files are read as a stream


class CocoSource(Source):
    """Labels in COCO JSON: instances, panoptic, LVIS, or annotations without boxes; .json or .json.gz."""

    later_keys: ClassVar[frozenset[str]] = Source.later_keys | {"group"}

    annotations: str
    """The annotations file, in COCO JSON."""
    group: str | None = None
    """A key of image entries, such as patient_id: images with the same value share a split."""


def read(source: CocoSource) -> Stated:
    """Return the labels of a COCO annotations file; `iscrowd` boxes count as present.

    An image entry may list `unknown_category_ids`: labels that its annotators did not look for. If image entries list
    `neg_category_ids`, as in LVIS, labels that are neither annotated nor listed there are unknown. Segmentations are dropped
    while the file is parsed, so that memory stays a small multiple of the file; for a large one it stays at a few MiB and 24
    bytes per image, unless `coco_stream` cannot read it. Raises SourceError.
    """
    where = source.annotations
    if _size_bytes(where) >= STREAMED_BYTES:
        try:
            stream = CocoStream(
                where, lambda pairs: _without_segmentation(where, pairs), lambda entry: _row(entry, {}, source.group), _area_px2
            )
            return _stated(source, stream.content, stream.rows)
        except NotStreamed as reason:
            log.info("%s is read as a whole: %s", where, reason)
    content = as_instances(read_json(where, "COCO JSON", lambda pairs: _without_segmentation(where, pairs)))
    check_shape(where, content)
    content = with_one_kind_of_id(content)
    check_values(where, content)
    return _stated(source, content, lambda column_of: batches_of(_rows(content, column_of, source.group)))


def _stated(source: CocoSource, content: dict[str, Any], rows: Callable[[dict[Any, int]], Iterator[pa.RecordBatch]]) -> Stated:
    """Return the labels of checked content; `rows` makes its rows once each category id has a column."""
    categories, root = without_unused_root(content)
    number_of = numbered(categories)
    categories = sorted(categories, key=lambda category: number_of[category["id"]])
    space = label_space(source.annotations, [c["name"] for c in categories], [number_of[c["id"]] for c in categories])
    is_federated = any(entry.get("neg_category_ids") is not None for entry in content["images"])
    return Stated(
        label_space=space,
        rest=source.rest or ("unknown" if is_federated else "absent"),
        batches=rows({c["id"]: column for column, c in enumerate(categories)}),
        images=source.images,
        dropped={f"category {root!r}, the parent of all others, without annotations": 1} if root else {},
    )


def _without_segmentation(annotations: str, pairs: Pairs) -> dict[str, Any]:
    node = dict(pairs)
    if len(node) < len(pairs):
        twice = next(key for place, (key, _) in enumerate(pairs) if key in dict(pairs[:place]))
        raise SourceError(f"{annotations}: the key {twice!r} is given twice in one mapping; keep one")
    node.pop("segmentation", None)
    return node


def _rows(content: dict[str, Any], column_of: dict[Any, int], group: str | None) -> Iterator[ImageRow]:
    boxes_of = _index(content).imgToAnns
    return (_row(entry, column_of, group, boxes_of.get(entry["id"], [])) for entry in content["images"])


def _index(content: dict[str, Any]) -> COCO:
    coco = COCO()
    coco.dataset = content
    for place, box in enumerate(content["annotations"]):
        box["id"] = place  # annotation ids are not used, since they may be missing or repeated
    # pycocotools prints its progress.
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _size_bytes(uri: str) -> int:
    """Return the size of a file; 0 if the store does not report it, since reading the file then raises the error."""
    try:
        return storage.size_bytes(uri)
    except StorageError:
        return 0


def _row(entry: dict[str, Any], column_of: dict[Any, int], group: str | None, boxes: Sequence[dict[str, Any]] = ()) -> ImageRow:
    area_of: dict[int, float] = {}
    for box in boxes:
        column = column_of[box["category_id"]]
        area_of[column] = max(area_of.get(column, 0.0), _area_px2(box))
    labels = sorted(area_of)
    return ImageRow(
        key=str(entry["id"]),
        file_name=normalised(entry["file_name"]),
        other_names=names_in_url(entry),
        height_px=_pixels(entry.get("height")),
        width_px=_pixels(entry.get("width")),
        labels=tuple(labels),
        label_areas_px2=tuple(area_of[column] for column in labels),
        unknown_labels=_columns(entry.get("unknown_category_ids"), column_of),
        absent_labels=_columns(entry.get("neg_category_ids"), column_of),
        group=ALONE if group is None else group_of(entry.get(group)),
    )


def _columns(categories: list[Any] | None, column_of: dict[Any, int]) -> tuple[int, ...]:
    return tuple(sorted({column_of[one] for one in categories if one in column_of})) if categories else ()


def _area_px2(box: dict[str, Any]) -> float:
    """Return the area of an annotation, else that of its box; 0 if it has neither, since labels do not need geometry."""
    area = _number(box.get("area"))
    if area is not None:
        return area
    bbox = box.get("bbox")
    sides = [_number(side) for side in bbox[2:]] if isinstance(bbox, list) and len(bbox) == 4 else [0.0]
    return _number(math.prod(sides)) or 0.0 if None not in sides else 0.0


def _pixels(value: Any) -> int:
    number = int(_number(value) or 0)
    return number if number < LARGEST_PX else 0


def _number(value: Any) -> float | None:
    """Return a length or area; None for anything else: null, "", NaN, a list, a negative or infinite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if 0 <= number <= LARGEST else None
