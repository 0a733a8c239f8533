"""rejected.jsonl and duplicates.jsonl: images of a source that are no samples, or have the bytes of one; one image per line."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from rayprob.data.building.disk_full import disk_full_explained
from rayprob.data.sources.join_files import Reject
from rayprob.errors import DatasetError
from rayprob.files import storage
from rayprob.files.documents import Shape, parse_json, require_shape

REJECTS_FILE = "rejected.jsonl"
COPIES_FILE = "duplicates.jsonl"
# The lists of a build that adds nothing to a dataset, whose own lists stay as they are.
ATTEMPTS = {name: f"not-added-{name}" for name in (REJECTS_FILE, COPIES_FILE)}
REMEDY_OF_REJECTS = "restore it from a copy"
REMEDY_OF_COPIES = "restore it from a copy, or remove it: the dataset then grows without knowing of earlier copies"


class _Rejected(Shape):
    """The fields of a Reject."""

    sample_id: int
    split: str
    file_name: str
    reason: str


class _Listed(Shape):
    """The fields of a listed copy that a build needs."""

    sample_id: int
    split: str
    kept_id: int
    kept_split: str
    other_labels: bool
    dropped: bool


def read_rejects(root: str) -> list[Reject]:
    """Return the images that a dataset lists as rejected. Raises DatasetError."""
    fields = _Rejected.model_fields
    return [Reject(**{name: one[name] for name in fields}) for one in _read(root, REJECTS_FILE, _Rejected, REMEDY_OF_REJECTS)]


def read_copies(root: str) -> list[dict[str, Any]]:
    """Return the copies that a dataset lists, each as a Copy, and whether it was dropped. Raises DatasetError."""
    return _read(root, COPIES_FILE, _Listed, REMEDY_OF_COPIES)


def write_list(root: str, name: str, images: Iterable[Mapping[str, Any]]) -> str:
    """Write a list of images and return its location. Raises StorageError."""
    listed = storage.join(root, name)
    with disk_full_explained():
        storage.write_text(listed, "".join(f"{json.dumps(dict(one))}\n" for one in images))
    return listed


def remove_list(root: str, name: str) -> None:
    """Remove a list, if it is there."""
    if storage.exists(listed := storage.join(root, name)):
        storage.remove(listed)


def _read(root: str, name: str, shape: type[Shape], remedy: str) -> list[dict[str, Any]]:
    listed = storage.join(root, name)
    lines = storage.read_bytes(listed).splitlines() if storage.exists(listed) else []
    values = [parse_json(line, listed, DatasetError, remedy) for line in lines]
    return [require_shape(value, shape, listed, error=DatasetError, remedy=remedy) for value in values]
