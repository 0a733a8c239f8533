"""Checks of a COCO annotations file before rows are made of it; each fault is counted, named, and comes with a remedy."""

from typing import Any

from rayprob.data.sources.faults import Faults, doubles, normalised, short
from rayprob.errors import SourceError
from rayprob.files.uris import is_utf8

REQUIRED: dict[str, dict[str, tuple[type, ...]]] = {
    "categories": {"id": (int, str), "name": (str,)},
    "images": {"id": (int, str), "file_name": (str,)},
    "annotations": {"image_id": (int, str), "category_id": (int, str)},
}
ID_LIMIT = 2**63  # ids are stored as int64
UNKNOWN_REMEDY = "allowed: ids in 'categories' without an annotation in the image"


def check_shape(annotations: str, content: Any) -> None:
    """Raise SourceError unless the parsed content of the file `annotations` has COCO's lists with their keys."""
    if not isinstance(content, dict):
        raise SourceError(f"{annotations} contains {type(content).__name__}, not a mapping with {', '.join(REQUIRED)}")
    for part, keys in REQUIRED.items():
        _check_keys(annotations, part, content.get(part), keys)


def check_values(annotations: str, content: Any) -> None:
    """Raise SourceError for the first kind of fault in content of the right structure, with ids of one type."""
    fail = Faults(annotations)
    _check_categories(fail, content["categories"])
    _check_images(fail, content["images"])
    _check_annotations(fail, content)
    for key in ("unknown_category_ids", "neg_category_ids"):
        fail.on_any(f"wrong {key}", _bad_lists(content, key), UNKNOWN_REMEDY)


def _check_keys(annotations: str, part: str, entries: Any, keys: dict[str, tuple[type, ...]]) -> None:
    if entries is None:
        raise SourceError(f"{annotations} has no list {part!r}; it must contain {', '.join(REQUIRED)}")
    if not isinstance(entries, list):
        raise SourceError(f"{annotations}: {part!r} is {short(entries)}; it must be a list of mappings with {', '.join(keys)}")
    for place, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise SourceError(f"{annotations}: {part}[{place}] is {short(entry)}; it must be a mapping with {', '.join(keys)}")
        for key, kinds in keys.items():
            # A bool is an int to isinstance, but never an id.
            if not isinstance(entry.get(key), kinds) or isinstance(entry[key], bool):
                found = f"is {short(entry[key])}" if key in entry else "is missing"
                allowed = " or ".join(kind.__name__ for kind in kinds)
                raise SourceError(f"{annotations}: {part}[{place}].{key} {found}; it must be of type {allowed}")


def _check_categories(fail: Faults, categories: list[dict[str, Any]]) -> None:
    if not categories:
        raise SourceError(
            f"{fail.where}: 'categories' is empty; list at least one category (image_info files of test sets have no labels)"
        )
    ids, names = ([category[key] for category in categories] for key in ("id", "name"))
    fail.on_any(
        "category id beyond 64 bits",
        (short(number) for number in ids if isinstance(number, int) and not -ID_LIMIT <= number < ID_LIMIT),
        "renumber the categories",
    )
    fail.on_any("duplicate category id", map(short, doubles(ids)), "each category must have its own id")
    fail.on_label_names(names)


def _check_images(fail: Faults, images: list[dict[str, Any]]) -> None:
    ids, names = ([image[key] for image in images] for key in ("id", "file_name"))
    numbers = [number for number in ids if isinstance(number, int)]
    fail.on_any("negative image id", (short(n) for n in numbers if n < 0), "sample ids count from 0; renumber them")
    fail.on_any(
        "image id beyond 64 bits",
        (short(n) for n in numbers if n >= ID_LIMIT),
        "allowed: below 2^63; renumber the images",
    )
    fail.on_any(
        "image id that cannot be printed",
        (ascii(one) for one in ids if isinstance(one, str) and not (one and is_utf8(one))),
        "use ids without lone surrogates",
    )
    fail.on_any("duplicate image id", map(short, doubles(ids)), "each image must have its own id")
    fail.on_file_names(names)
    fail.on_any("duplicate file_name", doubles(map(normalised, names)), "each file may be listed once; drop one entry")


def _check_annotations(fail: Faults, content: dict[str, Any]) -> None:
    boxes = content["annotations"]
    image_ids, category_ids = ({entry["id"] for entry in content[part]} for part in ("images", "categories"))
    fail.on_any(
        "annotation of an unknown image",
        (
            f"annotation {short(box.get('id'))} of image {short(box['image_id'])}"
            for box in boxes
            if box["image_id"] not in image_ids
        ),
        "list the image under 'images' or drop the annotation",
    )
    fail.on_any(
        "annotation of an unknown category",
        (
            f"annotation {short(box.get('id'))} of category {short(box['category_id'])}"
            for box in boxes
            if box["category_id"] not in category_ids
        ),
        "list the category under 'categories' or drop the annotation",
    )


def _bad_lists(content: dict[str, Any], key: str) -> list[str]:
    category_ids = {entry["id"] for entry in content["categories"]}
    asked = {entry["id"]: entry[key] for entry in content["images"] if entry.get(key) is not None}
    if not asked:
        return []
    for image, ids in asked.items():
        if not isinstance(ids, list) or not all(type(category) in (int, str) for category in ids):
            return [f"image {image}: {short(ids)} is not a list of ids"]
    stray = [f"image {image}: {short(category)}" for image, ids in asked.items() for category in set(ids) - category_ids]
    both = {
        (box["image_id"], box["category_id"])
        for box in content["annotations"]
        if box["category_id"] in asked.get(box["image_id"], ())
    }
    return stray + [f"image {image}: {category} is annotated too" for image, category in sorted(both)]
