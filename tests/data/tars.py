"""Tars as others write them, small: by webdataset's ShardWriter, and in the layout of img2dataset."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import webdataset

from tests.data.sources.test_same_labels import Pictures, write_tar

PER_TAR = 10


def by_shard_writer(folder: Path, pictures: Pictures) -> dict[str, Any]:
    """Write samples with webdataset's own writer; return the split that reads them, copied."""
    folder.mkdir(parents=True)
    with webdataset.ShardWriter(str(folder / "%06d.tar"), maxcount=PER_TAR, verbose=0) as writer:
        for name, (jpeg, labels) in pictures.items():
            writer.write({"__key__": name, "jpg": jpeg, "json": {"labels": labels}})
    return {"format": "webdataset", "images": str(folder)}


def by_img2dataset(folder: Path, pictures: Pictures) -> dict[str, Any]:
    """Write samples as img2dataset does, one of each tar without an image, for its download failed."""
    folder.mkdir(parents=True)
    names = list(pictures)
    for number, first in enumerate(range(0, len(names), PER_TAR)):
        members: list[tuple[str, bytes]] = []
        for place, name in enumerate(names[first : first + PER_TAR]):
            jpeg, labels = pictures[name]
            key = f"{number:05d}{place:04d}"
            facts = {"key": key, "status": "success", "url": f"https://example.org/{name}", "tags": labels}
            members += [(f"{key}.jpg", jpeg), (f"{key}.txt", b"a caption"), (f"{key}.json", json.dumps(facts).encode())]
        members.append((f"{number:05d}9999.json", b'{"status": "failed_to_download"}'))
        write_tar(folder / f"{number:05d}.tar", members)
        pq.write_table(pa.table({"key": [key], "status": ["success"]}), folder / f"{number:05d}.parquet")
        (folder / f"{number:05d}_stats.json").write_text("{}")
    return {"format": "webdataset", "images": str(folder), "label": "tags"}


TARS: dict[str, Callable[[Path, Pictures], dict[str, Any]]] = {"ShardWriter": by_shard_writer, "img2dataset": by_img2dataset}
