"""The last step of a build: manifest, labels, rejects, and then dataset.json, which marks the dataset as complete."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, overload

import pyarrow as pa

from rayprob.data.building.before import Before
from rayprob.data.building.content import changed_pixels, data_fingerprint, needs_reading, pixel_facts
from rayprob.data.building.disk_full import disk_full_explained
from rayprob.data.building.duplicates import handle_copies, tell_dropped
from rayprob.data.building.groups_file import NO_GROUPS
from rayprob.data.building.list_files import COPIES_FILE, REJECTS_FILE, write_list
from rayprob.data.building.manifest_files import write_grown_manifest, write_manifest
from rayprob.data.building.mixing import warn_of_sorted
from rayprob.data.building.plan import Outline
from rayprob.data.building.recipe import Recipe
from rayprob.data.building.rejects import check_rejects, tell_rejected
from rayprob.data.building.shard import BuiltShard, Copy, read_report, report_of
from rayprob.data.manifest.columns import with_absent
from rayprob.data.manifest.facts import (
    FACTS_FILE,
    FORMAT_GROWN,
    FORMAT_IN_PARTS,
    FORMAT_IN_PLACE,
    FORMAT_VERSION,
    FORMAT_WITH_ABSENT,
    FORMAT_WITH_READING,
)
from rayprob.data.manifest.parts import Parts
from rayprob.data.manifest.shard_list import Shards
from rayprob.data.manifest.versions import version_file
from rayprob.data.sources.batch_file import BatchFile, joined, scratch_folder
from rayprob.data.sources.join_files import Reject
from rayprob.data.sources.source import SourceData
from rayprob.errors import DatasetError, SourceError
from rayprob.files import storage
from rayprob.labels import LabelSpace

NOT_LISTED = "an image that no file in divide.into names"
PACKAGES = ("rayprob", "pyarrow", "pycocotools", "simplejpeg")


def commit(
    recipe: Recipe,
    source: SourceData,
    outlines: Sequence[Outline],
    copies: Sequence[Copy] = (),
    before: Before | None = None,
) -> dict[str, Any]:
    """Turn the reports of all shards into a dataset; returns the content of dataset.json. Rows pass through in batches.

    `copies` are those that stay. With `before`, the shards are added to those of that dataset, which do not change; if no image
    became a sample, its facts are returned, and its files stay as they are. Raises SourceError for more rejects than the recipe
    allows, and for copies if the recipe says so.
    """
    rest = before.facts.get("rest", {}) if before else _rest_of_splits(source, outlines)
    shards, tables = _reports(recipe.root, outlines, with_absent if rest else None)
    shards = _with_sha256(shards)
    lasting = before.lasting_rejects if before else []
    rejected = [*lasting, *source.missing, *(reject for shard in shards for reject in shard.rejected)]
    check_rejects(recipe, rejected, before)
    dropped = [copy for shard in shards for copy in shard.dropped]
    if before and not any(shard.samples for shard in shards):
        return _unchanged(recipe, before, shards, rejected, dropped)
    duplicates = handle_copies(recipe, copies, dropped, before)
    (before.groups if before else NO_GROUPS).write_updated(recipe.root, source.images.values())
    write_list(recipe.root, REJECTS_FILE, map(vars, rejected))
    shards = _without_empty(recipe, shards, () if before is None else before.splits)
    old = before.facts if before else {}
    in_place = [*dict.fromkeys([*old.get("in_place", ()), *(shard.split for shard in shards if shard.tar)])]
    with disk_full_explained():
        manifest, samples = _manifest(recipe, shards, tables, source.label_space, rest, before)
    warn_of_sorted(tables, in_place, len(source.label_space))
    pixels = pixel_facts(recipe, shards, old)
    facts = {
        "format_version": FORMAT_GROWN if before else _format_version(manifest, rest, pixels, in_place),
        "name": recipe.name,
        "recipe": recipe.model_dump(mode="json"),
        "fingerprint": data_fingerprint(
            source.label_space.fingerprint, samples.sha256, samples.tables(in_place), changed_pixels(pixels), in_place
        ),
        "label_space_fingerprint": source.label_space.fingerprint,
        "splits": samples.splits,
        **manifest,
        **({"rest": rest} if rest else {}),
        **({"in_place": in_place} if in_place else {}),
        **({"duplicates": duplicates} if duplicates else {}),
        "dropped": {split: counts for split, counts in _dropped(source, outlines, before).items() if counts},
        "versions": {package: version(package) for package in PACKAGES},
        "rejected": len(rejected),
        "sizes_corrected": old.get("sizes_corrected", 0) + sum(shard.sizes_corrected for shard in shards),
        **pixels,
    }
    with disk_full_explained():
        if before:
            facts |= {"parent": _kept(before)}
        else:
            storage.write_text(storage.join(recipe.root, "labels.json"), _json(source.label_space.to_dict()))
        storage.write_text(storage.join(recipe.root, FACTS_FILE), _json(facts))
    remove_reports(recipe.root)
    return facts


def _unchanged(
    recipe: Recipe, before: Before, shards: Sequence[BuiltShard], rejected: Sequence[Reject], dropped: Sequence[Copy]
) -> dict[str, Any]:
    """Return the facts of a dataset to which a build adds nothing, and remove what that build wrote."""
    _without_empty(recipe, shards, before.splits)
    tell_rejected(recipe, before, rejected)
    tell_dropped(recipe, dropped)
    remove_reports(recipe.root)
    return before.facts


@dataclass(frozen=True)
class _Samples:
    """All samples of a dataset: how many, and their shards and rows, split by split."""

    splits: dict[str, int]
    sha256: list[str]
    tables: Callable[[Sequence[str]], Iterable[pa.Table]]  # with the columns that `data_fingerprint` needs for splits in place


def _manifest(
    recipe: Recipe,
    shards: Sequence[BuiltShard],
    tables: Sequence[pa.Table],
    label_space: LabelSpace,
    rest: Mapping[str, str],
    before: Before | None,
) -> tuple[dict[str, Any], _Samples]:
    """Write the manifest; return its entries for dataset.json, and everything it lists."""
    if before is None:
        splits = dict(sum((Counter({shard.split: shard.samples}) for shard in shards), Counter()))
        manifest = write_manifest(recipe.root, shards, tables, len(label_space), rest)
        return manifest, _Samples(splits, [shard.sha256 for shard in shards], lambda in_place: tables)
    manifest = write_grown_manifest(before, shards, tables, rest)
    listed = Shards.read(recipe.root, manifest)
    parts = Parts.stated(recipe.root, listed, {**manifest, "rest": rest}, len(label_space))

    def read(in_place: Sequence[str]) -> Iterator[pa.Table]:
        columns = parts.schema.names if in_place else ["label_areas_px2"]
        return (parts.read(part, columns) for part in range(len(parts)))

    return manifest, _Samples(listed.samples_of_splits(), [*map(listed.sha256, range(len(listed)))], read)


def _kept(before: Before) -> dict[str, str]:
    """Keep dataset.json as it is under the name of its version; return the entries of the next version for it."""
    fingerprint = before.facts["fingerprint"]
    content = storage.read_bytes(storage.join(before.root, FACTS_FILE))
    storage.write_bytes(storage.join(before.root, version_file(fingerprint)), content)
    return {"fingerprint": fingerprint, "file": version_file(fingerprint)}


def _format_version(
    manifest: Mapping[str, Any], rest: Mapping[str, str], pixels: Mapping[str, Any], in_place: Sequence[str]
) -> int:
    """Return the lowest version whose readers read all of a dataset with these facts as it is."""
    if in_place:
        return FORMAT_IN_PLACE
    if needs_reading(pixels):
        return FORMAT_WITH_READING
    if rest:
        return FORMAT_WITH_ABSENT
    return FORMAT_IN_PARTS if "manifest" in manifest else FORMAT_VERSION


def remove_reports(root: str) -> None:
    """Remove the reports of shards, which only an unfinished build needs."""
    filesystem, folder = storage.resolve(storage.join(root, ".build"))
    if storage.exists(storage.join(root, ".build")):
        filesystem.delete_dir(folder)


class _Tables(Sequence[pa.Table]):
    """Tables of rows that wait on disk; each has the schema that it was added with, to the names of list items."""

    def __init__(self, folder: str | None) -> None:
        self._folder = folder
        self._files: dict[str, BatchFile] = {}
        self._places: list[tuple[BatchFile, int]] = []

    def append(self, table: pa.Table) -> None:
        """Add a table."""
        file = self._files.setdefault(str(table.schema), BatchFile(table.schema, self._folder))
        self._places.append((file, len(file)))
        file.append(joined(table.to_batches(), table.schema))

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, place: int) -> pa.Table: ...
    @overload
    def __getitem__(self, place: slice) -> list[pa.Table]: ...
    def __getitem__(self, place: int | slice) -> pa.Table | list[pa.Table]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        file, batch = self._places[place]
        return pa.Table.from_batches([file[batch]])


def require_reports(root: str, outlines: Sequence[Outline]) -> None:
    """Raise DatasetError if a written shard is missing."""
    lost = [shard.name for shard in outlines if not storage.exists(report_of(root, shard.name))]
    if lost:
        raise DatasetError(
            f"{len(lost)} of {len(outlines)} shards were written, but not into {root} as this machine sees it: {lost[0]}, ...; "
            "if several machines build, give a target folder that all of them share, or a URI"
        )


def _reports(
    root: str, outlines: Sequence[Outline], change: Callable[[pa.Table], pa.Table] | None
) -> tuple[list[BuiltShard], Sequence[pa.Table]]:
    """Return the facts of all shards, and the rows of those that have some, changed where a change is given."""
    shards, tables = [], _Tables(scratch_folder(root))
    for shard in outlines:
        facts, table = read_report(report_of(root, shard.name))
        shards.append(facts)
        if table.num_rows:
            tables.append(change(table) if change else table)
    return shards, tables


def _with_sha256(shards: Sequence[BuiltShard]) -> list[BuiltShard]:
    """Return the shards, each in a tar that it shares with another split with the sha256 of that tar."""
    sha256_of = {shard.file: shard.sha256 for shard in shards if shard.sha256}
    return [replace(shard, sha256=sha256_of[shard.file]) for shard in shards]


def _without_empty(recipe: Recipe, shards: Sequence[BuiltShard], filled: Iterable[str]) -> list[BuiltShard]:
    """Drop shards whose images were all rejected; raises SourceError if a split has nothing else and is not `filled`."""
    kept = [shard for shard in shards if shard.samples]
    if gone := {shard.split for shard in shards} - {shard.split for shard in kept} - {*filled}:
        raise SourceError(
            f"split {min(gone)} is empty: every image of it was rejected, or dropped as a copy; see "
            f"{storage.join(recipe.root, REJECTS_FILE)} and {COPIES_FILE}"
        )
    for shard in shards:
        if not shard.samples:
            storage.remove(storage.join(recipe.root, shard.name))  # never a tar read in place, which `file` names
    return kept


def _rest_of_splits(source: SourceData, outlines: Sequence[Outline]) -> dict[str, str]:
    """Return what holds in each split for labels that a sample lists nowhere; nothing if it is absent in all of them."""
    rest = {shard.split: str(source.rest[shard.source]) for shard in outlines}
    return rest if "unknown" in rest.values() else {}


def _dropped(source: SourceData, outlines: Sequence[Outline], before: Before | None) -> dict[str, dict[str, int]]:
    """Return how much of each split of the source was left out, by reason."""
    planned = Counter[str]()
    for shard in outlines:
        planned[shard.source] += shard.num_samples
    known = {split: int(before.knows(images.ids_N).sum()) if before else 0 for split, images in source.images.items()}
    unlisted = {split: len(images) - planned[split] - known[split] for split, images in source.images.items()}
    return {
        split: {**counts, **({NOT_LISTED: unlisted[split]} if unlisted[split] else {})}
        for split, counts in source.dropped.items()
    }


def _json(value: Any) -> str:
    return json.dumps(value, indent=1) + "\n"
