"""Guesses which columns of a table have images and labels. The guess is in the recipe, where the user can check it."""

import posixpath
import re
from typing import Any

from rayprob.data.sources.cells import as_text
from rayprob.data.sources.huggingface import METADATA
from rayprob.data.sources.location import SPLITS, Location, by_split, split_in
from rayprob.data.sources.table_arrays import Column, cells_of
from rayprob.data.sources.table_file import TableFile, open_table
from rayprob.errors import SourceError
from rayprob.images.kinds import IMAGE_SUFFIXES

SUFFIXES_OF_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".txt")
IMAGE = re.compile(r"(image|img|file|photo|picture|path|filename|name|id)", re.IGNORECASE)
LABEL = re.compile(r"(label|class|tag|finding|categor|concept|attribute)", re.IGNORECASE)
VALUE = re.compile(r"^(confidence|value|present|presence|score|verified)$", re.IGNORECASE)
SPLIT = re.compile(r"^(split|set|subset|partition)$", re.IGNORECASE)
STATES = {"", "0", "1", "-1", "true", "false", "nan"}
SEPARATORS = ("|", ";", ",", " ")
NO_LABEL = ("No Finding", "none", "None", "no label")
PROBED_ROWS = 500
Cells = list[list[Any]]


def table(place: Location) -> dict[str, dict[str, Any]] | None:
    """Tables: a column per label, a column of lists, or a row per image and label."""
    names = [name for name in place.named(*SUFFIXES_OF_TABLES) if posixpath.basename(name) not in METADATA]
    guesses = {name: found for name in names if (found := guess(place, name))}
    if not guesses:
        return None
    splits = by_split(guesses, "tables")
    if len(splits) > 1:
        return {split: guesses[name][0] | _images(place, split, name, guesses[name][1]) for split, name in splits.items()}
    name = splits["train"]
    keys, images, values = guesses[name]
    keys |= _images(place, "", name, images)
    of_split = {split_in(value): value for value in values[1]} if values else {}
    if values is None or "train" not in of_split:
        return {"train": keys}
    return {split: {**keys, "where": {values[0]: of_split[split]}} for split in SPLITS if split in of_split}


Guess = tuple[dict[str, Any], list[str], tuple[str, set[str]] | None]


def guess(place: Location, name: str) -> Guess | None:
    """Return the recipe's keys for a table, names of images in it, and its column of splits; None if it has no images."""
    try:
        file = open_table(place.uri(name), delimiter=None, has_header=not name.lower().endswith(".txt"))
        cells = _first_rows(file)
    except SourceError:
        return None
    image = _image_column(place, file, cells)
    if image is None:
        return None
    names = [as_text(cell) for cell in cells[image]]
    form = _form(file, cells, image, are_repeated=len({*names}) < len(names))
    if form is None:
        return None
    keys = {"format": "table", "annotations": place.uri(name), "image": _reference(file, image), **form}
    if not any(file.names):
        keys["header"] = False
    split = next((at for at, column in enumerate(file.names) if SPLIT.match(column)), None)
    return keys, names, (file.names[split], {*map(as_text, cells[split])}) if split is not None else None


def _first_rows(file: TableFile) -> Cells:
    nothing: list[Column] = [[] for _ in file.names]
    columns = next(iter(file.read(list(range(len(file.names))))), nothing)
    return [cells_of(column[:PROBED_ROWS]) for column in columns]


def _image_column(place: Location, file: TableFile, cells: Cells) -> int | None:
    """Return the first column whose cells have an image suffix, else one whose cells are images without suffix."""
    for at, column in enumerate(cells):
        texts = [cell for cell in column if isinstance(cell, str)]
        if texts and sum(text.lower().endswith(IMAGE_SUFFIXES) for text in texts) > len(column) / 2:
            return at
    for at, name in enumerate(file.names):
        if IMAGE.search(name) and place.folder_of([as_text(cell) for cell in cells[at] if as_text(cell)]) is not None:
            return at
    return None


def _form(file: TableFile, cells: Cells, image: int, *, are_repeated: bool) -> dict[str, Any] | None:
    run = _longest_run([at != image and _is_state(column) for at, column in enumerate(cells)])
    named = [at for at, name in enumerate(file.names) if at != image and LABEL.search(name)] or (
        [1] if len(cells) == 2 and image == 0 else []
    )
    if len(run) > 1 and not (are_repeated and named):
        return _one_hot(file, cells, run)
    if not named:
        return None
    value = next((at for at, name in enumerate(file.names) if VALUE.match(name)), None)
    if value is not None or are_repeated:
        return {"label": _reference(file, named[0]), **({"value": _reference(file, value)} if value is not None else {})}
    return _lists(file, cells[named[0]], named[0])


def _one_hot(file: TableFile, cells: Cells, run: range) -> dict[str, Any]:
    ends = [file.names[at] or str(at + 1) for at in (run[0], run[-1])]
    has_minus = any(as_text(cell) == "-1" for at in run for cell in cells[at])
    return {"one_hot": "..".join(ends), **({"values": {"-1": "unknown"}} if has_minus else {})}


def _lists(file: TableFile, column: list[Any], at: int) -> dict[str, Any]:
    texts = [cell for cell in column if isinstance(cell, str)]
    separator = next((sign for sign in SEPARATORS if _splits(texts, sign)), None)
    words = {part.strip() for text in texts for part in (text.split(separator) if separator else [text])}
    none = [word for word in NO_LABEL if word in words]
    found: dict[str, Any] = {"lists": _reference(file, at)}
    return found | ({"separator": separator} if separator else {}) | ({"no_label": none} if none else {})


def _splits(texts: list[str], sign: str) -> bool:
    """Return whether a character separates labels: it occurs, and there are fewer distinct parts than distinct cells."""
    if not any(sign in text for text in texts):
        return False
    return sign != " " or len({part for text in texts for part in text.split()}) < len({*texts})


def _is_state(column: list[Any]) -> bool:
    states = {as_text(cell).lower() for cell in column if not isinstance(cell, list | dict)}
    return bool(states) and states <= STATES and all(not isinstance(cell, list | dict) for cell in column)


def _longest_run(flags: list[bool]) -> range:
    best = range(0)
    start = 0
    for at, flag in enumerate([*flags, False]):
        if not flag:
            best = max(best, range(start, at), key=len)
            start = at + 1
    return best


def _reference(file: TableFile, at: int) -> str | int:
    return file.names[at] if file.names[at] and file.names.count(file.names[at]) == 1 else at + 1


def _images(place: Location, split: str, name: str, images: list[str]) -> dict[str, Any]:
    folder = place.folder_of(images, split, name)
    parent, root = posixpath.split(place.root.rstrip("/"))
    below = [image.removeprefix(f"{root}/") for image in images if image.startswith(f"{root}/")]
    if folder is None and root and place.folder_of(below) == "":  # names that begin with the folder's own, as in CheXpert
        return {"images": parent or ".", **_names(place, name)}
    if folder is None:
        raise SourceError(
            f"none of the images of {place.uri(name)} is below {place.root}, such as {images[0]}; give a folder that contains "
            "both images and labels"
        )
    return {"images": place.uri(folder), **_names(place, name)}


def _names(place: Location, name: str) -> dict[str, Any]:
    beside = [one for one in place.files if "class-descriptions" in posixpath.basename(one) and one != name]
    return {"names": place.uri(beside[0])} if beside else {}
