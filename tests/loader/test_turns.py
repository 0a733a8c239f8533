"""The ring of a dataset: every sample as often as its weight says, in every epoch and over all of them."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rayprob.loader.turns import Ring, pieces_of


def taken(rings: list[Ring], seed: int, epoch: int) -> list[tuple[int, int]]:
    """Return (turn, row) of every sample that an epoch takes."""
    pieces = pieces_of(rings, seed=seed, epoch=epoch)
    numbers = np.concatenate(
        [np.arange(first, first + samples) for first, samples in zip(pieces.firsts_P, pieces.samples_P, strict=True)]
    ).astype(np.int64)
    turns, rows = pieces.turns_and_rows(numbers)
    return list(zip(turns.tolist(), rows.tolist(), strict=True))


def test_one_dataset_seen_once_is_its_shards_in_order() -> None:
    lengths = np.array([3, 0, 5, 2])
    pieces = pieces_of([Ring(lengths, 10)], seed=1, epoch=4)
    assert pieces.samples_P.tolist() == lengths.tolist()
    assert (pieces.firsts_P - 4 * 10).tolist() == [0, 3, 3, 8]


@given(
    lengths=st.lists(st.integers(0, 6), min_size=1, max_size=8).filter(any),
    share=st.integers(1, 60),
    seed=st.integers(0, 9),
    epochs=st.integers(1, 12),
)
def test_every_sample_is_taken_equally_often_or_once_more(lengths: list[int], share: int, seed: int, epochs: int) -> None:
    num_samples, total = sum(lengths), Counter[int]()
    rings = [Ring(np.array(lengths), share)]
    seen: set[tuple[int, int]] = set()
    for epoch in range(epochs):
        found = taken(rings, seed, epoch)
        assert len(found) == share
        counts = Counter(row for _, row in found)
        assert {counts[row] for row in range(num_samples)} <= {share // num_samples, -(-share // num_samples)}
        assert not seen & set(found), "a turn would show the same augmentation of a sample twice"
        seen |= set(found)
        total += counts
    assert {total[row] for row in range(num_samples)} <= {epochs * share // num_samples, -(-epochs * share // num_samples)}


def test_datasets_lie_one_after_the_other_and_keep_their_own_pace() -> None:
    rings = [Ring(np.array([2, 2]), 8), Ring(np.array([3, 3]), 2)]
    by_epoch = [Counter(row for _, row in taken(rings, 0, epoch)) for epoch in range(3)]
    for counts in by_epoch:
        assert [counts[row] for row in range(4)] == [2, 2, 2, 2]
        assert sum(counts[row] for row in range(4, 10)) == 2
    assert sum(by_epoch, Counter()) == Counter({**dict.fromkeys(range(4), 6), **dict.fromkeys(range(4, 10), 1)})


def test_a_part_of_a_dataset_is_made_of_whole_shards_but_for_its_ends() -> None:
    pieces = pieces_of([Ring(np.full(100, 10), 250)], seed=0, epoch=1)
    assert (pieces.samples_P == 10).sum() >= 24
    assert pieces.samples_P.sum() == 250
    assert np.diff(np.sort(pieces.firsts_P // 10)).max() > 1, "neighbouring shards would come together"
    assert sorted(pieces.rows().tolist()) == sorted(row for _, row in taken([Ring(np.full(100, 10), 250)], 0, 1))
