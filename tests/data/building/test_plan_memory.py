"""What the driver keeps of an image while it reads and plans: ids, sizes and places, at most 64 bytes."""

import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayprob import seeds
from rayprob.data.building.plan import plan
from rayprob.data.building.recipe import Recipe
from rayprob.data.sources import batch_file, coco, coco_stream, json_stream, statements, table_file
from rayprob.data.sources.source import read_source
from rayprob.files import storage
from rayprob.files.folders import Files

MOST_BYTES = 64
Write = Callable[[Path, int], dict[str, str]]


def table(folder: Path, num_rows: int) -> dict[str, str]:
    names = [f"{row:09d}.jpg" for row in range(num_rows)]
    labels = [[f"label{row % 7}", f"label{row % 11}"] for row in range(num_rows)]
    pq.write_table(pa.table({"image": names, "labels": labels}), folder / "a.parquet")
    return {"format": "table", "annotations": str(folder / "a.parquet"), "lists": "labels"}


def rows_of_labels(folder: Path, num_rows: int) -> dict[str, str]:
    names = [f"{row % num_rows:09d}.jpg" for row in range(2 * num_rows)]
    pq.write_table(
        pa.table({"image": names, "label": [f"label{row % 7}" for row in range(2 * num_rows)]}), folder / "b.parquet"
    )
    return {"format": "table", "annotations": str(folder / "b.parquet"), "label": "label"}


def annotations(folder: Path, num_rows: int) -> dict[str, str]:
    images = ", ".join(f'{{"id": {row}, "file_name": "{row:09d}.jpg"}}' for row in range(num_rows))
    boxes = ", ".join(f'{{"image_id": {row % num_rows}, "category_id": {row % 7}}}' for row in range(2 * num_rows))
    categories = ", ".join(f'{{"id": {label}, "name": "label{label}"}}' for label in range(7))
    text = f'{{"images": [{images}], "annotations": [{boxes}], "categories": [{categories}]}}'
    (folder / "a.json").write_text(text)
    return {"annotations": str(folder / "a.json")}


def chunks(num_rows: int) -> Iterator[Files]:
    for start in range(0, num_rows, 256):
        yield [(f"{row:09d}.jpg", 1000) for row in range(start, min(start + 256, num_rows))]


@pytest.mark.parametrize("write", [table, rows_of_labels, annotations])
def test_the_driver_keeps_at_most_64_bytes_of_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write) -> None:
    for module, name, value in (
        (batch_file, "HELD_BYTES", 2**12),
        (batch_file, "GROUP_BYTES", 2**16),
        (statements, "GROUP_BYTES", 2**16),
        (statements, "IMAGES_ROWS", 256),
        (table_file, "BATCH_ROWS", 256),
        (coco, "STREAMED_BYTES", 0),
        (coco_stream, "CHUNK_ROWS", 256),
        (coco_stream, "GROUP_CHUNKS", 1),
        (json_stream, "WINDOW_BYTES", 2**13),
        (seeds, "CHUNK", 256),
    ):
        monkeypatch.setattr(module, name, value)
    smaller, larger = (peak_bytes(tmp_path, monkeypatch, write, num_rows) for num_rows in (1500, 4500))
    assert (larger - smaller) / 3000 <= MOST_BYTES


def peak_bytes(folder: Path, monkeypatch: pytest.MonkeyPatch, write: Write, num_rows: int) -> int:
    """Return the largest number of bytes in use while a source of that many rows is read and planned."""
    monkeypatch.setattr(storage, "walk_below", lambda *_: (chunks(num_rows), {}, ()))
    split = {"images": str(folder), **write(folder, num_rows)}
    keys = {"name": "x", "splits": {"train": split}, "target": str(folder / "built"), "max_shard_samples": 256}
    recipe = Recipe.parse(keys)
    tracemalloc.start()
    try:
        shards = plan(read_source(recipe).images, recipe)
        assert sum(shard.num_samples for shard in shards.outlines) == num_rows
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
