"""The stream from an object store: the same as from a folder, whatever the network does."""

import itertools
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rayprob.data.manifest.dataset import Dataset, Manifest
from rayprob.errors import SpecError, StorageError
from rayprob.loader.augment import TransformSpec, build_transform
from rayprob.loader.streams import Batch, Cursor, EvalStream, Place, StreamSpec, TrainStream
from tests.loader.s3 import Proxy, serve

PAPER = build_transform(TransformSpec(name="paper", size_px=16))


@pytest.fixture(scope="module")
def proxy(manifest: Manifest) -> Iterator[Proxy]:
    """The dataset of `manifest` as s3://shards/data."""
    with pytest.MonkeyPatch.context() as monkeypatch, serve(Path(manifest.root), monkeypatch) as server:
        yield server


@pytest.fixture
def remote(proxy: Proxy) -> Manifest:
    proxy.faults.clear()
    proxy.downloads = 0
    return Dataset.open("s3://shards/data").split("train")


@pytest.fixture
def spec(tmp_path: Path) -> StreamSpec:
    return StreamSpec(global_batch=8, lanes=4, window_shards=1, loader_workers=0, cache_dir=str(tmp_path / "cache"), retries=4)


def take(manifest: Manifest, spec: StreamSpec, steps: int = 12) -> list[Batch]:
    train = TrainStream(manifest, spec, PAPER, seed=3, place=Place(), micro_batch=8)
    batches = train.iterate(Cursor(0, 0))
    try:
        return list(itertools.islice(batches, steps))
    finally:
        batches.close()


def assert_same(ours: list[Batch], theirs: list[Batch]) -> None:
    assert len(ours) == len(theirs)
    for our, their in zip(ours, theirs, strict=True):
        assert our.cursor == their.cursor
        assert torch.equal(our.sample_ids_B, their.sample_ids_B)
        assert torch.equal(our.images_BCHW, their.images_BCHW)


@pytest.mark.parametrize("loader_workers", [0, 2])
def test_a_remote_stream_equals_the_local_one_and_fetches_each_shard_once(
    manifest: Manifest, remote: Manifest, proxy: Proxy, spec: StreamSpec, loader_workers: int
) -> None:
    spec = spec.model_copy(update={"loader_workers": loader_workers})
    assert_same(take(remote, spec), take(manifest, spec))
    assert proxy.downloads == len(manifest.shards)
    assert_same(take(remote, spec), take(manifest, spec))
    assert proxy.downloads == len(manifest.shards)


@pytest.mark.parametrize("fault", ["500", "reset", "truncate", "flip"])
def test_faults_of_the_network_leave_the_stream_as_it_is(
    manifest: Manifest, remote: Manifest, proxy: Proxy, spec: StreamSpec, fault: str
) -> None:
    proxy.faults += [fault, "", fault, fault]
    assert_same(take(remote, spec, 6), take(manifest, spec, 6))
    assert not proxy.faults


def test_a_cache_smaller_than_the_dataset_still_gives_every_sample(
    manifest: Manifest, remote: Manifest, spec: StreamSpec
) -> None:
    sizes_bytes = sorted(path.stat().st_size for path in Path(manifest.root).glob("*.tar"))
    spec = spec.model_copy(update={"cache_bytes": sum(sizes_bytes[-4:])})
    assert_same(take(remote, spec), take(manifest, spec))
    assert sum(path.stat().st_size for path in Path(spec.cache_dir).iterdir()) <= spec.cache_bytes


def test_evaluation_reads_from_an_object_store(manifest: Manifest, remote: Manifest, spec: StreamSpec) -> None:
    seen = [
        int(sample_id)
        for rank in range(2)
        for batch in EvalStream(remote, spec, PAPER, place=Place(rank, 2), micro_batch=8)
        for sample_id in batch.sample_ids_B
    ]
    assert seen == manifest.sample_ids_N.tolist()


def test_a_store_that_stays_broken_is_named_with_attempts_and_reason(
    remote: Manifest, proxy: Proxy, spec: StreamSpec, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    proxy.faults += ["flip"] * 100
    with pytest.raises(
        StorageError,
        match=r"cannot fetch s3://shards/data/train-\d+\.tar: 2 attempts failed; the last error: its body has sha256",
    ):
        take(remote, spec.model_copy(update={"retries": 1}))
    assert not list(Path(spec.cache_dir).glob("*.tar"))


def test_a_damaged_copy_in_the_cache_is_fetched_again(manifest: Manifest, remote: Manifest, spec: StreamSpec) -> None:
    expected = take(remote, spec)
    for place, path in enumerate(Path(spec.cache_dir).glob("*.tar")):
        path.write_bytes(bytes(path.stat().st_size if place % 2 else 1000))
    assert_same(take(remote, spec), expected)


def test_a_cache_below_a_window_is_refused_before_the_first_batch(remote: Manifest, spec: StreamSpec) -> None:
    with pytest.raises(SpecError, match=r"cache_bytes 1,000 cannot hold .* \(4 lanes x window_shards 1\); set at least [\d,]+"):
        TrainStream(remote, spec.model_copy(update={"cache_bytes": 1000}), PAPER, seed=0, place=Place(), micro_batch=8)
    with pytest.raises(SpecError, match=r"cache_bytes 1,000 cannot hold .* \(one for each of its ranks\)"):
        EvalStream(remote, spec.model_copy(update={"cache_bytes": 1000}), PAPER, place=Place(), micro_batch=8)


def test_a_local_dataset_is_never_copied(manifest: Manifest, spec: StreamSpec) -> None:
    take(replace(manifest, root=f"file://{manifest.root}"), spec, 2)
    assert not Path(spec.cache_dir).exists()
