"""WebDataset tars from elsewhere: their samples, grouped by the webdataset package, and where the images are."""

import io
import os
import posixpath
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import pyarrow as pa

from rayprob.data.manifest.columns import to_array
from rayprob.data.sources.parts import in_order
from rayprob.errors import SourceError, one_line
from rayprob.files import storage, uris
from rayprob.images.kinds import IMAGE_SUFFIXES

IMAGES = tuple(suffix[1:] for suffix in IMAGE_SUFFIXES)
PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
PACKED_STARTS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
KEY_AND_SUFFIX = re.compile(r"((?:.*/|)[^.]+)[.][^/]*", re.DOTALL)  # the same rule as in webdataset
MOST_TEXT_BYTES = 2**20
REMOTE_BUFFER_BYTES = 2**20  # per read: two requests per member would take a day
Codes = list[str] | None
CodesAndGroup = Callable[[dict[str, Any], str], tuple[Codes, int]]


COLUMNS = pa.schema(
    [
        ("key", pa.string()),
        ("name", pa.string()),
        ("offset_bytes", pa.int64()),
        ("size_bytes", pa.int64()),
        ("group", pa.int64()),
    ]
)


@dataclass(frozen=True)
class TarSample:
    """One sample of a tar: where its image is, and its labels; None if it has no member with labels."""

    tar: str
    key: str
    name: str  # of the image in the tar
    offset_bytes: int
    size_bytes: int
    codes: Codes
    group: int  # see ImageRow


class TarSamples:
    """The samples of a tar that have an image, in Arrow, at a fifth of the memory. `codes` are the labels that occur."""

    def __init__(self, tar: str, samples: Sequence[TarSample], without_image: int) -> None:
        self.tar = tar
        self.without_image = without_image
        number_of: dict[str, int] = {}
        numbers = [[number_of.setdefault(code, len(number_of)) for code in sample.codes or ()] for sample in samples]
        self.codes = list(number_of)
        self._columns = [to_array([getattr(one, field.name) for one in samples], field.type) for field in COLUMNS]
        self._codes = to_array(numbers, pa.list_(pa.int32()))
        self._unlabelled = {row for row, sample in enumerate(samples) if sample.codes is None}

    def __len__(self) -> int:
        return len(self._codes)

    def __iter__(self) -> Iterator[TarSample]:
        rows = zip(*(column.to_pylist() for column in (*self._columns, self._codes)), strict=True)
        for row, (key, name, offset_bytes, size_bytes, group, numbers) in enumerate(rows):
            codes = None if row in self._unlabelled else [self.codes[number] for number in numbers]
            yield TarSample(self.tar, key, name, offset_bytes, size_bytes, codes, group)

    @property
    def keys(self) -> list[str]:
        """The key of each sample."""
        keys: list[str] = self._columns[0].to_pylist()
        return keys


def read_tars(tars: Sequence[str], stated_by: CodesAndGroup) -> list[TarSamples]:
    """Return the samples of tars; `stated_by(members by suffix, where)` returns a sample's labels and group from its members.

    Images are located but not read. Tars are read side by side, see `in_order`. Raises SourceError for a tar that is packed or
    cannot be read.
    """
    return list(in_order(partial(_samples, stated_by), map(uris.absolute, tars)))


def key_of(name: str) -> str:
    """Return the key of a member as in webdataset: its name up to the first dot after the last slash."""
    match = KEY_AND_SUFFIX.fullmatch(name)
    assert match, name
    return match[1]


def _samples(stated_by: CodesAndGroup, tar: str) -> TarSamples:
    from webdataset.tariterators import group_by_keys  # takes seconds, since it imports torch

    samples, without_image = [], 0
    try:
        for sample in group_by_keys(_members(tar)):
            image = next((suffix for suffix in IMAGES if suffix in sample), None)
            if image is None:
                without_image += 1
                continue
            key, member = sample["__key__"], sample[image]
            codes, group = stated_by(sample, f"{tar}, sample {key}")
            samples.append(TarSample(tar, key, member.name, member.offset_data, member.size, codes, group))
    except ValueError as error:  # two members with the same name
        raise SourceError(f"{tar} is not a tar of samples: {one_line(error.args[0])}; write it again") from error
    return TarSamples(tar, samples, without_image)


def _members(tar: str) -> Iterator[dict[str, Any]]:
    """Yield the members as `group_by_keys` takes them: images as their places, others as bytes."""
    try:
        with storage.open_input_file(tar) as source, tarfile.open(fileobj=_buffered(tar, source), mode="r:") as opened:
            for member in opened:
                if not member.isreg() or member.name.startswith("__"):
                    continue
                if member.issparse():
                    raise SourceError(f"{tar}: {member.name} is stored as a sparse file; write the tar again without --sparse")
                is_image = member.name.lower().endswith(IMAGE_SUFFIXES) or member.size > MOST_TEXT_BYTES
                yield {"fname": member.name, "data": member if is_image else _content(opened, member), "__url__": tar}
                opened.members = []  # type: ignore[attr-defined]  # tarfile keeps every member that it has seen
    except (tarfile.TarError, OSError, EOFError, UnicodeError) as error:
        fault = _packing(tar) or f"cannot be read as a tar: {one_line(error)}; write it again"
        raise SourceError(f"{tar} {fault}") from error


def _packing(tar: str) -> str:
    """Return the fault and remedy of a packed tar; "" for any other."""
    with storage.open_input_file(tar) as file:
        start = file.read(max(map(len, PACKED_STARTS)))
    kind = next((kind for magic, kind in PACKED_STARTS.items() if start.startswith(magic)), "")
    return kind and f"is packed with {kind}, but images are read by their position in a tar; unpack it and give the .tar"


def _buffered(tar: str, file: Any) -> Any:
    """Open a file such that an object store does not get a request per header."""
    return file if storage.is_local(tar) else io.BufferedReader(cast(io.RawIOBase, file), REMOTE_BUFFER_BYTES)


def _content(opened: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = opened.extractfile(member)
    return file.read() if file else b""


def names_of(tars: Sequence[str]) -> dict[str, str]:
    """Return a unique name for each tar: its path below the common folder."""
    paths = {tar: tar if storage.is_local(tar) else tar.partition("?")[0] for tar in tars}
    # commonpath does not support URIs.
    folder = os.path.commonprefix([f"{posixpath.dirname(path)}/" for path in paths.values()]).rpartition("/")[0]  # noqa: RUF071
    return {tar: path.removeprefix(f"{folder}/") for tar, path in paths.items()}
