"""Reads every byte of a built dataset again, and checks that its files agree with each other."""

import hashlib
import tarfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rayprob.cluster import cluster_address
from rayprob.data.building.content import changed_pixels, data_fingerprint
from rayprob.data.building.manifest_files import label_counts
from rayprob.data.building.tar import RECORD_BYTES
from rayprob.data.manifest.columns import numbers
from rayprob.data.manifest.facts import earlier_versions, read_facts, read_label_space
from rayprob.data.manifest.parts import ONE_FILE, Parts, part_file
from rayprob.data.manifest.shard_list import REMEDY, SHARDS_FILE, Shards, shard_uri
from rayprob.data.manifest.versions import VERSIONS, dataset_file, split_version, version_file
from rayprob.data.tasks import RunAll, Wording, as_ray_tasks, in_process
from rayprob.data.verify_tar import crc32_faults, tar_faults, whole_faults
from rayprob.errors import DatasetError, LabelError, StorageError
from rayprob.files import storage, uris
from rayprob.files.documents import Shape, parse_json, require_shape
from rayprob.files.tables import parse_table, require_schema
from rayprob.images.kinds import JPEG, KINDS
from rayprob.labels import LabelSpace

ALONE_BYTES = 2**32  # larger datasets are checked by several processes
LEFT_OVER = "a part of another manifest, left by an earlier build"
LISTS = ("labels", "unknown_labels", "absent_labels")


@dataclass(frozen=True)
class Fault:
    """One fault: the file, and what is wrong, with the sample or position."""

    file: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


class _Beside(Shape):
    """The keys of the JSON next to an image."""

    sample_id: int
    height_px: int
    width_px: int
    labels: list[str]
    unknown_labels: list[str]


@dataclass(frozen=True)
class ShardCheck:
    """Everything that a task needs to check one shard. `rows` are its rows of the manifest, if they can be read."""

    root: str
    place: int  # among all shards
    shard: dict[str, Any]
    rows: pa.Table | None
    label_space: LabelSpace | None
    is_in_place: bool = False  # whether the shard is a tar read in place


@dataclass(frozen=True)
class CheckedShard:
    """What is wrong with a shard."""

    place: int
    size_bytes: int
    faults: list[Fault]


def verify(
    root: str, on_progress: Callable[[int, int], None] = lambda done, total: None, *, run_tasks: RunAll = in_process
) -> list[Fault]:
    """Return every fault of the dataset at `root`, an empty list if it is intact. Any changed bit of a shard is a fault.

    `on_progress` is called with the bytes read and their total. `run_tasks` maps the check over the shards, in any order:
    `on_ray()` or `in_process`. Raises DatasetError if dataset.json, with which the rest is compared, is missing or unreadable,
    and RunError if the cluster of RAY_ADDRESS does not answer.
    """
    facts = read_facts(root)
    shards = Shards.read(root, facts)
    label_space, faults = _label_space(root, facts)
    parts = Parts.stated(root, shards, facts, len(label_space) if label_space else None)
    in_place = facts.get("in_place", ())
    faults += _counts_faults(facts, shards) + _stray_files(root, facts, parts)
    rows = _ManifestRows(parts, label_space, root if run_tasks is in_process else uris.absolute(root), in_place)
    done_bytes, total_bytes = 0, int(shards.size_bytes_S.sum())
    on_progress(done_bytes, total_bytes)
    of_shards: dict[int, list[Fault]] = {}
    for checked in run_tasks(check_shard, rows.checks()):
        done_bytes += checked.size_bytes
        of_shards[checked.place] = checked.faults
        on_progress(done_bytes, total_bytes)
    for part in range(len(parts)):
        faults += rows.faults[part] + [fault for shard in parts.shards_of(part) for fault in of_shards.get(shard, [])]
    faults += _double_ids(rows.ids)
    if label_space and not faults:
        faults += _content_faults(facts, label_space, parts)
    return faults


def on_ray(**init: Any) -> RunAll:
    """Return a mapper that checks shards as Ray tasks; it joins or starts Ray as a build does."""
    return as_ray_tasks(Wording("checks a shard", "checked a shard", "run it again"), **init)


def is_worth_ray(root: str) -> bool:
    """Return whether starting Ray pays off: RAY_ADDRESS is set, or the dataset is large. Raises DatasetError."""
    return cluster_address() is not None or int(Shards.read(root, read_facts(root)).size_bytes_S.sum()) > ALONE_BYTES


def check_shard(check: ShardCheck) -> CheckedShard:
    """Read a shard and return its faults."""
    rows = check.rows.to_pylist() if check.rows is not None else []
    if check.is_in_place:
        found = tar_faults(shard_uri(check.root, check.shard["name"]), check.shard, rows)
    else:
        found = _shard_faults(check.root, check.shard, rows, check.label_space)
    name, size_bytes = check.shard["name"], check.shard["size_bytes"]
    return CheckedShard(check.place, size_bytes, [Fault(name, what) for what in found])


class _ManifestRows:
    """The rows of a manifest, part by part, and the faults of the parts read so far."""

    def __init__(self, parts: Parts, label_space: LabelSpace | None, root: str, in_place: Collection[str]) -> None:
        self.faults: dict[int, list[Fault]] = {}
        self.ids: list[NDArray[np.int64]] = []
        self._parts = parts
        self._label_space = label_space
        self._root = root
        self._in_place = in_place  # splits

    def checks(self) -> Iterator[ShardCheck]:
        """Yield the check of each shard."""
        entries = iter(self._parts.shards.entries())
        for part in range(len(self._parts)):
            table, self.faults[part] = _part(self._parts, part)
            self.ids += [numbers(table["sample_id"])] if table else []
            for place in self._parts.shards_of(part):
                shard = next(entries)
                rows = _rows_of(table, shard) if table else None
                yield ShardCheck(self._root, place, shard, rows, self._label_space, shard["split"] in self._in_place)


def _label_space(root: str, facts: dict[str, Any]) -> tuple[LabelSpace | None, list[Fault]]:
    try:
        label_space = read_label_space(root)
    except (DatasetError, LabelError) as error:
        return None, [Fault("labels.json", str(error))]
    found, stated = label_space.fingerprint, facts.get("label_space_fingerprint")
    if found != stated:
        return label_space, [Fault("labels.json", f"has fingerprint {found}, but {stated} in dataset.json")]
    return label_space, []


def _part(parts: Parts, part: int) -> tuple[pa.Table | None, list[Fault]]:
    file = parts.file(part)
    try:
        content = storage.read_bytes(dataset_file(parts.root, file))
        table = parse_table(content, file, error=DatasetError, remedy=REMEDY)
        if not table.schema.equals(parts.schema):
            return None, [Fault(file, f"has columns {table.schema.names}, not {parts.schema.names}")]
        require_schema(table, parts.schema, file, error=DatasetError, remedy=REMEDY)
    except (StorageError, DatasetError) as error:
        return None, [Fault(file, f"cannot be read: {error}")]
    return table, [Fault(file, what) for what in _part_faults(content, table, parts, part)]


def _part_faults(content: bytes, table: pa.Table, parts: Parts, part: int) -> Iterator[str]:
    sha256, stated_sha256 = hashlib.sha256(content).hexdigest(), parts.sha256[part]
    if sha256 != stated_sha256:
        yield f"has sha256 {sha256:.16}..., but {stated_sha256 or 'none':.16}... in dataset.json"
    stated = [
        (split, parts.shards[shard])
        for split, shards in parts.shards.splits.items()
        for shard in parts.shards_of(part)
        if shard in shards
        for _ in range(int(parts.shards.samples_S[shard]))
    ]
    found = list(zip(table["split"].to_pylist(), table["shard"].to_pylist(), strict=True))
    if found != stated:
        yield f"has {len(found):,} rows that do not match, shard by shard, the {len(stated):,} samples in dataset.json"


def _rows_of(table: pa.Table, shard: dict[str, Any]) -> pa.Table:
    # A tar in place may be a shard of several splits.
    return table.filter(pc.and_(pc.equal(table["shard"], shard["name"]), pc.equal(table["split"], shard["split"])))


def _counts_faults(facts: dict[str, Any], shards: Shards) -> list[Fault]:
    if (found := shards.samples_of_splits()) == facts.get("splits"):
        return []
    return [Fault("dataset.json", f"dataset.json counts {facts.get('splits')}, but its shards add up to {found}")]


def _double_ids(ids: Sequence[NDArray[np.int64]]) -> list[Fault]:
    found, times = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *ids]), return_counts=True)
    twice = found[times > 1].tolist()
    return [Fault("manifest", f"has {len(twice):,} sample ids more than once: {twice[:5]}")] if twice else []


def _stray_files(root: str, facts: dict[str, Any], parts: Parts) -> list[Fault]:
    """Return the files that belong to no version of the dataset; of an earlier version, which has not all of them, nothing."""
    folder, version = split_version(root)
    if version:
        return []
    try:
        earlier = [*earlier_versions(root, facts)]
    except DatasetError as error:
        return [Fault("dataset.json", f"names an earlier version that cannot be read: {error}")]
    listed = {*parts.shards, *(file for one in (facts, *earlier) for file in _manifest_files(one))}
    listed |= {version_file(one["fingerprint"]) for one in earlier}
    names = storage.list_names(folder)
    # Next to tars in place there may be others, without samples in this dataset.
    tars = [] if facts.get("in_place") else [name for name in names if name.endswith(".tar")]
    of_manifests = [name for name in names if name in (ONE_FILE, SHARDS_FILE)]
    of_manifests += [
        f"{below}/{name}" for below in ("manifest", VERSIONS) for name in storage.list_names(storage.join(folder, below))
    ]
    return [Fault(name, "is not listed in dataset.json; remove it") for name in tars if name not in listed] + [
        Fault(name, f"is not listed in dataset.json: {LEFT_OVER}; remove it") for name in of_manifests if name not in listed
    ]


def _manifest_files(facts: dict[str, Any]) -> list[str]:
    """Return the names of the files of the manifest of a version with these facts."""
    if facts.get("manifest") is None:
        return [ONE_FILE]
    numbered = [part_file(part) for part in range(len(facts["manifest"]["sha256"]))]
    return [facts.get("shards_file", SHARDS_FILE), *(facts["manifest"].get("files") or numbered)]


def _content_faults(facts: dict[str, Any], label_space: LabelSpace, parts: Parts) -> list[Fault]:
    """Return the faults of facts about all samples together."""

    def tables() -> Iterator[pa.Table]:
        return (parts.read(part, parts.schema.names) for part in range(len(parts)))

    faults = []
    sums = map(parts.shards.sha256, range(len(parts.shards)))
    in_place = facts.get("in_place", ())
    found = data_fingerprint(label_space.fingerprint, sums, tables(), changed_pixels(facts), in_place)
    if found != facts["fingerprint"]:
        faults.append(f"has fingerprint {facts['fingerprint']}, but the data has {found}")
    if "label_counts" in facts and facts["label_counts"] != label_counts(
        parts.shards, tables(), len(label_space), facts.get("rest", {})
    ):
        faults.append("has other label_counts than the samples")
    return [Fault("dataset.json", what) for what in faults]


def _shard_faults(
    root: str, shard: dict[str, Any], rows: Sequence[dict[str, Any]], label_space: LabelSpace | None
) -> Iterator[str]:
    try:
        content = storage.read_bytes(shard_uri(root, shard["name"]))
    except StorageError as error:
        yield f"cannot be read: {error}"
        return
    yield from whole_faults(len(content), hashlib.sha256(content).hexdigest(), shard)
    members, broken = read_members(content)
    if broken:
        yield broken
    yield from _sample_faults(content, members, rows, label_space)


@dataclass(frozen=True)
class Member:
    """One file in a tar, and where its content is."""

    name: str
    offset_bytes: int
    size_bytes: int


def read_members(content: bytes) -> tuple[list[Member], str]:
    """Return the members of a tar up to its end or its first fault, and that fault, or "".

    It is stricter than most readers: padding must be zero, and the end must be marked.
    """
    members: list[Member] = []
    place = 0
    while any(block := content[place : place + RECORD_BYTES]):
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError) as error:
            return members, f"byte {place:,} should begin a tar header: {error}"
        start, end = place + RECORD_BYTES, place + RECORD_BYTES + header.size
        place = end + -header.size % RECORD_BYTES
        if not header.isreg() or place > len(content):
            kind = "goes beyond the end" if header.isreg() else f"has type {header.type!r}"
            return members, f"byte {start - RECORD_BYTES:,}: member {header.name} {kind}"
        if any(content[end:place]):
            return members, f"byte {end:,}: the padding after {header.name} is not zero"
        members.append(Member(header.name, start, header.size))
    if len(content) - place < 2 * RECORD_BYTES or any(content[place:]):
        return members, f"byte {place:,}: no end-of-archive mark of {2 * RECORD_BYTES} zeros; the tar is cut or overwritten"
    return members, ""


def _sample_faults(
    content: bytes, members: Sequence[Member], rows: Sequence[dict[str, Any]], label_space: LabelSpace | None
) -> Iterator[str]:
    member_of = {member.name: member for member in members}
    if len(member_of) < len(members):
        yield f"has {len(members) - len(member_of)} members with the name of another"
    for row in rows:
        name = next((name for kind in KINDS if (name := f"{row['key']}{kind.suffix}") in member_of), "")
        image, beside = member_of.pop(name, None), member_of.pop(f"{row['key']}.json", None)
        yield from (f"sample {row['sample_id']} {what}" for what in _image_faults(content, image, row))
        yield from (f"sample {row['sample_id']} {what}" for what in _beside_faults(content, beside, row, label_space))
    for name in member_of:
        yield f"member {name} belongs to no row of the manifest"


def _image_faults(content: bytes, image: Member | None, row: dict[str, Any]) -> Iterator[str]:
    if image is None:
        yield f"has no {row['key']}{JPEG.suffix}, or of another kind ({', '.join(kind.suffix for kind in KINDS[1:])})"
        return
    found, stated = (image.offset_bytes, image.size_bytes), (row["offset_bytes"], row["size_bytes"])
    if found != stated:
        yield f"has its image at (byte, bytes) {found}, but {stated} in the manifest"
    yield from crc32_faults(_content(content, image), row)


def _beside_faults(content: bytes, beside: Member | None, row: dict[str, Any], label_space: LabelSpace | None) -> Iterator[str]:
    if beside is None:
        yield f"has no {row['key']}.json"
        return
    try:
        value = parse_json(_content(content, beside), beside.name, DatasetError, REMEDY)
        found = require_shape(value, _Beside, beside.name, error=DatasetError, remedy=REMEDY)
    except DatasetError as error:
        yield f"has a broken {beside.name}: {error}"
        return
    stated = {key: row[key] for key in ("sample_id", "height_px", "width_px")}
    if label_space:
        listed = [key for key in LISTS if key in row and (row[key] or key in found)]
        stated |= {key: _names(row[key], label_space) for key in listed}
    yield from (
        f"has {key} {found.get(key)} in its json, but {value} in the manifest"
        for key, value in stated.items()
        if found.get(key) != value
    )


def _names(columns: Sequence[int], label_space: LabelSpace) -> list[str]:
    return [label_space.names[column] if 0 <= column < len(label_space) else f"column {column}" for column in columns]


def _content(content: bytes, member: Member) -> bytes:
    return content[member.offset_bytes : member.offset_bytes + member.size_bytes]
