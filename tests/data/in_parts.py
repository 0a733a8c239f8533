"""A dataset with one manifest.parquet, written anew with a manifest in parts: an account that owes nothing to the builder."""

import hashlib
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def copy_in_parts(source: Path, target: Path, part_rows: int) -> Path:
    """Copy a dataset; a part ends with a split, or with the shard that fills it."""
    shutil.copytree(source, target)
    table = pq.read_table(target / "manifest.parquet")
    (target / "manifest.parquet").unlink()
    (target / "manifest").mkdir()
    facts = json.loads((target / "dataset.json").read_text())
    shards = facts.pop("shards")
    facts.pop("manifest_sha256", None)
    counts, digests, first, held = [], [], 0, []
    for place, shard in enumerate(shards):
        held.append(shard["samples"])
        is_last = place + 1 == len(shards) or shards[place + 1]["split"] != shard["split"]
        if is_last or sum(held) >= part_rows:
            path = target / "manifest" / f"{len(counts):06d}.parquet"
            pq.write_table(table.slice(first, sum(held)), path)
            counts.append(len(held))
            digests.append(hashlib.sha256(path.read_bytes()).hexdigest())
            first, held = first + sum(held), []
    columns = {key: [shard[key] for shard in shards] for key in ("name", "split", "samples", "size_bytes")}
    digest = pa.array([bytes.fromhex(shard["sha256"]) for shard in shards], pa.binary(32))
    pq.write_table(pa.table({**columns, "sha256": digest}), target / "shards.parquet")
    facts["format_version"] = 2
    facts["manifest"] = {"shards": counts, "sha256": digests}
    facts["shards_sha256"] = hashlib.sha256((target / "shards.parquet").read_bytes()).hexdigest()
    (target / "dataset.json").write_text(json.dumps(facts))
    return target
