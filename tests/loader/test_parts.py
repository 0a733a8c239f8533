"""A stream from a manifest in parts is the stream from one file, and reads the parts of its own shards only."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rayprob.data.manifest import row_cache
from rayprob.data.manifest.dataset import Dataset, Manifest
from rayprob.data.manifest.parts import Parts
from rayprob.errors import DatasetError
from rayprob.loader.augment import TransformSpec, build_transform
from rayprob.loader.streams import Batch, Cursor, EvalStream, Place, StreamSpec, TrainStream
from tests.data.in_parts import copy_in_parts
from tests.loader.s3 import serve

PAPER = build_transform(TransformSpec(name="paper", size_px=16))
SPEC = StreamSpec(global_batch=8, lanes=4, window_shards=1, loader_workers=0)


@pytest.fixture
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a process hold no more rows than it must."""
    monkeypatch.setattr(row_cache, "LEAST_NEEDED_ROWS", 1)
    monkeypatch.setattr(row_cache, "ONE_FILE_ROWS", 1)


@pytest.fixture
def in_parts(manifest: Manifest, tmp_path: Path) -> str:
    """The dataset of `manifest` with the rows of 5 parts: shards of 9, 5 + 11, 3 + 8, 10 and 7 samples."""
    return str(copy_in_parts(Path(manifest.root), tmp_path / "parts", 9))


def train(manifest: Manifest, **changes: object) -> list[Batch]:
    stream = TrainStream(manifest, SPEC.model_copy(update=changes), PAPER, seed=3, place=Place(), micro_batch=2)
    batches = stream.iterate(Cursor(0, 0))
    try:
        return list(itertools.islice(batches, 2 * stream.batches_per_epoch * stream.micro_batches_per_step))
    finally:
        batches.close()


def evaluate(manifest: Manifest, **changes: object) -> list[Batch]:
    return list(EvalStream(manifest, SPEC.model_copy(update=changes), PAPER, place=Place(1, 2), micro_batch=4))


def assert_same(ours: list[Batch], theirs: list[Batch]) -> None:
    assert len(ours) == len(theirs) > 0
    for our, their in zip(ours, theirs, strict=True):
        assert our.cursor == their.cursor
        for name in ("images_BCHW", "targets_BL", "known_BL", "sample_ids_B"):
            assert torch.equal(getattr(our, name), getattr(their, name)), name


@pytest.mark.parametrize("take", [train, evaluate])
@pytest.mark.parametrize("loader_workers", [0, 2])
def test_a_stream_from_parts_is_bit_equal_to_one_from_a_whole_manifest(
    manifest: Manifest, in_parts: str, few_rows: None, take: Callable[..., list[Batch]], loader_workers: int
) -> None:
    parts = Dataset.open(in_parts).split("train")
    assert_same(take(parts, loader_workers=loader_workers), take(manifest, loader_workers=loader_workers))


def test_a_stream_from_parts_in_an_object_store_is_bit_equal(
    manifest: Manifest, in_parts: str, few_rows: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(Path(in_parts), monkeypatch):
        remote = Dataset.open("s3://shards/data").split("train")
        for loader_workers in (0, 2):
            found = train(remote, cache_dir=str(tmp_path / "cache"), loader_workers=loader_workers)
            assert_same(found, train(manifest))


def test_a_rank_reads_the_parts_of_its_own_shards(in_parts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Dataset.open(in_parts)
    split = dataset.split("train")
    epoch = TrainStream(split, SPEC, PAPER, seed=3, place=Place(2, 4), micro_batch=2)
    own = {shard for request in itertools.islice(epoch._requests(Cursor(0, 0)), 6) for shard in split.shard_of(request.rows_B)}
    expected = {dataset.held.parts.of(int(shard)) for shard in own} | {0}  # the first is read at opening
    assert len(expected) < 5
    read_part, seen = Parts.read, set[int]()

    def counted(parts: Parts, part: int, columns: list[str]) -> object:
        seen.add(part)
        return read_part(parts, part, columns)

    monkeypatch.setattr(Parts, "read", counted)
    monkeypatch.setattr("rayprob.loader.delivery.LOOK_AHEAD", 0)
    stream = TrainStream(Dataset.open(in_parts).split("train"), SPEC, PAPER, seed=3, place=Place(2, 4), micro_batch=2)
    batches = stream.iterate(Cursor(0, 0))
    list(itertools.islice(batches, 6))
    batches.close()
    assert seen == expected


def test_over_the_ranks_of_a_node_every_shard_is_looked_at_before_the_first_batch(manifest: Manifest, in_parts: str) -> None:
    split = Dataset.open(in_parts).split("train")
    path = Path(in_parts) / split.shards[5]
    path.write_bytes(path.read_bytes()[:-1])
    for rank in (0, 2):  # two nodes of two ranks, which may each have a copy of the dataset
        TrainStream(split, SPEC, PAPER, seed=3, place=Place(rank, 4, 2), micro_batch=2)
    for rank in (1, 3):
        with pytest.raises(DatasetError, match=f"{path} has"):
            TrainStream(split, SPEC, PAPER, seed=3, place=Place(rank, 4, 2), micro_batch=2)
