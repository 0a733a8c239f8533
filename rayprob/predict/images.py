"""Finds the images that `rayprob predict` is given: files, folders, globs, URIs and samples of built datasets."""

import glob
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from rayprob.data.images import is_clutter, warn_of_skipped
from rayprob.data.manifest.dataset import Dataset, Sample
from rayprob.data.manifest.facts import is_dataset
from rayprob.data.manifest.versions import split_version
from rayprob.errors import SampleError, StorageError
from rayprob.files import storage
from rayprob.images.header import MAX_FILE_BYTES
from rayprob.images.kinds import READ_SUFFIXES
from rayprob.images.reading import ImageReading
from rayprob.loader.reader import SampleReader
from rayprob.loader.shards import RangeReads
from rayprob.predict.globs import matching
from rayprob.predict.pixels import DecodedImage, decoded


class Image(Protocol):
    """One image to predict: its name, its sample_id if it has one, and its pixels."""

    @property
    def name(self) -> str: ...
    @property
    def sample_id(self) -> int | None: ...
    def decode(self, reading: ImageReading) -> DecodedImage: ...


@dataclass(frozen=True)
class ImageFile:
    """An image in a file of its own, at a path or URI."""

    name: str
    sample_id: None = None

    def read(self) -> bytes:
        """Return the bytes of the file. Raises StorageError, and SampleError for a file too large to be an image."""
        try:
            size_bytes = storage.size_bytes(self.name)
        except StorageError as error:
            if storage.is_folder(self.name):
                raise StorageError(f"{self.name} is a folder, not an image; give the files in it") from error
            raise
        if size_bytes > MAX_FILE_BYTES:
            raise SampleError(f"has more than {MAX_FILE_BYTES:,} bytes; shrink it")
        return storage.read_bytes(self.name)

    def decode(self, reading: ImageReading) -> DecodedImage:
        """Return the pixels. Raises StorageError, and SampleError if the file is not an image that is read."""
        return decoded(self.read(), reading)


@dataclass(frozen=True, eq=False)
class ImageBytes:
    """An image as the bytes of a JPEG, PNG or WebP file."""

    name: str
    content: bytes
    sample_id: None = None

    def decode(self, reading: ImageReading) -> DecodedImage:
        """Return the pixels. Raises SampleError for bytes of another kind, or cut short."""
        return decoded(self.content, reading)


@dataclass(frozen=True)
class DatasetImage:
    """An image inside a shard of a built dataset."""

    reader: SampleReader
    sample: Sample

    @property
    def name(self) -> str:
        """The dataset's root and the sample's key."""
        return storage.join(self.reader.root, self.sample.key)

    @property
    def sample_id(self) -> int:
        """The key of the sample in every table."""
        return self.sample.sample_id

    def read(self) -> bytes:
        """Return the bytes of the image file. Raises SampleError, DatasetError or StorageError."""
        return self.reader.read(self.sample)

    def decode(self, reading: ImageReading) -> DecodedImage:
        """Return the pixels. Raises SampleError, DatasetError or StorageError."""
        return decoded(self.read(), reading)


def find_images(arguments: Sequence[str], split: str = "val") -> list[Image]:
    """Return the images that the arguments name, in order and without duplicates; folders and globs are sorted.

    A folder stands for all JPEG, PNG and WebP files below it, the root of a built dataset for one of its splits. Hidden files,
    system files and names that are not UTF-8 are skipped, with one line in the log. Raises StorageError for a missing path, a
    folder without images and a glob without matches.
    """
    found: dict[str, Image] = {}
    for argument in arguments:
        for image in _named_by(argument, split):
            found.setdefault(image.name, image)
    return list(found.values())


def _named_by(argument: str, split: str) -> Iterable[Image]:
    if storage.is_local(argument) and glob.has_magic(argument) and not storage.exists(argument):
        return _matching(argument)
    is_folder = storage.is_folder(argument)
    if not is_folder and not split_version(argument)[1]:
        if not storage.exists(argument):
            raise StorageError(f"no file or folder at {argument}; check the path")
        return [ImageFile(argument)]
    if not is_folder or is_dataset(argument):
        manifest = Dataset.open(argument).split(split)
        reader = SampleReader(argument, RangeReads(argument))
        return (DatasetImage(reader, sample) for sample in manifest.all_samples())
    return _in_folder(argument)


def _in_folder(folder: str) -> Iterator[Image]:
    listing = storage.list_below(folder)
    clutter = [name for name in listing.size_of if is_clutter(name)]
    warn_of_skipped(folder, clutter, listing.unusable)
    skipped = {*clutter}
    names = [name for name in listing.size_of if name.lower().endswith(READ_SUFFIXES) and name not in skipped]
    if not names:
        raise StorageError(f"no images in folder {folder}: there is no {', '.join(READ_SUFFIXES)} file in it or below it")
    return (ImageFile(storage.join(folder, name)) for name in names)


def _matching(pattern: str) -> list[Image]:
    # ~ and file: URIs are not part of a glob.
    names = matching(str(storage.local_path(pattern)) if re.match("~|file:/", pattern) else pattern)
    files = [name for name in names if not storage.is_folder(name)]
    if not files:
        found = "only folders match" if names else "no file matches"
        raise StorageError(f"{found} {pattern}; check the pattern, and quote it only if the shell must not expand it")
    return [ImageFile(name) for name in files]
