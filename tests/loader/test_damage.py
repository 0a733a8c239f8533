"""Damaged data is always an error, or a counted skip: never a shorter epoch, never other bytes."""

import itertools
import multiprocessing
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rayprob.data.manifest.dataset import Manifest
from rayprob.errors import DataError, DatasetError, RunError, SampleError
from rayprob.loader.augment import Transform, TransformSpec, build_transform
from rayprob.loader.streams import Batch, Cursor, EvalStream, Place, StreamSpec, TrainStream
from tests.loader.tiny import Dying, Writer, photo

RESIZE = build_transform(TransformSpec(name="resize", size_px=16))
SPEC = StreamSpec(global_batch=8, lanes=4, window_shards=2, loader_workers=0)


@pytest.fixture
def copy(manifest: Manifest, tmp_path: Path) -> Manifest:
    """A dataset that the test may damage."""
    shutil.copytree(manifest.root, tmp_path / "copy")
    return replace(manifest, root=str(tmp_path / "copy"))


def evaluate(manifest: Manifest, **changes: object) -> list[Batch]:
    return list(EvalStream(manifest, SPEC.model_copy(update=changes), RESIZE, place=Place(), micro_batch=8))


def train_epoch(manifest: Manifest, transform: Transform = RESIZE, **changes: object) -> list[Batch]:
    train = TrainStream(manifest, SPEC.model_copy(update=changes), transform, seed=0, place=Place(), micro_batch=8)
    batches = train.iterate(Cursor(0, 0))
    try:
        return list(itertools.islice(batches, train.batches_per_epoch))
    finally:
        batches.close()


def images(batches: list[Batch]) -> torch.Tensor:
    return torch.cat([batch.images_BCHW for batch in batches])


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def damage_jpeg(manifest: Manifest, row: int) -> Path:
    path = Path(manifest.root) / manifest.shards[manifest.shard_N[row]]
    flip(path, (int(manifest.offset_bytes_N[row]) + 50) * 8)
    return path


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_flipped_bit_anywhere_in_a_tar_is_an_error(copy: Manifest, data: st.DataObject) -> None:
    path = Path(copy.root) / data.draw(st.sampled_from(copy.shards))
    bit = data.draw(st.integers(0, path.stat().st_size * 8 - 1))
    flip(path, bit)
    try:
        with pytest.raises(DataError, match=rf"(?s){path}.*rayprob verify {copy.root}"):
            evaluate(copy)
        # Without the check of whole shards a bit outside the JPEGs does no harm: every sample still comes, as it was.
        try:
            seen = images(evaluate(copy, check_shards=False))
        except SampleError:
            return
        assert torch.equal(seen, images(evaluate(replace(copy, root=copy.root), check_shards=False)))
        assert len(seen) == len(copy)
    finally:
        flip(path, bit)


@given(data=st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_tar_cut_anywhere_is_an_error_before_the_first_batch(copy: Manifest, data: st.DataObject) -> None:
    path = Path(copy.root) / data.draw(st.sampled_from(copy.shards))
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    try:
        with pytest.raises(DatasetError, match=rf"{path} has [\d,]+ bytes, but {len(content):,} in dataset.json"):
            TrainStream(copy, SPEC, RESIZE, seed=0, place=Place(), micro_batch=8)
    finally:
        path.write_bytes(content)


def test_a_flipped_bit_outside_the_jpegs_is_an_error_before_a_training_epoch_ends(copy: Manifest) -> None:
    flip(Path(copy.root) / copy.shards[3], 8 * 100 + 3)  # in the first tar header, which holds no name there
    with pytest.raises(DatasetError, match=r"has sha256 [0-9a-f]{16}\.\.\., but [0-9a-f]{16}\.\.\. in dataset.json"):
        train_epoch(copy)


def test_a_tar_that_is_cut_while_it_is_read_is_an_error(copy: Manifest) -> None:
    evaluation = EvalStream(copy, SPEC.model_copy(update={"check_shards": False}), RESIZE, place=Place(), micro_batch=8)
    path = Path(copy.root) / copy.shards[-1]
    path.write_bytes(path.read_bytes()[: int(copy.offset_bytes_N[-1]) + 10])
    with pytest.raises(DatasetError, match=rf"sample {copy.sample_ids_N[-1]} .*{path}.*ends after 10 of its [\d,]+ bytes"):
        list(evaluation)


def test_a_missing_shard_is_named(copy: Manifest) -> None:
    path = Path(copy.root) / copy.shards[2]
    path.unlink()
    with pytest.raises(DatasetError, match=rf"cannot open shard {path}: No such file or directory; run `rayprob verify"):
        evaluate(copy)


@pytest.mark.parametrize("loader_workers", [0, 2])
def test_a_sample_with_other_bytes_is_named_as_the_error_it_is(copy: Manifest, loader_workers: int) -> None:
    path = damage_jpeg(copy, 20)
    with pytest.raises(SampleError) as caught:
        evaluate(copy, loader_workers=loader_workers, check_shards=False)
    assert str(caught.value).startswith(
        f"sample {copy.sample_ids_N[20]} ({copy.keys[20]!r} in {path}): its bytes have crc32 0x"
    )
    assert "Traceback" not in str(caught.value)
    assert not multiprocessing.active_children()


def test_loader_workers_outlive_an_interrupt_and_end_with_the_iterator(manifest: Manifest) -> None:
    train = TrainStream(manifest, SPEC.model_copy(update={"loader_workers": 2}), RESIZE, seed=0, place=Place(), micro_batch=2)
    batches = train.iterate(Cursor(3, 2))
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    for process in multiprocessing.active_children():  # Ctrl-C in a terminal reaches them too; the step in hand still ends
        assert process.pid is not None
        os.kill(process.pid, signal.SIGINT)
    assert len(list(itertools.islice(batches, 40))) == 40
    batches.close()
    assert not multiprocessing.active_children()


def test_the_death_of_a_loader_worker_is_a_run_error(manifest: Manifest) -> None:
    with pytest.raises(RunError, match=r"a loader worker died .*; usually memory ran out: lower loader_workers"):
        train_epoch(manifest, Dying(photo(int(manifest.sample_ids_N[7]))), loader_workers=1)


def test_too_little_shared_memory_is_named_before_a_worker_is_killed_for_it(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(RunError, match=r"need 43,008 bytes of shared memory, .* has 1,000 free; lower loader_workers"):
        evaluate(manifest, loader_workers=2)


@pytest.fixture
def with_bad_sources(tmp_path: Path) -> Manifest:
    """10 samples, of which 3 were no whole image when they were built."""
    jpegs = {sample_id: photo(sample_id) for sample_id in range(10)}
    jpegs[2], jpegs[5], jpegs[8] = b"GIF89a", jpegs[5][:-30], b""
    writer = Writer(tmp_path)
    writer.shard("train", jpegs)
    return writer.finish().split("train")


def test_an_image_that_does_not_decode_is_named(with_bad_sources: Manifest) -> None:
    with pytest.raises(
        SampleError,
        match=r"sample 2 .*is a GIF, not a JPEG, PNG or WebP; save one of its frames as PNG, and build the dataset again",
    ):
        evaluate(with_bad_sources)


def test_skipped_samples_keep_their_place_without_known_labels_and_are_counted(
    with_bad_sources: Manifest, caplog: pytest.LogCaptureFixture
) -> None:
    spec = SPEC.model_copy(update={"on_bad_sample": "skip"})
    evaluation = EvalStream(with_bad_sources, spec, RESIZE, place=Place(), micro_batch=4)
    batches = list(evaluation)
    list(evaluation)
    assert torch.cat([batch.sample_ids_B for batch in batches]).tolist() == list(range(10))
    bad_B = torch.tensor([i in (2, 5, 8) for i in range(10)])
    known_BL = torch.cat([batch.known_BL for batch in batches])
    assert not known_BL[bad_B].any()
    assert torch.equal(known_BL[~bad_B], torch.from_numpy(with_bad_sources.known())[~bad_B])
    assert not images(batches)[bad_B].any()
    assert sorted(evaluation.bad_samples) == [2, 5, 8]
    assert sum("skipped sample" in record.message for record in caplog.records) == 3


def test_too_many_bad_samples_are_an_error(with_bad_sources: Manifest) -> None:
    with pytest.raises(DatasetError, match=r"3 bad samples, but max_bad_samples is 2; .*; the last: sample 8"):
        evaluate(with_bad_sources, on_bad_sample="skip", max_bad_samples=2)
