"""Recognises each format in a folder: returns the splits of a recipe that reads it, or nothing."""

import posixpath
from collections.abc import Callable
from typing import Any

import pyarrow.parquet as pq

from rayprob.data.sources.coco_check import REQUIRED
from rayprob.data.sources.coco_variants import names_in_url
from rayprob.data.sources.huggingface import METADATA
from rayprob.data.sources.json_file import read_json
from rayprob.data.sources.location import Location, by_split, split_in
from rayprob.data.sources.recognise_table import guess, table
from rayprob.data.sources.text_file import read_lines
from rayprob.data.sources.xml_file import read_xml
from rayprob.data.sources.yolo import NAME_LISTS, labels_folder
from rayprob.files import storage
from rayprob.files.tables import DAMAGE

Splits = dict[str, dict[str, Any]]
MOST_JSON = 12  # more JSON files than splits mean another format, such as one file per image
# COCO's other files next to instances_*.json annotate captions, key points and regions, not labels of images.
NOT_INSTANCES = ("captions_", "person_keypoints_", "stuff_", "panoptic_", "image_info_")


def coco(place: Location) -> Splits | None:
    """COCO JSON: a file per split, and images anywhere below the folder."""
    files = place.named(".json", ".json.gz")
    if len(files) > 1:
        files = [name for name in files if not posixpath.basename(name).startswith(NOT_INSTANCES)]
    files = [name for name in files if posixpath.basename(name).startswith("instances_")] or files
    contents = {name: found for name in files if len(files) <= MOST_JSON and (found := _coco_images(place.uri(name)))}
    if not contents:
        return None
    splits = by_split(contents, "COCO JSON")
    return {split: _coco_split(place, split, name, contents[name]) for split, name in splits.items()}


def _coco_images(uri: str) -> list[tuple[str, ...]]:
    """Return the names of some images in a file of COCO's layout; an empty list for another layout."""
    content = read_json(uri, "COCO JSON", dict)
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in REQUIRED):
        return []
    images = [image for image in content["images"][:200] if isinstance(image, dict)]
    return [(str(image.get("file_name", "")), *names_in_url(image)) for image in images]


def _coco_split(place: Location, split: str, name: str, images: list[tuple[str, ...]]) -> dict[str, Any]:
    folders = (place.folder_of([names[at] for names in images if len(names) > at], split, name) for at in range(3))
    folder = next((found for found in folders if found is not None), posixpath.dirname(name))
    return {"images": place.uri(folder), "annotations": place.uri(name)}


def voc(place: Location) -> Splits | None:
    """Pascal VOC: XML files in Annotations with lists in ImageSets/Main, or next to the images."""
    files = place.named(".xml")
    if not files or read_xml(place.uri(files[0])).tag != "annotation":
        return None
    folder = posixpath.dirname(files[0])
    if posixpath.basename(folder) != "Annotations":
        folders = by_split(sorted({posixpath.dirname(name) for name in files}), "Pascal VOC")
        return {split: {"format": "voc", "images": place.uri(found)} for split, found in folders.items()}
    root = posixpath.dirname(folder)
    sets = storage.list_names(storage.join(place.uri(root), "ImageSets", "Main"))
    named = [name.removesuffix(".txt") for name in sets if name.removesuffix(".txt") in ("train", "val", "test", "trainval")]
    chosen = [name for name in ("train", "val", "test") if name in named] if "train" in named else named[:1]
    if not chosen:
        return {"train": {"format": "voc", "images": place.uri(root)}}
    return {
        name if name != "trainval" else "train": {"format": "voc", "images": place.uri(root), "set": name} for name in chosen
    }


def yolo(place: Location) -> Splits | None:
    """YOLO: folders of text files next to folders of images, with data.yaml or classes.txt."""
    lists = [name for name in place.files if posixpath.basename(name) in NAME_LISTS]
    texts = {name.removesuffix(".txt") for name in place.files if name.endswith(".txt")} - {
        name.removesuffix(".txt") for name in lists
    }
    folders = sorted({posixpath.dirname(name) for name in place.images if _text_of(name) in texts and _is_yolo(place, name)})
    if not lists or not folders:
        return None
    return {
        split: {"format": "yolo", "images": place.uri(folder), "names": place.uri(lists[0])}
        for split, folder in by_split(folders, "YOLO").items()
    }


def _text_of(image: str) -> str:
    folder, name = posixpath.split(image)
    return posixpath.join(labels_folder(folder) if "images" in folder.split("/") else folder, posixpath.splitext(name)[0])


def _is_yolo(place: Location, image: str) -> bool:
    lines = read_lines(place.uri(f"{_text_of(image)}.txt"))
    return all(len(cells := line.split()) >= 5 and cells[0].isdecimal() for line in lines[:3])


def webdataset(place: Location) -> Splits | None:
    """Tars of samples."""
    tars = place.named(".tar")
    if not tars:
        return None
    groups: dict[str, list[str]] = {}
    for tar in tars:
        groups.setdefault(split_in(tar) or "train", []).append(tar)
    if len(tars) == 1 or len(groups) == 1:
        images = place.uri(tars[0]) if len(tars) == 1 else place.root
        return {"train": {"format": "webdataset", "images": images}}
    return {split: {"format": "webdataset", "images": place.uri(_pattern(some))} for split, some in groups.items()}


def _pattern(names: list[str]) -> str:
    """Return a pattern of the files with the common prefix of these."""
    return f"{posixpath.commonprefix(names)}*.tar" if len(names) > 1 else names[0]


def huggingface(place: Location) -> Splits | None:
    """Parquet files with images in them, or images with metadata.csv."""
    folders = {posixpath.dirname(name): name for name in place.asked if posixpath.basename(name) in METADATA}
    if folders:
        return {
            split: {"format": "huggingface", "images": place.uri(folder), **_metadata(place, folders[folder])}
            for split, folder in by_split(folders, "metadata files").items()
        }
    files = [name for name in place.named(".parquet") if _has_images(place.uri(name))]
    groups: dict[str, list[str]] = {}
    for name in files:
        groups.setdefault(split_in(name) or "train", []).append(name)
    return {s: {"format": "huggingface", "images": place.uri(_parquet(some))} for s, some in groups.items()} or None


def _metadata(place: Location, name: str) -> dict[str, Any]:
    """Return the keys for a metadata file: a guess at its column of labels and their separator."""
    found = guess(place, name)
    keys = found[0] if found else {}
    return {key: keys[form] for key, form in (("label", "lists"), ("separator", "separator")) if form in keys}


def _parquet(names: list[str]) -> str:
    return f"{posixpath.commonprefix(names)}*.parquet" if len(names) > 1 else names[0]


def _has_images(uri: str) -> bool:
    try:
        with storage.open_input_file(uri) as file:
            schema = pq.ParquetFile(file).schema_arrow
    except DAMAGE:
        return False
    return "image" in schema.names and str(schema.field("image").type).startswith(("struct<bytes", "struct<path", "binary"))


def folders(place: Location) -> Splits | None:
    """A folder per label, with or without a folder per split above."""
    tops = {name.partition("/")[0] for name in place.images if "/" in name}
    if len(place.asked) == 1 or len(tops) < 2:
        return None
    deep = {name.split("/")[0] for name in place.images if name.count("/") >= 2}
    if deep == tops and all(split_in(top) for top in tops):
        return {
            split: {"format": "folders", "images": place.uri(top)} for split, top in by_split(sorted(tops), "folders").items()
        }
    return {"train": {"format": "folders", "images": place.root}}


LAYOUTS: dict[str, Callable[[Location], Splits | None]] = {
    "coco": coco,
    "voc": voc,
    "yolo": yolo,
    "huggingface": huggingface,
    "webdataset": webdataset,
    "table": table,
    "folders": folders,
}
