"""Converts variants of COCO's layout to COCO instances: LVIS, panoptic, Roboflow, ids that are text."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

Entries = list[dict[str, Any]]
LISTS = ("unknown_category_ids", "neg_category_ids", "not_exhaustive_category_ids")
IDS = {"categories": ("id",), "images": ("id",), "annotations": ("image_id", "category_id")}


def as_instances(content: Any) -> Any:
    """Return parsed content in which each annotation has one category and each image a file name, if they are given anywhere.

    Content of another structure is returned unchanged; the check that follows reports it.
    """
    if not isinstance(content, dict):
        return content
    images, annotations = content.get("images"), content.get("annotations")
    if isinstance(annotations, list) and any(isinstance(box, dict) and "segments_info" in box for box in annotations):
        content = {**content, "annotations": [part for box in annotations for part in _segments(box)]}
    if isinstance(images, list):
        for image in images:
            if isinstance(image, dict) and "file_name" not in image and (names := names_in_url(image)):
                image["file_name"] = names[0]
    return content


def with_one_kind_of_id(content: dict[str, Any]) -> dict[str, Any]:
    """Return content of COCO's structure whose ids are all numbers, or all text if one is: 7 and "7" are the same id."""
    if not any(isinstance(entry[key], str) for part, keys in IDS.items() for entry in content[part] for key in keys):
        return content
    for part, keys in IDS.items():
        for entry in content[part]:
            entry |= {key: str(entry[key]) for key in keys}
    for image in content["images"]:
        image |= {key: [*map(_as_text, image[key])] for key in LISTS if isinstance(image.get(key), list)}
    return content


def without_unused_root(content: dict[str, Any]) -> tuple[Entries, str | None]:
    """Return the categories without Roboflow's root, the parent of all others that is never annotated, and the root's name."""
    categories: Entries = content["categories"]
    for root in categories:
        others = [category for category in categories if category is not root]
        above_all = bool(others) and all(category.get("supercategory") == root["name"] for category in others)
        if above_all and not any(box["category_id"] == root["id"] for box in content["annotations"]):
            return others, str(root["name"])
    return categories, None


def numbered(categories: Entries) -> dict[Any, int]:
    """Return the number of each category id: the id itself, or its place in the list if ids are not numbers."""
    ids = [category["id"] for category in categories]
    if all(isinstance(one, int) for one in ids):
        return {one: one for one in ids}
    numbers = [int(one) for one in ids if one.isascii() and one.isdecimal() and len(one) < 19]
    if len(set(numbers)) == len(ids):
        return dict(zip(ids, numbers, strict=True))
    return {one: place for place, one in enumerate(ids)}


def names_in_url(image: dict[str, Any]) -> tuple[str, ...]:
    """Return the possible file names of an image that has only `coco_url`: val2017/0.jpg, 0.jpg."""
    url = image.get("coco_url")
    if not isinstance(url, str) or "://" not in url:
        return ()
    try:
        parts = [part for part in unquote(urlsplit(url).path).split("/") if part]
    except ValueError:  # brackets that are not an IPv6 address
        return ()
    return tuple("/".join(parts[-count:]) for count in (2, 1) if len(parts) >= count)


def _segments(box: Any) -> Iterator[Any]:
    segments = box.get("segments_info") if isinstance(box, dict) else None
    if not isinstance(segments, list):
        yield box
        return
    for segment in segments:
        yield {**segment, "image_id": box.get("image_id"), "id": box.get("id")} if isinstance(segment, dict) else segment


def _as_text(value: Any) -> Any:
    return str(value) if type(value) is int else value
