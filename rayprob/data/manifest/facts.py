"""dataset.json and labels.json: a dataset's facts, validated when they are read."""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from rayprob.data.manifest.shard_list import SHARDS_FILE, Entry
from rayprob.data.manifest.versions import dataset_file, split_version, version_file
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
FORMAT_GROWN = 6  # any of these, after earlier versions of the dataset: with the names of the manifest's files, and `parent`
FORMATS = (FORMAT_VERSION, FORMAT_IN_PARTS, FORMAT_WITH_ABSENT, FORMAT_WITH_READING, FORMAT_IN_PLACE, FORMAT_GROWN)
FACTS_FILE = "dataset.json"  # written last, so a dataset with it is finished
OLD_REMEDY = "restore it from a copy, or use the newest version"


class _Counts(Shape):
    """The number of a split's samples in which each label is present and known, and in which it is known."""

    present: list[Count]
    known: list[Count]


class _ManifestParts(Shape):
    """The number of shards in each part of a manifest, its file and the sha256 of that; without names, files are numbered."""

    shards: list[Count]
    sha256: list[str]
    files: list[str] = Field(default=[])


class _Parent(Shape):
    """The version that a dataset grew from, and the file that keeps its dataset.json."""

    fingerprint: str
    file: str


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
    shards_file: str = SHARDS_FILE
    manifest: _ManifestParts | None = None
    manifest_sha256: str | None = None
    label_counts: dict[str, _Counts] = Field(default={})
    rest: dict[str, Literal["absent", "unknown"]] = Field(default={})
    in_place: list[str] = Field(default=[])
    parent: _Parent | None = None
    version: Count = 1
    dropped: dict[str, dict[str, Count]] = Field(default={})
    duplicates: _Duplicates | None = None
    rejected: Count = 0
    sizes_corrected: Count = 0
    exif_rotated: Count | None = None
    images: dict[str, Count] = Field(default={})


def is_dataset(root: str) -> bool:
    """Return whether a folder contains a finished dataset."""
    return storage.exists(dataset_file(root, FACTS_FILE))


def read_facts(root: str) -> dict[str, Any]:
    """Return dataset.json, as it is or as it was in the version that `root` asks for (versions.py).

    Raises DatasetError if the dataset was not built, not finished, or built by another version of rayprob, and for a version
    that it never had.
    """
    # The newest first: a version that is being replaced has no file of its own yet.
    facts = _facts_in(root, FACTS_FILE, "run `rayprob shard RECIPE` to build it, or to finish a stopped build")
    folder, version = split_version(root)
    if version in ("", facts["fingerprint"]):
        return facts
    if not storage.exists(dataset_file(root, version_file(version))):
        known = [facts["fingerprint"], *(one["fingerprint"] for one in earlier_versions(folder, facts))]
        raise DatasetError(f"{folder} has no version {version}; it has {', '.join(known)}, the newest first")
    return _facts_in(root, version_file(version), OLD_REMEDY)


def earlier_versions(root: str, facts: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the facts of the versions that a dataset with these facts grew from, the newest first. Raises DatasetError."""
    seen = {facts["fingerprint"]}
    while (parent := facts.get("parent")) and parent["fingerprint"] not in seen:
        seen.add(parent["fingerprint"])
        facts = _facts_in(root, parent["file"], OLD_REMEDY)
        yield facts


def _facts_in(root: str, name: str, remedy: str) -> dict[str, Any]:
    facts = _read_json(root, name, remedy)
    if facts.get("format_version") not in FORMATS:
        raise DatasetError(
            f"{root} has dataset format {facts.get('format_version')!r}, but this version reads "
            f"{', '.join(map(str, FORMATS))}; rebuild it"
        )
    return require_shape(facts, DatasetFacts, f"{root}/{name}", error=DatasetError, remedy=remedy)


def read_label_space(root: str) -> LabelSpace:
    """Return labels.json. Raises DatasetError if it cannot be read, and LabelError if it is not a label space."""
    return LabelSpace.from_dict(_read_json(root, "labels.json", "build the dataset again"))


def _read_json(root: str, name: str, remedy: str) -> dict[str, Any]:
    try:
        return read_json(dataset_file(root, name), error=DatasetError, remedy=remedy)
    except StorageError as error:
        if not storage.is_missing(error):
            raise
        raise DatasetError(f"{root} is not a finished dataset: {error}; {remedy}") from error
