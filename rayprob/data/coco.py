"""COCO annotations -> one SourceImage per image, in the order of the file; read with pycocotools, checked before."""

import contextlib
import io
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from operator import itemgetter
from pathlib import PurePosixPath
from typing import Any

from pycocotools.coco import COCO

from rayprob import storage
from rayprob.errors import LabelError, SourceError
from rayprob.labels import LabelSpace

REQUIRED: dict[str, dict[str, type]] = {
    "categories": {"id": int, "name": str},
    "images": {"id": int, "file_name": str},
    "annotations": {"id": int, "image_id": int, "category_id": int},
}


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
    content = _parse(annotations)
    _check(annotations, content)
    label_space = _label_space(annotations, content["categories"])
    boxes_of = _index(content).imgToAnns
    return label_space, [_image(entry, boxes_of.get(entry["id"], []), label_space) for entry in content["images"]]


def _parse(annotations: str) -> dict[str, Any]:
    try:
        text = storage.read_bytes(annotations).decode("utf-8-sig")
        content = json.loads(text, object_hook=_without_segmentation)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{annotations} is not JSON: {error}; download it again") from error
    if not isinstance(content, dict):
        raise SourceError(f"{annotations} holds {type(content).__name__}, not a mapping with {', '.join(REQUIRED)}")
    return content


def _without_segmentation(node: dict[str, Any]) -> dict[str, Any]:
    node.pop("segmentation", None)
    return node


def _check(annotations: str, content: dict[str, Any]) -> None:
    for part, keys in REQUIRED.items():
        _check_keys(annotations, part, content.get(part), keys)
    images, boxes = content["images"], content["annotations"]
    image_ids, category_ids = ({entry["id"] for entry in content[part]} for part in ("images", "categories"))
    fail = _Faults(annotations)
    fail.on_any(
        "negative image id", (entry["id"] for entry in images if entry["id"] < 0), "sample ids count from 0; number them anew"
    )
    fail.on_any("duplicate image id", _doubles(entry["id"] for entry in images), "each image must have its own id")
    fail.on_any(
        "duplicate file_name", _doubles(entry["file_name"] for entry in images), "each file may be listed once; drop one entry"
    )
    fail.on_any(
        "unsafe file_name",
        (repr(entry["file_name"]) for entry in images if not is_safe(entry["file_name"])),
        "allowed: a relative path below the images folder, without '..'",
    )
    fail.on_any(
        "annotation of an unknown image",
        (f"annotation {box['id']} of image {box['image_id']}" for box in boxes if box["image_id"] not in image_ids),
        "list the image under 'images' or drop the annotation",
    )
    fail.on_any(
        "annotation of an unknown category",
        (f"annotation {box['id']} of category {box['category_id']}" for box in boxes if box["category_id"] not in category_ids),
        "list the category under 'categories' or drop the annotation",
    )
    fail.on_any("unknown_category_ids that fit nothing", _bad_unknowns(images, boxes, category_ids), _UNKNOWN_REMEDY)


_UNKNOWN_REMEDY = "allowed: ids of 'categories' of which the image has no annotation"


@dataclass(frozen=True)
class _Faults:
    annotations: str

    def on_any(self, what: str, found: Iterable[object], remedy: str) -> None:
        """Raise SourceError with the number of faults and the first five, where there are any."""
        faults = [str(fault) for fault in found]
        if faults:
            first = ", ".join(faults[:5]) + (", ..." if len(faults) > 5 else "")
            raise SourceError(f"{self.annotations}: {len(faults):,} x {what}: {first}; {remedy}")


def _check_keys(annotations: str, part: str, entries: Any, keys: dict[str, type]) -> None:
    if not isinstance(entries, list):
        raise SourceError(f"{annotations} has no list {part!r}; it must hold {', '.join(REQUIRED)}")
    for place, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise SourceError(f"{annotations}: {part}[{place}] is {entry!r:.80}; it must be a mapping with {', '.join(keys)}")
        for key, kind in keys.items():
            # bool is an int to isinstance, and no id to anybody.
            if not isinstance(entry.get(key), kind) or isinstance(entry[key], bool):
                found = f"is {entry[key]!r:.80}" if key in entry else "is missing"
                raise SourceError(f"{annotations}: {part}[{place}].{key} {found}; it must be of type {kind.__name__}")


def is_safe(file_name: str) -> bool:
    """Return whether a file name stays below the folder it is joined to."""
    path = PurePosixPath(file_name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and not set(file_name) & set("\\\0\n\r")


def _doubles(values: Iterable[Any]) -> list[Any]:
    return [value for value, count in Counter(values).items() if count > 1]


def _bad_unknowns(images: list[dict[str, Any]], boxes: list[dict[str, Any]], category_ids: set[int]) -> list[str]:
    asked = {entry["id"]: entry["unknown_category_ids"] for entry in images if entry.get("unknown_category_ids")}
    for image, ids in asked.items():
        if not isinstance(ids, list) or not all(isinstance(category, int) for category in ids):
            return [f"image {image}: {ids!r:.80} is no list of ids"]
    stray = [f"image {image}: {category}" for image, ids in asked.items() for category in set(ids) - category_ids]
    both = {(box["image_id"], box["category_id"]) for box in boxes if box["category_id"] in asked.get(box["image_id"], ())}
    return stray + [f"image {image}: {category} is annotated too" for image, category in sorted(both)]


def _label_space(annotations: str, categories: list[dict[str, Any]]) -> LabelSpace:
    ordered = sorted(categories, key=itemgetter("id"))
    if not ordered:
        raise SourceError(f"{annotations}: 'categories' is empty; list at least one category")
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
        file_name=entry["file_name"],
        height_px=int(entry.get("height") or 0),
        width_px=int(entry.get("width") or 0),
        labels=tuple(labels),
        label_areas_px2=tuple(area_of[column] for column in labels),
        unknown_labels=tuple(unknown),
    )


def _area_px2(box: dict[str, Any]) -> float:
    if "area" in box:
        return float(box["area"])
    return float(box["bbox"][2] * box["bbox"][3]) if len(box.get("bbox", ())) == 4 else 0.0
