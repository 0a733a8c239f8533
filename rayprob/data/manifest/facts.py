"""dataset.json and labels.json: a dataset's facts, validated when they are read."""

from typing import Any, Literal

from pydantic import Field

from rayprob.data.manifest.shard_list import Entry
from rayprob.errors import DatasetError, StorageError
from rayprob.files import storage
from rayprob.files.documents import Count, Shape, read_json, require_shape
from rayprob.images.reading import ReadingShape
from rayprob.labels import LabelSpace

FORMAT_VERSION = 1
FORMAT_IN_PARTS = 2  # manifest/000000.parquet, ... and shards.parquet
FORMAT_WITH_ABSENT = 3  # either, with a column of absent labels, and `rest` per split
FORMAT_WITH_READING = 4  # any of these, with images that rayprob 0.1 cannot read as here: PNG, WebP, turned by EXIF, ...
FORMAT_IN_PLACE = 5  # any of these, with splits whose shards are tars from elsewhere
FORMATS = (FORMAT_VERSION, FORMAT_IN_PARTS, FORMAT_WITH_ABSENT, FORMAT_WITH_READING, FORMAT_IN_PLACE)
FACTS_FILE = "dataset.json"  # written last, so a dataset with it is finished


class _Counts(Shape):
    """The number of a split's samples in which each label is present and known, and in which it is known."""

    present: list[Count]
    known: list[Count]


class _ManifestParts(Shape):
    """The number of shards in each part of a manifest, and the sha256 of its file."""

    shards: list[Count]
    sha256: list[str]


class _CopiesBetween(Shape):
    """The number of images of a split with the same bytes as an image `of` a split, which is kept."""

    split: str
    of: str
    images: Count


class _Duplicates(Shape):
    """The number of images with the same bytes as another, and how many of them were dropped or have other labels."""

    images: Count
    dropped: Count
    other_labels: Count
    splits: list[_CopiesBetween]


class DatasetFacts(ReadingShape):
    """The keys of dataset.json. Those that the first versions did not write have a default and may be missing."""

    fingerprint: str
    name: str = ""
    label_space_fingerprint: str = ""
    recipe: dict[str, Any] = Field(default={})
    splits: dict[str, Count] = Field(default={})
    shards: list[Entry] = Field(default=[])
    shards_sha256: str = ""
    manifest: _ManifestParts | None = None
    manifest_sha256: str | None = None
    label_counts: dict[str, _Counts] = Field(default={})
    rest: dict[str, Literal["absent", "unknown"]] = Field(default={})
    in_place: list[str] = Field(default=[])
    dropped: dict[str, dict[str, Count]] = Field(default={})
    duplicates: _Duplicates | None = None
    rejected: Count = 0
    sizes_corrected: Count = 0
    exif_rotated: Count | None = None
    images: dict[str, Count] = Field(default={})


def is_dataset(root: str) -> bool:
    """Return whether a folder contains a finished dataset."""
    return storage.exists(storage.join(root, FACTS_FILE))


def read_facts(root: str) -> dict[str, Any]:
    """Return dataset.json. Raises DatasetError if the dataset was not built, not finished, or built by another version."""
    remedy = "run `rayprob shard RECIPE` to build it, or to finish a stopped build"
    facts = _read_json(root, FACTS_FILE, remedy)
    if facts.get("format_version") not in FORMATS:
        raise DatasetError(
            f"{root} has dataset format {facts.get('format_version')!r}, but this version reads "
            f"{', '.join(map(str, FORMATS))}; rebuild it"
        )
    return require_shape(facts, DatasetFacts, f"{root}/dataset.json", error=DatasetError, remedy=remedy)


def read_label_space(root: str) -> LabelSpace:
    """Return labels.json. Raises DatasetError if it cannot be read, and LabelError if it is not a label space."""
    return LabelSpace.from_dict(_read_json(root, "labels.json", "build the dataset again"))


def _read_json(root: str, name: str, remedy: str) -> dict[str, Any]:
    try:
        return read_json(storage.join(root, name), error=DatasetError, remedy=remedy)
    except StorageError as error:
        if not storage.is_missing(error):
            raise
        raise DatasetError(f"{root} is not a finished dataset: {error}; {remedy}") from error
