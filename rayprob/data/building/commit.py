"""The last step of a build: manifest, labels, rejects, and then dataset.json, which says that all the rest is there."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rayprob.config.spec import fingerprint
from rayprob.data.building.duplicates import COPIES_FILE, handle_copies
from rayprob.data.building.mixing import warn_of_sorted
from rayprob.data.building.plan import Outline
from rayprob.data.building.recipe import Recipe
from rayprob.data.building.shard import BuiltShard, Copy, disk_full_explained, read_report, report_of
from rayprob.data.manifest.columns import Ragged, count_labels, to_array, with_absent
from rayprob.data.manifest.facts import (
    FORMAT_IN_PARTS,
    FORMAT_IN_PLACE,
    FORMAT_VERSION,
    FORMAT_WITH_ABSENT,
    FORMAT_WITH_READING,
)
from rayprob.data.manifest.parts import ONE_FILE, ONE_FILE_ROWS, PART_ROWS, part_ends, part_file, write_part
from rayprob.data.manifest.rows_digest import RowsDigest
from rayprob.data.manifest.shard_list import SHARDS_FILE, Shards
from rayprob.data.sources.batch_file import BatchFile, joined, scratch_folder
from rayprob.data.sources.join_files import Reject
from rayprob.data.sources.source import SourceData
from rayprob.errors import DatasetError, SourceError
from rayprob.files import storage
from rayprob.images.kinds import JPEG, KINDS
from rayprob.images.notable import CONVERTED
from rayprob.text import counted

NOT_LISTED = "an image that no file in divide.into names"
PACKAGES = ("rayprob", "pyarrow", "pycocotools", "simplejpeg")


def commit(recipe: Recipe, source: SourceData, outlines: Sequence[Outline], copies: Sequence[Copy] = ()) -> dict[str, Any]:
    """Turn the reports of all shards into a dataset; returns the content of dataset.json. Rows pass through in batches.

    `copies` are those that stay. Raises SourceError for more rejects than the recipe allows, and for copies where it says so.
    """
    rest = _rest_of_splits(source, outlines)
    shards, tables = _reports(recipe.root, outlines, with_absent if rest else None)
    shards = _with_sha256(shards)
    rejected = source.missing + [reject for shard in shards for reject in shard.rejected]
    check_rejects(recipe, rejected)
    _write_rejects(recipe, rejected)
    duplicates = handle_copies(recipe, copies, [copy for shard in shards for copy in shard.dropped])
    shards = _without_empty(recipe, shards)
    with disk_full_explained():
        manifest = write_manifest(recipe.root, shards, tables, len(source.label_space), rest)
    in_place = [*dict.fromkeys(shard.split for shard in shards if shard.tar)]
    warn_of_sorted(tables, in_place, len(source.label_space))
    pixels = pixel_facts(recipe, shards)
    facts = {
        "format_version": _format_version(manifest, rest, pixels, in_place),
        "name": recipe.name,
        "recipe": recipe.model_dump(mode="json"),
        "fingerprint": data_fingerprint(
            source.label_space.fingerprint, [shard.sha256 for shard in shards], tables, changed_pixels(pixels), in_place
        ),
        "label_space_fingerprint": source.label_space.fingerprint,
        "splits": dict(sum((Counter({shard.split: shard.samples}) for shard in shards), Counter())),
        **manifest,
        **({"rest": rest} if rest else {}),
        **({"in_place": in_place} if in_place else {}),
        **({"duplicates": duplicates} if duplicates else {}),
        "dropped": {split: counts for split, counts in _dropped(source, outlines).items() if counts},
        "versions": {package: version(package) for package in PACKAGES},
        "rejected": len(rejected),
        "sizes_corrected": sum(shard.sizes_corrected for shard in shards),
        **pixels,
    }
    with disk_full_explained():
        storage.write_text(storage.join(recipe.root, "labels.json"), _json(source.label_space.to_dict()))
        storage.write_text(storage.join(recipe.root, "dataset.json"), _json(facts))
    remove_reports(recipe.root)
    return facts


def check_rejects(recipe: Recipe, rejected: Sequence[Reject]) -> None:
    """Raise SourceError that names the first rejects and the list of all, where they are more than the recipe allows."""
    if len(rejected) <= recipe.allow_rejects:
        return
    _write_rejects(recipe, rejected)
    first = "; ".join(f"{reject.file_name} {reject.reason}" for reject in rejected[:3])
    raise SourceError(
        f"{counted(len(rejected), 'image')} cannot become samples and allow_rejects is {recipe.allow_rejects:,}: {first}; "
        f"all of them: {storage.join(recipe.root, 'rejected.jsonl')}; mend them, or set allow_rejects, and run the same "
        "command again"
    )


def write_manifest(
    root: str, shards: Sequence[BuiltShard], tables: Sequence[pa.Table], num_labels: int, rest: Mapping[str, str]
) -> dict[str, Any]:
    """Write the manifest of shards with at least a row each; return what dataset.json says of shards and manifest.

    Of few rows it is one file. Of more it is parts, and the shards are listed in a file of their own: a process then reads what
    it needs. Raises StorageError.
    """
    listed = Shards.from_entries(root, [_shard_entry(shard) for shard in shards])
    if listed.samples_S.sum() <= ONE_FILE_ROWS:
        sha256 = write_part(root, ONE_FILE, pa.concat_tables(tables))
        return {"shards": listed.entries(), "manifest_sha256": sha256}
    ends = part_ends(listed, part_rows=PART_ROWS).tolist()
    firsts = [0, *ends[:-1]]
    parts = [
        write_part(root, part_file(part), pa.concat_tables(tables[first:end]))
        for part, (first, end) in enumerate(zip(firsts, ends, strict=True))
    ]
    return {
        "shards_sha256": write_part(root, SHARDS_FILE, listed.to_table()),
        "manifest": {"shards": [end - first for first, end in zip(firsts, ends, strict=True)], "sha256": parts},
        "label_counts": label_counts(listed, tables, num_labels, rest),
    }


def label_counts(
    shards: Shards, tables: Iterable[pa.Table], num_labels: int, rest: Mapping[str, str]
) -> dict[str, dict[str, list[int]]]:
    """Return in how many samples of each split each label is present and known, and in how many it is known.

    The tables hold the rows of all shards in order; none has rows of two splits.
    """
    counts = {split: np.zeros((2, num_labels), dtype=np.int64) for split in shards.splits}
    for table in tables:
        split = table["split"][0].as_py()
        of_split = rest.get(split, "absent")
        listed = ("labels", "absent_labels" if of_split == "unknown" else "unknown_labels")
        labels, others = (Ragged.from_column(table[name]) for name in listed)
        counts[split] += count_labels(labels, others, num_labels, of_split)
    return {split: {"present": present_L.tolist(), "known": known_L.tolist()} for split, (present_L, known_L) in counts.items()}


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


def pixel_facts(recipe: Recipe, shards: Sequence[BuiltShard]) -> dict[str, Any]:
    """Return what dataset.json states of its images: how they are read, and how many are of which kind."""
    images = sum((Counter(shard.images) for shard in shards), Counter())
    rotated = sum(shard.exif_rotated for shard in shards)
    return {"exif_rotated": rotated, **recipe.reading.to_dict(), "images": dict(sorted(images.items()))}


def needs_reading(facts: Mapping[str, Any]) -> bool:
    """Return whether 0.1 would not read all of these images, or not to the same pixels."""
    kinds = {kind.title for kind in KINDS} & facts["images"].keys()
    is_converted = CONVERTED in facts["images"]  # all of its images are upright JPEGs
    return not is_converted and (kinds != {JPEG.title} or bool(changed_pixels(facts)))


def changed_pixels(facts: Mapping[str, Any]) -> list[Any]:
    """Return what makes pixels other than the stored ones; nothing where an older version would read the same pixels."""
    orientation = [facts["orientation"]] if facts.get("exif_rotated") and "orientation" in facts else []
    return [*orientation, *([facts["window"]] if facts.get("window") else [])]


def data_fingerprint(
    label_space_fingerprint: str,
    shard_sha256: Iterable[str],
    tables: Iterable[pa.Table],
    pixels: Sequence[Any] = (),
    in_place: Sequence[str] = (),
) -> str:
    """Return 16 hex digits that change with any sample, label, shard or pixel, and with no version of Parquet.

    `pixels` is what `changed_pixels` returns. `in_place` are the splits of which the shards are tars of others: the fingerprint
    does not change when those tars are moved.
    """
    # The areas are the only column that is in no shard, but of a split in place, whose tars do not say which labels were read.
    areas, rows = hashlib.sha256(), RowsDigest()
    for table in tables:
        for chunk in table["label_areas_px2"].chunks:
            areas.update(np.from_dlpack(chunk.flatten().drop_null()).tobytes())
        if in_place:
            rows.update(table.filter(pc.is_in(table["split"], to_array(in_place, pa.string()))))
    digests = [areas.hexdigest(), *([rows.hexdigest()] if in_place else [])]
    return fingerprint([label_space_fingerprint, list(shard_sha256), *digests, *pixels])


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
    """Raise DatasetError where a shard that was written is not there."""
    lost = [shard.name for shard in outlines if not storage.exists(report_of(root, shard.name))]
    if lost:
        raise DatasetError(
            f"{len(lost)} of {len(outlines)} shards were written, but not into {root} as this machine sees it: {lost[0]}, ...; "
            "where several machines build, give a target folder that all of them share, or a URI"
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


def _without_empty(recipe: Recipe, shards: Sequence[BuiltShard]) -> list[BuiltShard]:
    """Drop shards whose images were all rejected; raises SourceError where a split has nothing else."""
    kept = [shard for shard in shards if shard.samples]
    if gone := {shard.split for shard in shards} - {shard.split for shard in kept}:
        raise SourceError(
            f"split {min(gone)} is empty: every image of it was rejected, or dropped as a copy; see "
            f"{storage.join(recipe.root, 'rejected.jsonl')} and {COPIES_FILE}"
        )
    for shard in shards:
        if not shard.samples:
            storage.remove(storage.join(recipe.root, shard.name))  # never the tar of others, which `file` names
    return kept


def _rest_of_splits(source: SourceData, outlines: Sequence[Outline]) -> dict[str, str]:
    """Return what holds in each split for labels that a sample lists nowhere; nothing where it is absent in all of them."""
    rest = {shard.split: str(source.rest[shard.source]) for shard in outlines}
    return rest if "unknown" in rest.values() else {}


def _dropped(source: SourceData, outlines: Sequence[Outline]) -> dict[str, dict[str, int]]:
    """Return how much of each split of the source was left out, by reason."""
    planned = Counter[str]()
    for shard in outlines:
        planned[shard.source] += shard.num_samples
    unlisted = {split: len(images) - planned[split] for split, images in source.images.items()}
    return {
        split: {**counts, **({NOT_LISTED: unlisted[split]} if unlisted[split] else {})}
        for split, counts in source.dropped.items()
    }


def _shard_entry(shard: BuiltShard) -> dict[str, Any]:
    return {"name": shard.file} | {key: getattr(shard, key) for key in ("split", "samples", "size_bytes", "sha256")}


def _write_rejects(recipe: Recipe, rejected: Sequence[Reject]) -> None:
    lines = [json.dumps(vars(reject)) for reject in rejected]
    with disk_full_explained():
        storage.write_text(storage.join(recipe.root, "rejected.jsonl"), "".join(f"{line}\n" for line in lines))


def _json(value: Any) -> str:
    return json.dumps(value, indent=1) + "\n"
