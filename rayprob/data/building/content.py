"""What the content of a dataset is known by: how its images are read, how many are of which kind, and its fingerprint."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rayprob.config.spec import fingerprint
from rayprob.data.building.recipe import Recipe
from rayprob.data.building.shard import BuiltShard
from rayprob.data.manifest.columns import to_array
from rayprob.data.manifest.rows_digest import RowsDigest
from rayprob.images.kinds import JPEG, KINDS
from rayprob.images.notable import CONVERTED

NOTHING: Mapping[str, Any] = {}


def pixel_facts(recipe: Recipe, shards: Sequence[BuiltShard], before: Mapping[str, Any] = NOTHING) -> dict[str, Any]:
    """Return what dataset.json states of its images: how they are read, and how many are of which kind.

    `before` are the facts of a dataset that grows by the shards.
    """
    images = sum((Counter(shard.images) for shard in shards), Counter(before.get("images")))
    rotated = (before.get("exif_rotated") or 0) + sum(shard.exif_rotated for shard in shards)
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

    `pixels` is what `changed_pixels` returns. `in_place` are the splits whose shards are tars read in place: the fingerprint
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
