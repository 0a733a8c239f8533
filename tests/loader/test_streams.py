"""The stream as a whole: the same samples and bytes however it is divided, interrupted and worked on."""

import hashlib
import itertools
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rayprob.data.manifest.dataset import Manifest
from rayprob.errors import RunError, SpecError
from rayprob.loader.augment import StrongSpec, TransformSpec, build_transform
from rayprob.loader.order import Cursor, Place, divisors
from rayprob.loader.streams import Batch, EvalStream, StreamSpec, TrainStream
from tests.loader.tiny import Digest, labels_of, unknown_labels_of

STRONG = build_transform(TransformSpec(name="strong", size_px=16, strong=StrongSpec(randaugment_ops=1)))
RESIZE = build_transform(TransformSpec(name="resize", size_px=16))
SPEC = StreamSpec(global_batch=8, lanes=4, window_shards=2, loader_workers=0)

Fact = tuple[Cursor, int, str]


def stream(manifest: Manifest, *, loader_workers: int = 0, place: Place | None = None, micro_batch: int = 2) -> TrainStream:
    spec = SPEC.model_copy(update={"loader_workers": loader_workers})
    return TrainStream(manifest, spec, STRONG, seed=7, place=place or Place(), micro_batch=micro_batch)


def facts(batches: Iterator[Batch]) -> list[Fact]:
    """Return (cursor, sample_id, sha256 of the augmented image) of every sample."""
    return [
        (batch.cursor, int(sample_id), hashlib.sha256(image.permute(1, 2, 0).contiguous().numpy().tobytes()).hexdigest())
        for batch in batches
        for sample_id, image in zip(batch.sample_ids_B, batch.images_BCHW, strict=True)
    ]


def take(train: TrainStream, cursor: Cursor, steps: int) -> list[Fact]:
    batches = train.iterate(cursor)
    try:
        return facts(itertools.islice(batches, steps * train.micro_batches_per_step))
    finally:
        batches.close()


@pytest.fixture(scope="module")
def two_epochs(manifest: Manifest) -> list[Fact]:
    """What one process sees over two epochs: 6 global batches of 8 each."""
    return take(stream(manifest), Cursor(0, 0), 12)


def test_an_epoch_visits_each_sample_at_most_once_and_drops_only_the_last_incomplete_batch(
    manifest: Manifest, two_epochs: list[Fact]
) -> None:
    for epoch in (0, 1):
        ids = [sample_id for cursor, sample_id, _ in two_epochs if cursor.epoch == epoch]
        assert len(ids) == len(set(ids)) == 48 > len(manifest) - 8
        assert set(ids) <= set(manifest.sample_ids_N.tolist())


def test_augmentation_differs_between_epochs(two_epochs: list[Fact]) -> None:
    first, second = ({i: h for cursor, i, h in two_epochs if cursor.epoch == epoch} for epoch in (0, 1))
    both = first.keys() & second.keys()
    assert sum(first[i] != second[i] for i in both) > 0.8 * len(both)


@pytest.mark.parametrize("loader_workers", [1, 3])
def test_the_stream_is_the_same_for_any_number_of_loader_workers(
    manifest: Manifest, two_epochs: list[Fact], loader_workers: int
) -> None:
    assert take(stream(manifest, loader_workers=loader_workers), Cursor(0, 0), 12) == two_epochs


@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("micro_batch", [1, 2])
def test_global_batches_are_the_same_for_any_world_size(
    manifest: Manifest, two_epochs: list[Fact], world_size: int, micro_batch: int
) -> None:
    parts = [
        take(stream(manifest, place=Place(rank, world_size), micro_batch=micro_batch), Cursor(0, 0), 12)
        for rank in range(world_size)
    ]
    assert sorted(itertools.chain(*parts)) == sorted(two_epochs)
    assert len({len(part) for part in parts}) == 1


@pytest.mark.parametrize("steps", range(12))
def test_a_resumed_stream_equals_the_uninterrupted_stream(manifest: Manifest, two_epochs: list[Fact], steps: int) -> None:
    train, cursor = stream(manifest, micro_batch=4), Cursor(0, 0)
    for _ in range(steps):
        cursor = train.next(cursor)
    assert take(train, cursor, 12 - steps) == two_epochs[8 * steps :]


def test_a_stream_stopped_with_loader_workers_goes_on_without_them(manifest: Manifest, two_epochs: list[Fact]) -> None:
    state = torch.get_rng_state()
    begun = take(stream(manifest, loader_workers=2), Cursor(0, 0), 5)
    assert torch.equal(torch.get_rng_state(), state), "the model's random numbers would depend on the loader"
    assert begun + take(stream(manifest), Cursor(0, 5), 7) == two_epochs


@given(
    lanes=st.sampled_from([4, 8]),
    per_lane=st.integers(1, 4),
    window=st.integers(1, 8),
    seed=st.integers(0, 2**40),
    stop=st.integers(0, 11),
    data=st.data(),
)
@settings(max_examples=40, deadline=None)
def test_no_layout_rank_or_stop_changes_the_stream(
    manifest: Manifest, lanes: int, per_lane: int, window: int, seed: int, stop: int, data: st.DataObject
) -> None:
    spec = StreamSpec(global_batch=lanes * per_lane, lanes=lanes, window_shards=window, loader_workers=0, check_shards=False)
    whole = TrainStream(manifest, spec, Digest(), seed=seed, place=Place(), micro_batch=spec.global_batch)
    expected = take(whole, Cursor(0, 0), 12)
    cursor = Cursor(0, 0)
    for _ in range(stop):
        cursor = whole.next(cursor)
    world_size = data.draw(st.sampled_from([1, 2, 4]))
    micro_batch = data.draw(st.sampled_from(divisors(spec.global_batch // world_size)))
    ranks = [
        TrainStream(manifest, spec, Digest(), seed=seed, place=Place(rank, world_size), micro_batch=micro_batch)
        for rank in range(world_size)
    ]
    resumed = [fact for rank in ranks for fact in take(rank, cursor, 12 - stop)]
    assert sorted(resumed) == sorted(expected[stop * spec.global_batch :])


@pytest.mark.parametrize("kept_of_seven", [0, 1, 4, 7])
def test_batches_that_are_kept_stay_as_they_were(manifest: Manifest, kept_of_seven: int) -> None:
    batches = stream(manifest, loader_workers=1).iterate(Cursor(0, 0))
    kept: list[tuple[torch.Tensor, bytes]] = []
    for place, batch in enumerate(itertools.islice(batches, 60)):
        # A view is all that is kept, and what it shows is noted at once.
        view = batch.images_BCHW[0, 1]
        if place % 7 < kept_of_seven:
            kept.append((view, view.numpy().tobytes()))
    batches.close()
    assert all(view.numpy().tobytes() == noted for view, noted in kept)


def test_memory_does_not_grow_over_epochs(manifest: Manifest) -> None:
    spec = SPEC.model_copy(update={"loader_workers": 1})
    train = TrainStream(manifest, spec, RESIZE, seed=0, place=Place(), micro_batch=8)
    held_kib = {}
    for batch in train.iterate(Cursor(0, 0)):
        if batch.cursor.batch == 0 and batch.cursor.epoch in (40, 240):
            held_kib[batch.cursor.epoch] = sum(map(resident_kib, [os.getpid(), *loader_worker_ids()]))
        if batch.cursor.epoch == 240:
            break
    assert held_kib[240] - held_kib[40] < 2048


def loader_worker_ids() -> list[int]:
    return [process.pid for process in multiprocessing.active_children() if process.pid]


def resident_kib(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


def test_micro_batches_in_order_make_up_the_rank_part(manifest: Manifest, two_epochs: list[Fact]) -> None:
    for micro_batch in (1, 4, 8):
        assert take(stream(manifest, micro_batch=micro_batch), Cursor(0, 0), 12) == two_epochs


def test_batches_carry_targets_and_known_labels(manifest: Manifest) -> None:
    batch = next(stream(manifest, micro_batch=8).iterate(Cursor(0, 0)))
    assert batch.images_BCHW.shape == (8, 3, 16, 16)
    assert len(batch) == 8
    for sample_id, target_L, known_L in zip(batch.sample_ids_B, batch.targets_BL, batch.known_BL, strict=True):
        assert np.flatnonzero(target_L).tolist() == labels_of(int(sample_id))
        assert np.flatnonzero(~known_L.numpy()).tolist() == unknown_labels_of(int(sample_id))


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_evaluation_visits_every_sample_exactly_once_for_any_world_size(manifest: Manifest, world_size: int) -> None:
    seen: list[int] = []
    for rank in range(world_size):
        evaluation = EvalStream(manifest, SPEC, RESIZE, place=Place(rank, world_size), micro_batch=4)
        batches = list(evaluation)
        assert len(batches) == len(evaluation)
        seen += [int(i) for batch in batches for i in batch.sample_ids_B]
    assert seen == manifest.sample_ids_N.tolist()


def test_evaluation_can_be_repeated_and_is_the_same_with_loader_workers(manifest: Manifest) -> None:
    alone = EvalStream(manifest, SPEC, RESIZE, place=Place(), micro_batch=8)
    helped = EvalStream(manifest, SPEC.model_copy(update={"loader_workers": 2}), RESIZE, place=Place(), micro_batch=8)
    assert facts(alone) == facts(alone) == facts(helped) == facts(helped)


def test_sizes_that_do_not_fit_fail_before_the_first_batch(manifest: Manifest) -> None:
    with pytest.raises(
        SpecError, match=r"placement.num_workers 3 does not divide stream.lanes 4; set placement.num_workers to 2"
    ):
        stream(manifest, place=Place(0, 3))
    with pytest.raises(
        SpecError,
        match=r"placement.micro_batch 3 x 2 workers does not divide stream.global_batch 8; set .* to 4",
    ):
        stream(manifest, place=Place(0, 2), micro_batch=3)
    with pytest.raises(SpecError, match=r"53 samples, fewer than one stream.global_batch of 64"):
        TrainStream(manifest, StreamSpec(), STRONG, seed=0, place=Place(), micro_batch=8)


def test_a_cursor_of_another_run_is_refused(manifest: Manifest) -> None:
    with pytest.raises(RunError, match=r"batch=6.*outside an epoch of 6 global batches"):
        stream(manifest).iterate(Cursor(0, 6))
