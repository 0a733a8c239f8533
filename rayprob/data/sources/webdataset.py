"""WebDataset tars from elsewhere, whose images are copied or read in place."""

import json
import warnings
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from typing import Any, ClassVar

import numpy as np

from rayprob.arrays import Ints
from rayprob.data.sources.cells import as_list
from rayprob.data.sources.faults import label_space, normalised, short
from rayprob.data.sources.files_of import files_of
from rayprob.data.sources.groups import group_of
from rayprob.data.sources.label_list import by_number, distinct, read_names
from rayprob.data.sources.rows import ALONE, ImageRow, Stated, batches_of
from rayprob.data.sources.sample_ids import repeated
from rayprob.data.sources.spec import Source
from rayprob.data.sources.tar_members import PACKED, Codes, TarSamples, names_of, read_tars
from rayprob.errors import SourceError, one_line
from rayprob.files import uris
from rayprob.seeds import derive

JSON_KEYS = ("labels", "label", "tags", "classes")
NO_IMAGE = "a sample without an image"


with warnings.catch_warnings(action="ignore", category=UserWarning):  # it shadows BaseModel.copy, which is deprecated

    class WebdatasetSource(Source):
        """Samples in tars. `images` is a tar, a folder of tars, or a pattern such as data/shard-{000..012}.tar."""

        later_keys: ClassVar[frozenset[str]] = Source.later_keys | {"copy", "group"}

        label: str | None = None
        """The labels: .cls, .txt, or a key of .json such as meta.tags. Null takes .cls, or the key labels or label."""
        separator: str | None = None
        """The separator of labels in a text."""
        names: str | list[str] | dict[str, str] | None = None
        """Names for labels that are numbers: a file, a list or a mapping."""
        group: str | None = None
        """A key of .json, such as meta.video: images with the same value share a split."""
        copy: bool = True  # type: ignore[assignment]
        """Whether images are copied into shards. false leaves them in these tars, and the dataset reads them there."""

        @property
        def in_place(self) -> bool:
            """Whether images stay in the tars."""
            return not self.copy


def read(source: WebdatasetSource) -> Stated:
    """Return the labels of the samples in tars; a sample without a member with labels states none. Raises SourceError."""
    tars = files_of(source.images, (".tar",), refused=PACKED)
    found = read_tars(tars, partial(_codes_and_group, source))
    if not any(map(len, found)):
        raise SourceError(
            f"{source.images} contains no sample with an image; members of one sample share a key, as in 0.jpg and 0.json"
        )
    codes = sorted({code for tar in found for code in tar.codes}, key=by_number)
    names = distinct(source.images, read_names(source.names)) if source.names is not None else {code: code for code in codes}
    if wrong := [code for code in codes if code not in names]:
        raise SourceError(f"{source.images} has the label {wrong[0]!r:.80}, which is not in `names`; add it there")
    column_of = {code: column for column, code in enumerate(names)}
    shared = _shared_key(found)
    return Stated(
        label_space=label_space(source.images, list(names.values())),
        rest=source.rest or "absent",
        batches=batches_of(_rows(found, column_of, is_unique=not shared)),
        images=source.images,
        dropped={NO_IMAGE: without_image} if (without_image := sum(tar.without_image for tar in found)) else {},
        is_declared=source.names is not None,
        keys_note=shared,
    )


def _rows(found: list[TarSamples], column_of: dict[str, int], *, is_unique: bool) -> Iterator[ImageRow]:
    # If tars repeat keys, the tar is part of the key, with its folder if tars also share names.
    names = {tar.tar: uris.split(tar.tar)[1] for tar in found}
    if not is_unique and len(repeated(_hashed(f"{names[tar.tar]}/{key}" for tar in found for key in tar.keys))):
        names = names_of(list(names))
    for sample in chain.from_iterable(found):
        tar, codes = names[sample.tar], sample.codes
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


def _shared_key(found: list[TarSamples]) -> str:
    """Return which two tars have a key in common, in words; "" if all keys are different."""
    hashes_N = _hashed(key for tar in found for key in tar.keys)
    if not len(twice := repeated(hashes_N)):
        return ""
    first, second = np.flatnonzero(hashes_N == twice[0])[:2].tolist()
    ends = np.cumsum([len(tar) for tar in found])
    tar, other = (found[int(np.searchsorted(ends, row, side="right"))] for row in (first, second))
    key = next(key for key in tar.keys if derive(0, "key", key) == twice[0])
    return f"{tar.tar} and {other.tar} both have a sample {key!a}, so the tar is part of each key"


def _hashed(keys: Iterable[str]) -> Ints:
    """Return a 63-bit hash of each key, which takes 8 bytes; a set takes 100."""
    return np.fromiter((derive(0, "key", key) for key in keys), np.int64)


def _codes_and_group(source: WebdatasetSource, sample: dict[str, Any], where: str) -> tuple[Codes, int]:
    return _codes(source, sample, where), _group(source, sample, where)


def _codes(source: WebdatasetSource, sample: dict[str, Any], where: str) -> Codes:
    """Return the labels of a sample from where the recipe puts them; None if it has no such member or key."""
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


def _of_text(source: WebdatasetSource, content: Any, where: str) -> Codes:
    try:
        return as_list(content.decode(), source.separator, where)
    except (UnicodeDecodeError, AttributeError) as error:
        raise SourceError(f"{where}: its labels are not text in UTF-8; set `label` to their member or key") from error


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
