"""The last step of a build: manifest, labels, rejects, and then dataset.json, which says that all the rest is there."""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rayprob import storage
from rayprob.data.manifest import FORMAT_VERSION
from rayprob.data.recipe import Recipe
from rayprob.data.shard import ShardFacts, ShardJob, disk_full_explained, read_report
from rayprob.data.source import Reject, SourceData
from rayprob.errors import DatasetError, SourceError
from rayprob.spec import fingerprint

PACKAGES = ("rayprob", "pyarrow", "pycocotools", "simplejpeg")


def commit(recipe: Recipe, source: SourceData, jobs: Sequence[ShardJob]) -> dict[str, Any]:
    """Turn the reports of all shards into a dataset; returns the content of dataset.json.

    Raises SourceError for more rejects than the recipe allows, DatasetError for a shard that is not there.
    """
    shards, tables = _reports(recipe.root, jobs)
    rejected = source.missing + [reject for shard in shards for reject in shard.rejected]
    check_rejects(recipe, rejected)
    _write_rejects(recipe, rejected)
    shards = _without_empty(recipe, shards)
    table = pa.concat_tables(tables)
    manifest = _parquet(table)
    facts = {
        "format_version": FORMAT_VERSION,
        "name": recipe.name,
        "recipe": recipe.model_dump(mode="json"),
        "fingerprint": data_fingerprint(source.label_space.fingerprint, [shard.sha256 for shard in shards], table),
        "label_space_fingerprint": source.label_space.fingerprint,
        "splits": dict(sum((Counter({shard.split: shard.samples}) for shard in shards), Counter())),
        "shards": [_shard_entry(shard) for shard in shards],
        "manifest_sha256": hashlib.sha256(manifest).hexdigest(),
        "versions": {package: version(package) for package in PACKAGES},
        "rejected": len(rejected),
        "sizes_corrected": sum(shard.sizes_corrected for shard in shards),
    }
    with disk_full_explained():
        storage.write_bytes(storage.join(recipe.root, "manifest.parquet"), manifest)
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
        f"{len(rejected):,} images cannot become samples and allow_rejects is {recipe.allow_rejects:,}: {first}; all of them: "
        f"{storage.join(recipe.root, 'rejected.jsonl')}; mend them, or set allow_rejects, and run the same command again"
    )


def data_fingerprint(label_space_fingerprint: str, shard_sha256: Sequence[str], table: pa.Table) -> str:
    """Return 16 hex digits that change with any sample, label or shard, and with no version of Parquet."""
    # The areas are the only column that is in no shard.
    areas = np.concatenate([np.from_dlpack(chunk.flatten().drop_null()) for chunk in table["label_areas_px2"].chunks])
    return fingerprint([label_space_fingerprint, list(shard_sha256), hashlib.sha256(areas.tobytes()).hexdigest()])


def remove_reports(root: str) -> None:
    """Remove the reports of shards, which only an unfinished build needs."""
    filesystem, folder = storage.resolve(storage.join(root, ".build"))
    if storage.exists(storage.join(root, ".build")):
        filesystem.delete_dir(folder)


def _reports(root: str, jobs: Sequence[ShardJob]) -> tuple[list[ShardFacts], list[pa.Table]]:
    lost = [job.plan.name for job in jobs if not storage.exists(job.report)]
    if lost:
        raise DatasetError(
            f"{len(lost)} of {len(jobs)} shards were written, but not into {root} as this machine sees it: {lost[0]}, ...; "
            "where several machines build, give a target folder that all of them share, or a URI"
        )
    reports = [read_report(job.report) for job in jobs]
    return [facts for facts, _ in reports], [table for _, table in reports]


def _without_empty(recipe: Recipe, shards: Sequence[ShardFacts]) -> list[ShardFacts]:
    """Drop shards whose images were all rejected; raises SourceError where a split has nothing else."""
    kept = [shard for shard in shards if shard.samples]
    if gone := {shard.split for shard in shards} - {shard.split for shard in kept}:
        raise SourceError(
            f"split {min(gone)} is empty: every image of it was rejected; see {storage.join(recipe.root, 'rejected.jsonl')}"
        )
    for shard in shards:
        if not shard.samples:
            storage.remove(storage.join(recipe.root, shard.name))
    return kept


def _shard_entry(shard: ShardFacts) -> dict[str, Any]:
    return {key: getattr(shard, key) for key in ("name", "split", "samples", "size_bytes", "sha256")}


def _write_rejects(recipe: Recipe, rejected: Sequence[Reject]) -> None:
    lines = [json.dumps(vars(reject)) for reject in rejected]
    with disk_full_explained():
        storage.write_text(storage.join(recipe.root, "rejected.jsonl"), "".join(f"{line}\n" for line in lines))


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def _json(value: Any) -> str:
    return json.dumps(value, indent=1) + "\n"
