"""What a COCO annotations file must hold before a row is made of it; each fault is counted, named, and comes with a remedy."""

import reprlib
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from rayprob.errors import SourceError
from rayprob.files.uris import is_utf8
from rayprob.labels import composed
from rayprob.text import first_of

REQUIRED: dict[str, dict[str, type]] = {
    "categories": {"id": int, "name": str},
    "images": {"id": int, "file_name": str},
    "annotations": {"id": int, "image_id": int, "category_id": int},
}
ID_LIMIT = 2**63  # ids are stored as int64
UNKNOWN_REMEDY = "allowed: ids of 'categories' of which the image has no annotation"
SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxother = SHORT.maxlong = 80


def check(annotations: str, content: Any) -> None:
    """Raise SourceError for the first kind of fault in the parsed content of the file `annotations`."""
    if not isinstance(content, dict):
        raise SourceError(f"{annotations} holds {type(content).__name__}, not a mapping with {', '.join(REQUIRED)}")
    for part, keys in REQUIRED.items():
        _check_keys(annotations, part, content.get(part), keys)
    fail = _Faults(annotations)
    _check_categories(fail, content["categories"])
    _check_images(fail, content["images"])
    _check_annotations(fail, content)


def is_safe(file_name: str) -> bool:
    """Return whether a file name stays below the folder it is joined to."""
    path = PurePosixPath(file_name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and not set(file_name) & set("\\\0\n\r")


def normalised(file_name: str) -> str:
    """Return a safe file name without what changes nothing: ./0.jpg and a//0.jpg are 0.jpg and a/0.jpg."""
    is_odd = "//" in file_name or "./" in file_name or file_name.endswith(("/", "/."))
    return str(PurePosixPath(file_name)) if is_odd else file_name


def short(value: Any) -> str:
    """Return what a value looks like in an error, however large or deep it is."""
    return SHORT.repr(value)


@dataclass(frozen=True)
class _Faults:
    annotations: str

    def on_any(self, what: str, found: Iterable[object], remedy: str) -> None:
        """Raise SourceError with the number of faults and the first five, where there are any."""
        faults = list(found)
        if faults:
            raise SourceError(f"{self.annotations}: {len(faults):,} x {what}: {first_of(faults, 5)}; {remedy}")


def _check_keys(annotations: str, part: str, entries: Any, keys: dict[str, type]) -> None:
    if entries is None:
        raise SourceError(f"{annotations} has no list {part!r}; it must hold {', '.join(REQUIRED)}")
    if not isinstance(entries, list):
        raise SourceError(f"{annotations}: {part!r} is {short(entries)}; it must be a list of mappings with {', '.join(keys)}")
    for place, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise SourceError(f"{annotations}: {part}[{place}] is {short(entry)}; it must be a mapping with {', '.join(keys)}")
        for key, kind in keys.items():
            # bool is an int to isinstance, and no id to anybody.
            if not isinstance(entry.get(key), kind) or isinstance(entry[key], bool):
                found = f"is {short(entry[key])}" if key in entry else "is missing"
                raise SourceError(f"{annotations}: {part}[{place}].{key} {found}; it must be of type {kind.__name__}")


def _check_categories(fail: _Faults, categories: list[dict[str, Any]]) -> None:
    if not categories:
        raise SourceError(f"{fail.annotations}: 'categories' is empty; list at least one category")
    ids, names = ([category[key] for category in categories] for key in ("id", "name"))
    fail.on_any(
        "category id beyond 64 bits",
        (short(number) for number in ids if not -ID_LIMIT <= number < ID_LIMIT),
        "renumber the categories",
    )
    fail.on_any(
        "empty or padded label name",
        (repr(name) for name in names if not name or name != name.strip()),
        "name each category, without blanks at the start or the end",
    )
    fail.on_any(
        "label name that cannot be printed",
        (ascii(name) for name in names if not is_utf8(name) or any(unicodedata.category(sign) == "Cc" for sign in name)),
        "use names without control characters and halves of surrogate pairs",
    )
    fail.on_any(
        "duplicate label name",
        map(repr, _doubles(map(composed, names))),
        "each category must have its own name; two Unicode spellings of an accent count as one",
    )


def _check_images(fail: _Faults, images: list[dict[str, Any]]) -> None:
    ids, names = ([image[key] for image in images] for key in ("id", "file_name"))
    fail.on_any("negative image id", (short(number) for number in ids if number < 0), "sample ids count from 0; renumber them")
    fail.on_any(
        "image id beyond 64 bits",
        (short(number) for number in ids if number >= ID_LIMIT),
        "allowed: below 2^63; renumber the images",
    )
    fail.on_any("duplicate image id", _doubles(ids), "each image must have its own id")
    fail.on_any(
        "file_name that is a URL",
        (ascii(name) for name in names if "://" in name),
        "download the images, and name each by its path below the images folder",
    )
    fail.on_any(
        "backslash in a file_name",
        (ascii(name) for name in names if "\\" in name and is_safe(name.replace("\\", "/"))),
        "write / between folders, as in dir/0.jpg",
    )
    fail.on_any(
        "unsafe file_name",
        (ascii(name) for name in names if not is_safe(name) or not is_utf8(name)),
        "allowed: a relative path below the images folder, without '..'",
    )
    fail.on_any("duplicate file_name", _doubles(map(normalised, names)), "each file may be listed once; drop one entry")


def _check_annotations(fail: _Faults, content: dict[str, Any]) -> None:
    images, boxes = content["images"], content["annotations"]
    image_ids, category_ids = ({entry["id"] for entry in content[part]} for part in ("images", "categories"))
    fail.on_any(
        "annotation of an unknown image",
        (
            f"annotation {short(box['id'])} of image {short(box['image_id'])}"
            for box in boxes
            if box["image_id"] not in image_ids
        ),
        "list the image under 'images' or drop the annotation",
    )
    fail.on_any(
        "annotation of an unknown category",
        (
            f"annotation {short(box['id'])} of category {short(box['category_id'])}"
            for box in boxes
            if box["category_id"] not in category_ids
        ),
        "list the category under 'categories' or drop the annotation",
    )
    fail.on_any("unknown_category_ids that fit nothing", _bad_unknowns(images, boxes, category_ids), UNKNOWN_REMEDY)


def _bad_unknowns(images: list[dict[str, Any]], boxes: list[dict[str, Any]], category_ids: set[int]) -> list[str]:
    asked = {entry["id"]: entry["unknown_category_ids"] for entry in images if entry.get("unknown_category_ids") is not None}
    for image, ids in asked.items():
        if not isinstance(ids, list) or not all(type(category) is int for category in ids):
            return [f"image {image}: {short(ids)} is not a list of ids"]
    stray = [f"image {image}: {short(category)}" for image, ids in asked.items() for category in set(ids) - category_ids]
    both = {(box["image_id"], box["category_id"]) for box in boxes if box["category_id"] in asked.get(box["image_id"], ())}
    return stray + [f"image {image}: {category} is annotated too" for image, category in sorted(both)]


def _doubles(values: Iterable[Any]) -> list[Any]:
    return [value for value, count in Counter(values).items() if count > 1]
