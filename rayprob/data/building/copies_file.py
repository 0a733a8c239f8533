"""duplicates.jsonl: the images of a dataset whose bytes another one has, one per line."""

from typing import Any

from rayprob.errors import DatasetError
from rayprob.files import storage
from rayprob.files.documents import Shape, parse_json, require_shape

COPIES_FILE = "duplicates.jsonl"
REMEDY = "restore it from a copy, or remove it: the dataset then grows without knowing of earlier copies"


class _Listed(Shape):
    """The fields of a listed copy that a build needs."""

    sample_id: int
    split: str
    kept_id: int
    kept_split: str
    other_labels: bool
    dropped: bool


def read_copies(root: str) -> list[dict[str, Any]]:
    """Return the copies that a dataset lists, each as a Copy, and whether it was dropped. Raises DatasetError."""
    listed = storage.join(root, COPIES_FILE)
    lines = storage.read_bytes(listed).splitlines() if storage.exists(listed) else []
    values = [parse_json(line, listed, DatasetError, REMEDY) for line in lines]
    return [require_shape(value, _Listed, listed, error=DatasetError, remedy=REMEDY) for value in values]
