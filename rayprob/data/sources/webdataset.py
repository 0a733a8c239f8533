"""Tars that others wrote for WebDataset: members of one key are a sample, as the package itself groups them."""

import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from rayprob.data.sources.cells import as_list
from rayprob.data.sources.faults import label_space, normalised, short
from rayprob.data.sources.files_of import files_of
from rayprob.data.sources.groups import group_of
from rayprob.data.sources.label_list import by_number, distinct, read_names
from rayprob.data.sources.rows import ALONE, ImageRow, Stated, batches_of
from rayprob.data.sources.spec import Source
from rayprob.errors import SourceError, one_line
from rayprob.files import storage, uris
from rayprob.images.kinds import IMAGE_SUFFIXES

IMAGES = tuple(suffix[1:] for suffix in IMAGE_SUFFIXES)
JSON_KEYS = ("labels", "label", "tags", "classes")
MOST_TEXT_BYTES = 2**20
NO_IMAGE = "a sample without an image"


class WebdatasetSource(Source):
    """Samples in tars. `images` is a tar, a folder of tars, or a pattern such as data/shard-{000..012}.tar."""

    later_keys: ClassVar[frozenset[str]] = Source.later_keys | {"group"}

    label: str | None = None
    """Where labels are: .cls, .txt, or a key of .json such as meta.tags. Null takes .cls, or the key labels or label."""
    separator: str | None = None
    """What stands between labels in a text."""
    names: str | list[str] | dict[str, str] | None = None
    """Names for labels that are numbers: a file, a list or a mapping."""
    group: str | None = None
    """A key of .json, such as meta.video: images with the same value share a split."""


@dataclass(frozen=True)
class _Sample:
    """One sample of a tar: where its image lies, and its labels; None where it has no member with labels."""

    tar: str
    key: str
    name: str
    offset_bytes: int
    size_bytes: int
    codes: list[str] | None
    group: int


def read(source: WebdatasetSource) -> Stated:
    """Return what the samples of tars state; one without a member with labels states nothing. Raises SourceError."""
    dropped: dict[str, int] = {}
    samples = [sample for tar in files_of(source.images, (".tar",)) for sample in _samples(source, tar, dropped)]
    if not samples:
        raise SourceError(
            f"{source.images} holds no sample with an image; members of one sample share a key, as in 0.jpg and 0.json"
        )
    codes = sorted({code for sample in samples for code in sample.codes or ()}, key=by_number)
    names = distinct(source.images, read_names(source.names)) if source.names is not None else {code: code for code in codes}
    if wrong := [code for code in codes if code not in names]:
        raise SourceError(f"{source.images} has the label {wrong[0]!r:.80}, which `names` does not name; add it there")
    column_of = {code: column for column, code in enumerate(names)}
    return Stated(
        label_space=label_space(source.images, list(names.values())),
        rest=source.rest or "absent",
        batches=batches_of(_rows(samples, column_of)),
        images=source.images,
        dropped=dropped,
        is_declared=source.names is not None,
    )


def _rows(samples: list[_Sample], column_of: dict[str, int]) -> Iterator[ImageRow]:
    # Other tars may use the same keys; then the tar is part of the key.
    times = Counter(sample.key for sample in samples)
    is_unique = len(times) == len(samples)
    for sample in samples:
        tar = uris.split(sample.tar)[1]
        codes = sample.codes
        yield ImageRow(
            key=sample.key if is_unique else f"{tar.removesuffix('.tar')}/{sample.key}",
            file_name=normalised(f"{tar}/{sample.name}"),
            labels=tuple(sorted({column_of[code] for code in codes or ()})),
            unknown_labels=tuple(range(len(column_of))) if codes is None else (),
            container=sample.tar,
            offset_bytes=sample.offset_bytes,
            size_bytes=sample.size_bytes,
            group=sample.group,
        )


def _samples(source: WebdatasetSource, tar: str, dropped: dict[str, int]) -> Iterator[_Sample]:
    from webdataset.tariterators import group_by_keys  # seconds, for it imports torch

    try:
        for sample in group_by_keys(_members(tar)):
            image = next((suffix for suffix in IMAGES if suffix in sample), None)
            if image is None:
                dropped[NO_IMAGE] = dropped.get(NO_IMAGE, 0) + 1
                continue
            member = sample[image]
            where = f"{tar}, sample {sample['__key__']}"
            codes, group = _codes(source, sample, where), _group(source, sample, where)
            yield _Sample(tar, sample["__key__"], member.name, member.offset_data, member.size, codes, group)
    except ValueError as error:  # two members of one name
        raise SourceError(f"{tar} is not a tar of samples: {one_line(error.args[0])}; write it again") from error


def _members(tar: str) -> Iterator[dict[str, Any]]:
    """Yield the members as `group_by_keys` takes them: of images where they lie, of others their bytes."""
    try:
        with storage.open_input_file(tar) as file, tarfile.open(fileobj=file, mode="r:") as opened:
            for member in opened:
                if not member.isreg() or member.name.startswith("__"):
                    continue
                is_image = member.name.lower().endswith(IMAGE_SUFFIXES) or member.size > MOST_TEXT_BYTES
                content = member if is_image else _content(opened, member)
                yield {"fname": member.name, "data": content, "__url__": tar}
    except (tarfile.TarError, OSError, EOFError, UnicodeError) as error:
        hint = "; unpack it, for images within are read by their place" if _is_packed(tar) else "; write it again"
        raise SourceError(f"{tar} cannot be read as a tar: {one_line(error)}{hint}") from error


def _content(opened: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = opened.extractfile(member)
    return file.read() if file else b""


def _is_packed(tar: str) -> bool:
    with storage.open_input(tar) as file:
        return file.read(2) in (b"\x1f\x8b", b"BZ", b"\xfd7")


def _codes(source: WebdatasetSource, sample: dict[str, Any], where: str) -> list[str] | None:
    """Return the labels of a sample, as the recipe says where they are; None where it has no such member or key."""
    if source.label is not None and source.label.startswith("."):
        found = sample.get(source.label[1:])
        return None if found is None else _of_text(source, found, where)
    keys = [source.label] if source.label is not None else JSON_KEYS
    if source.label is None and "cls" in sample:
        return _of_text(source, sample["cls"], where)
    if "json" not in sample:
        return None
    document = _document(sample["json"], where)
    cell = next((found for key in keys if (found := _at(document, key)) is not None), None)
    return None if cell is None else as_list(cell, source.separator, where)


def _group(source: WebdatasetSource, sample: dict[str, Any], where: str) -> int:
    if source.group is None or "json" not in sample:
        return ALONE
    return group_of(_at(_document(sample["json"], where), source.group))


def _of_text(source: WebdatasetSource, content: Any, where: str) -> list[str]:
    try:
        return as_list(content.decode(), source.separator, where)
    except (UnicodeDecodeError, AttributeError) as error:
        raise SourceError(f"{where}: its labels are not text in UTF-8; say with `label` where they are") from error


def _document(content: Any, where: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, TypeError, RecursionError) as error:
        raise SourceError(
            f"{where}: its .json is not JSON ({one_line(error)}), but {short(content)}; write it again"
        ) from error


def _at(document: Any, key: str) -> Any:
    for part in key.split("."):
        document = document.get(part) if isinstance(document, dict) else None
    return document
