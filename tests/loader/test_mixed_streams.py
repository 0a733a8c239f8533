"""A stream over several datasets: exact counts, one order for any division, resumable, each dataset as it was built."""

import itertools
import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from rayprob.data.joined.dataset import AnySplit, JoinedDataset, open_datasets
from rayprob.data.joined.split import JoinedSplit
from rayprob.data.manifest.dataset import Dataset
from rayprob.errors import RunError, SpecError
from rayprob.images.decode import EncodedImage
from rayprob.images.reading import READ_AS_STORED, READ_UPRIGHT
from rayprob.loader.order import Cursor, Place
from rayprob.loader.streams import Batch, EvalStream, StreamSpec, TrainStream
from tests.loader.s3 import serve
from tests.loader.tiny import Digest, write_dataset

SPEC = StreamSpec(global_batch=19, lanes=1, window_shards=2, loader_workers=0)
IN_LANES = StreamSpec(global_batch=8, lanes=4, window_shards=2, loader_workers=0)
Fact = tuple[Cursor, int, tuple[int, ...]]


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two datasets with the same sample ids, names of shards and first images: 25 and 21 samples; one label is in both."""
    folders = [tmp_path_factory.mktemp(name) for name in "ab"]
    write_dataset(folders[0], [9, 5, 11])
    write_dataset(folders[1], [3, 8, 10])
    (folders[1] / "labels.json").write_text(json.dumps({"names": ["cat", "car", "dog"], "category_ids": [1, 2, 3]}))
    return str(folders[0]), str(folders[1])


def mixed(roots: tuple[str, ...], *weights: float) -> JoinedSplit:
    found = open_datasets(roots, weights).split("train")
    assert isinstance(found, JoinedSplit)
    return found


def stream(split: AnySplit, spec: StreamSpec = IN_LANES, place: Place | None = None, micro_batch: int = 2) -> TrainStream:
    return TrainStream(split, spec, Digest(), seed=7, place=place or Place(), micro_batch=micro_batch)


def take(train: TrainStream, cursor: Cursor, steps: int) -> list[Fact]:
    batches = train.iterate(cursor)
    try:
        return facts(list(itertools.islice(batches, steps * train.micro_batches_per_step)))
    finally:
        batches.close()


def facts(batches: list[Batch]) -> list[Fact]:
    """Return the cursor, the sample id and one pixel, which depends on the bytes and the augmentation, of every sample."""
    return [
        (batch.cursor, int(sample_id), tuple(pixel.tolist()))
        for batch in batches
        for sample_id, pixel in zip(batch.sample_ids_B, batch.images_BCHW[:, :, 0, 0], strict=True)
    ]


def test_one_dataset_joined_is_that_dataset(roots: tuple[str, str]) -> None:
    plain = Dataset.open(roots[0])
    alone = JoinedDataset((plain,), (1.0,))
    expected = take(stream(plain.split("train")), Cursor(0, 0), 9)
    assert take(stream(alone.split("train")), Cursor(0, 0), 9) == expected
    assert stream(alone.split("train")).state_dict() == stream(plain.split("train")).state_dict()
    assert isinstance(open_datasets(roots[:1], [1]), Dataset)


def test_every_sample_is_seen_as_often_as_its_weight_says(roots: tuple[str, str]) -> None:
    split = mixed(roots, 2, 1 / 3)
    first, second = np.split(split.sample_ids(), [25])
    seen = take(stream(split, SPEC, micro_batch=19), Cursor(0, 0), 9)  # three epochs of 2 x 25 + 7
    for epoch in range(3):
        counts = Counter(sample_id for cursor, sample_id, _ in seen if cursor.epoch == epoch)
        assert {counts[one] for one in first.tolist()} == {2}
        assert sum(counts[one] for one in second.tolist()) == 7
    assert Counter(sample_id for _, sample_id, _ in seen) == {
        **dict.fromkeys(first.tolist(), 6),
        **dict.fromkeys(second.tolist(), 1),
    }
    pixels = {one: {pixel for _, sample_id, pixel in seen if sample_id == one} for one in first.tolist()}
    assert min(map(len, pixels.values())) >= 5, "a sample seen twice in an epoch is augmented anew"


def test_equal_ids_of_two_datasets_become_different_and_those_of_the_first_stay(roots: tuple[str, str]) -> None:
    split = mixed(roots, 1, 1)
    own = [Dataset.open(root).split("train").sample_ids() for root in roots]
    assert set(own[1].tolist()) <= set(own[0].tolist())
    assert len(set(split.sample_ids().tolist())) == 46
    assert split.sample_ids()[:25].tolist() == own[0].tolist()
    assert split.sample_ids().min() >= 0
    assert [sample.sample_id for sample in split.samples(np.arange(46))] == split.sample_ids().tolist()
    masks = split.sample_ids()[25:] ^ own[1]
    assert len(set(masks.tolist())) == 1, "the id in its dataset can be told from that in the stream"


@pytest.mark.parametrize("world_size", [2, 4])
def test_global_batches_are_the_same_for_any_world_size(roots: tuple[str, str], world_size: int) -> None:
    split = mixed(roots, 1.5, 0.4)
    whole = take(stream(split), Cursor(0, 0), 12)
    parts = [take(stream(split, place=Place(rank, world_size), micro_batch=1), Cursor(0, 0), 12) for rank in range(world_size)]
    assert sorted(itertools.chain(*parts)) == sorted(whole)


def test_a_resumed_stream_equals_the_uninterrupted_one_at_every_step(roots: tuple[str, str]) -> None:
    split = mixed(roots, 1.5, 0.4)
    whole, cursor = take(stream(split), Cursor(0, 0), 15), Cursor(0, 0)
    for step in range(15):
        assert take(stream(split), cursor, 15 - step) == whole[8 * step :]
        cursor = stream(split).next(cursor)
    assert cursor.epoch >= 2


def test_a_state_is_taken_up_with_the_same_datasets_and_weights_only(roots: tuple[str, str]) -> None:
    split = mixed(roots, 1, 0.5)
    begun = stream(split)
    batches = iter(begun)
    for _ in range(3 * begun.micro_batches_per_step):
        next(batches)
    batches.close()
    state = begun.state_dict()
    resumed = stream(split)
    resumed.load_state_dict(state)
    rest = iter(resumed)
    assert facts([next(rest) for _ in range(4)]) == take(stream(split), Cursor(0, 3), 1)
    rest.close()
    with pytest.raises(RunError, match=r"weights is 1, 2, in the state 1, 0\.5"):
        stream(mixed(roots, 1, 2)).load_state_dict(state)
    with pytest.raises(RunError, match="dataset is "):
        stream(mixed(roots[::-1], 1, 0.5)).load_state_dict(state)


def test_labels_that_a_dataset_lacks_are_unknown_in_its_batches(roots: tuple[str, str]) -> None:
    split = mixed(roots, 1, 1)
    assert split.label_space.names == ("person", "bicycle", "car", "cat", "dog")
    own = [Dataset.open(root).split("train") for root in roots]
    batches = list(EvalStream(split, SPEC, Digest(), place=Place(), micro_batch=20))
    known_NL, targets_NL = (
        np.concatenate([getattr(batch, name).numpy() for batch in batches]) for name in ("known_BL", "targets_BL")
    )
    for rows, columns, other, one in ((slice(25), [0, 1, 2], [3, 4], own[0]), (slice(25, 46), [3, 2, 4], [0, 1], own[1])):
        assert (known_NL[rows][:, columns] == one.known()).all()
        assert (targets_NL[rows][:, columns] == one.targets()).all()
        assert not known_NL[rows][:, other].any()
        assert not targets_NL[rows][:, other].any()
    present_L, known_L = split.label_counts()
    assert known_L.tolist() == known_NL.sum(axis=0).tolist()
    assert present_L.tolist() == (targets_NL & known_NL).sum(axis=0).tolist()


def test_evaluation_sees_every_sample_once_over_all_ranks(roots: tuple[str, str]) -> None:
    split = mixed(roots, 3, 0.1)
    parts = [facts(list(EvalStream(split, SPEC, Digest(), place=Place(rank, 3), micro_batch=4))) for rank in range(3)]
    assert [sample_id for part in parts for _, sample_id, _ in part] == split.sample_ids().tolist()


@dataclass(frozen=True)
class Readings:
    """A transform that shows how an image is to be read."""

    size_px: int = 1

    def __call__(self, image: EncodedImage, seed: int, into: np.ndarray | None = None) -> np.ndarray:
        return np.full((1, 1, 3), image.reading == READ_UPRIGHT, dtype=np.uint8)


def test_each_dataset_is_read_as_it_was_built(roots: tuple[str, str], tmp_path: Path) -> None:
    datasets = [Dataset.open(root) for root in roots]
    upright = replace(datasets[1], facts={**datasets[1].facts, "orientation": "upright"})
    joined = JoinedDataset((datasets[0], upright), (1.0, 1.0))
    (batch,) = EvalStream(joined.split("train"), SPEC, Readings(), place=Place(), micro_batch=46)
    assert batch.images_BCHW[:, 0, 0, 0].tolist() == [0] * 25 + [1] * 21
    assert joined.reading == READ_AS_STORED
    assert any("read as in" in sentence for sentence in joined.sentences("train", "train"))


def test_too_few_samples_for_a_batch_count_by_weight(roots: tuple[str, str]) -> None:
    stream(mixed(roots, 2, 1), SPEC.model_copy(update={"global_batch": 71}), micro_batch=71)
    with pytest.raises(SpecError, match=r"split train has 71 samples, fewer than one stream\.global_batch of 72"):
        stream(mixed(roots, 2, 1), SPEC.model_copy(update={"global_batch": 72}), micro_batch=72)


def test_local_and_remote_datasets_mix(roots: tuple[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    expected = take(stream(mixed(roots, 1, 0.5)), Cursor(0, 0), 8)
    with serve(Path(roots[1]), monkeypatch):
        spec = IN_LANES.model_copy(update={"cache_dir": str(tmp_path)})
        assert take(stream(mixed((roots[0], "s3://shards/data"), 1, 0.5), spec), Cursor(0, 0), 8) == expected
    assert len(list(tmp_path.glob("*.tar"))) == 3
