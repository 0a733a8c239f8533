"""Images with the same bytes, found when all shards are written: by checksum and size first, then by the bytes. N images.

Of images with the same bytes one is kept: the one whose split comes last of train, holdout and then the others in the recipe's
order, so that nothing is evaluated on an image that was trained on; within a split, the one with the smallest sample id. Where
a dataset grows, its samples stay, and a new image with the bytes of one of them is the copy.
"""

import hashlib
import json
import logging
import tarfile
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import chain
from typing import IO, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rayprob.arrays import Rows
from rayprob.data.building.before import Before
from rayprob.data.building.list_files import ATTEMPTS, COPIES_FILE, remove_list, write_list
from rayprob.data.building.recipe import HOLDOUT, Recipe
from rayprob.data.building.shard import Copy
from rayprob.data.building.tar import RECORD_BYTES
from rayprob.data.manifest.columns import numbers, to_array
from rayprob.data.manifest.shard_list import shard_uri
from rayprob.errors import DatasetError, SourceError, one_line
from rayprob.files import storage
from rayprob.text import first_of

log = logging.getLogger(__name__)
READERS = 16  # shards that are read at a time, mostly waiting for an object store
Tables = Callable[[], Iterable[pa.Table]]


@dataclass(frozen=True)
class _Image:
    """An image as its shard has it."""

    sample_id: int
    split: str
    shard: str
    file_name: str
    labels: tuple[int, ...]
    sha256: str


def find_copies(
    recipe: Recipe, tables: Tables, in_place: Container[str] = (), stays: Callable[[int], bool] = lambda sample_id: False
) -> list[Copy]:
    """Return the images whose bytes another, kept image has; `tables` yields the rows of each shard, and is called twice.

    Shards named in `in_place` are tars read in place, where the name of an image is its key. Samples for which `stays` is true
    are always kept, so they are not returned. Memory is 16 bytes per image; only images with equal checksum and size are read.
    Raises StorageError, and DatasetError if a shard is damaged.
    """
    keys_N = np.concatenate([np.zeros(0, np.uint64), *map(_keys, tables())])
    keys_N.sort()
    twice = np.unique(keys_N[1:][keys_N[1:] == keys_N[:-1]])
    if not len(twice):
        return []
    wanted = [few for table in tables() if len(few := _rows_with(table, twice))]
    of_content: dict[str, list[_Image]] = defaultdict(list)
    with ThreadPoolExecutor(READERS) as pool:
        for image in chain.from_iterable(pool.map(lambda rows: list(_read(recipe.root, rows, in_place)), wanted)):
            of_content[image.sha256].append(image)
    rank = {split: place for place, split in enumerate(evaluated_last(recipe))}
    alike = [
        sorted(some, key=lambda image: (not stays(image.sample_id), -rank[image.split], image.sample_id))
        for some in of_content.values()
    ]
    copies = (copy for kept, *others in alike for copy in _copies(kept, others) if not stays(copy.sample_id))
    return sorted(copies, key=lambda one: (one.shard, one.sample_id))


def evaluated_last(recipe: Recipe) -> list[str]:
    """Return the splits: the one that is trained on, holdout, then the others in the recipe's order."""
    names = recipe.split_names
    train = [recipe.holdout.of, HOLDOUT] if recipe.holdout else [name for name in names if name == "train"]
    return [*train, *(name for name in names if name not in train)]


def handle_copies(
    recipe: Recipe, copies: Sequence[Copy], dropped: Sequence[Copy], before: Before | None = None
) -> dict[str, Any]:
    """List copies in a file of the dataset, and return their entries for dataset.json: nothing if there are none.

    Those of a dataset that grows, `before`, come first. Copies that stay are logged as a warning, or with `duplicates: fail`
    raised as a SourceError.
    """
    new = _listed(recipe, [*copies, *dropped])
    if copies and recipe.duplicates == "fail":
        listed = write_list(recipe.root, ATTEMPTS[COPIES_FILE] if before else COPIES_FILE, new)
        raise SourceError(
            f"{_described(copies)}; all of them: {listed}; remove them from the source, or write duplicates: drop"
        )
    found = [*(before.copies if before else ()), *new]
    if not found:
        remove_list(recipe.root, COPIES_FILE)
        return {}
    listed = write_list(recipe.root, COPIES_FILE, found)
    if copies:
        log.warning("%s; all of them: %s; `duplicates: drop` in the recipe leaves them out", _described(copies), listed)
    return _facts(found)


def tell_dropped(recipe: Recipe, dropped: Sequence[Copy]) -> None:
    """Log and list the copies that a build dropped which added nothing to a dataset."""
    if dropped:
        listed = write_list(recipe.root, ATTEMPTS[COPIES_FILE], _listed(recipe, dropped))
        log.warning("%s; they are left out; all of them: %s", _described(dropped), listed)


def _listed(recipe: Recipe, copies: Iterable[Copy]) -> list[dict[str, Any]]:
    ordered = sorted(copies, key=lambda copy: (copy.split, copy.sample_id))
    return [{**asdict(copy), "dropped": recipe.duplicates == "drop"} for copy in ordered]


def _facts(copies: Sequence[dict[str, Any]]) -> dict[str, Any]:
    pairs = Counter((copy["split"], copy["kept_split"]) for copy in copies)
    return {
        "images": len(copies),
        "dropped": sum(copy["dropped"] for copy in copies),
        "other_labels": sum(copy["other_labels"] for copy in copies),
        "splits": [{"split": split, "of": of, "images": count} for (split, of), count in sorted(pairs.items())],
    }


def _described(copies: Sequence[Copy]) -> str:
    across = [copy for copy in copies if copy.split != copy.kept_split]
    examples = [f"{copy.file_name} ({copy.split}) = {copy.kept_file_name} ({copy.kept_split})" for copy in across or copies]
    return (
        f"{len(copies):,} images have the same bytes as another one, {len(across):,} of them as one in another split: "
        f"{first_of(examples, 3)}"
    )


def _copies(kept: _Image, others: Iterable[_Image]) -> Iterator[Copy]:
    for image in others:
        yield Copy(
            sample_id=image.sample_id,
            split=image.split,
            shard=image.shard,
            file_name=image.file_name,
            kept_id=kept.sample_id,
            kept_split=kept.split,
            kept_file_name=kept.file_name,
            other_labels=image.labels != kept.labels,
        )


def _keys(table: pa.Table) -> NDArray[np.uint64]:
    """Return the checksum and size of each image in one number [N]."""
    found: NDArray[np.uint64] = numbers(table["crc32"]).astype(np.uint64) << np.uint64(32)
    return found | (numbers(table["size_bytes"]).astype(np.uint64) & np.uint64(2**32 - 1))


def _rows_with(table: pa.Table, keys: NDArray[np.uint64]) -> list[dict[str, Any]]:
    rows: Rows = np.flatnonzero(np.isin(_keys(table), keys))
    columns = ["sample_id", "split", "shard", "key", "offset_bytes", "size_bytes", "labels"]
    return table.select(columns).take(to_array(rows.tolist(), pa.int64())).to_pylist() if len(rows) else []


def _read(root: str, rows: Sequence[dict[str, Any]], in_place: Container[str]) -> Iterator[_Image]:
    """Yield images of one shard with a hash of their bytes and their name, which in our shards the member after each states."""
    uri = shard_uri(root, rows[0]["shard"])
    with storage.open_input_file(uri) as file:
        for row in rows:
            file.seek(row["offset_bytes"])
            content = file.read(row["size_bytes"])
            file.seek(row["offset_bytes"] + row["size_bytes"] + -row["size_bytes"] % RECORD_BYTES)
            name = row["key"] if row["shard"] in in_place else _beside(file, uri)["file_name"]
            place = (row["sample_id"], row["split"], row["shard"], name, tuple(row["labels"]))
            yield _Image(*place, hashlib.sha256(content).hexdigest())


def _beside(file: IO[bytes], uri: str) -> dict[str, Any]:
    try:
        header = tarfile.TarInfo.frombuf(file.read(RECORD_BYTES), "utf-8", "strict")
        found: dict[str, Any] = json.loads(file.read(header.size))
    except (tarfile.TarError, ValueError) as error:
        raise DatasetError(
            f"{uri} changed while it was built ({one_line(error)}); remove it and run the same command"
        ) from error
    return found
