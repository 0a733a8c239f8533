"""Stratified subsets: every label in each, at its fraction, in whatever order the samples come; old samples stay."""

import random
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayprob.arrays import Ints
from rayprob.data.building.stratify import stratify
from rayprob.data.building.units import FREE
from rayprob.data.manifest.columns import Ragged

LabelSets = list[list[int]]
label_sets = st.lists(st.lists(st.integers(0, 6), max_size=3, unique=True), min_size=4, max_size=9)


def ragged(sets: LabelSets) -> Ragged:
    values = np.array([label for labels in sets for label in labels], dtype=np.int64)
    return Ragged(values, np.cumsum([0, *map(len, sets)]))


def gaps(sets: LabelSets, sides: tuple[int, ...], num_subsets: int = 2) -> int:
    """Count pairs of a subset and a label that it lacks, of labels that enough samples have."""
    found = {label: {side for labels, side in zip(sets, sides, strict=True) if label in labels} for label in range(7)}
    often = [label for label in found if sum(label in labels for labels in sets) >= num_subsets]
    return sum(num_subsets - len(found[label]) for label in often)


def drawn(num_samples: int, num_labels: int, seed: int = 0) -> LabelSets:
    chance = random.Random(seed)
    prevalences = [1 / (label + 2) for label in range(num_labels)]
    return [[label for label, part in enumerate(prevalences) if chance.random() < part] for _ in range(num_samples)]


@settings(max_examples=60, deadline=None)
@given(label_sets)
def test_no_division_of_few_samples_has_more_labels_in_both_subsets(sets: LabelSets) -> None:
    found = stratify(np.arange(len(sets)), ragged(sets), [0.2, 0.8])
    fewest = min(gaps(sets, sides) for sides in product((0, 1), repeat=len(sets)))
    assert gaps(sets, tuple(found.tolist())) == fewest


def test_every_label_of_two_samples_or_more_is_on_both_sides_and_holds_its_fraction() -> None:
    sets = drawn(2000, 150)
    held = stratify(np.arange(2000), ragged(sets), [0.05, 0.95]) == 0
    counts = np.array([[label in labels for label in range(150)] for labels in sets])
    often = counts.sum(axis=0) >= 2
    assert (counts[held].sum(axis=0)[often] >= 1).all()
    assert (counts[~held].sum(axis=0)[often] >= 1).all()
    # 40 labels have under 20 samples, of which 0.05 is less than the one that they need, and bring others with them.
    assert np.abs(counts[held].sum(axis=0) - 0.05 * counts.sum(axis=0)).max() <= 3
    assert 95 <= held.sum() <= 110


@settings(max_examples=30, deadline=None)
@given(label_sets, st.randoms(use_true_random=False))
def test_the_order_of_the_samples_plays_no_part(sets: LabelSets, chance: random.Random) -> None:
    order = list(range(len(sets)))
    chance.shuffle(order)
    ids = 10 + np.array(order)
    before = stratify(10 + np.arange(len(sets)), ragged(sets), [0.3, 0.7])
    after = stratify(ids, ragged([sets[place] for place in order]), [0.3, 0.7])
    assert after.tolist() == before[order].tolist()


@pytest.mark.parametrize("fractions", [[0.1, 0.9], [0.1, 0.2, 0.7]])
def test_a_unit_is_in_one_subset_and_labels_of_enough_units_in_each(fractions: list[float]) -> None:
    sets = drawn(600, 25, seed=1)
    units = np.random.default_rng(0).integers(0, 150, 600)
    sides = stratify(units, ragged(sets), fractions)
    assert all(len({*sides[units == unit].tolist()}) == 1 for unit in np.unique(units))
    for label in range(25):
        having = np.array([label in labels for labels in sets])
        if len(np.unique(units[having])) >= len(fractions):
            assert {*sides[having].tolist()} == {*range(len(fractions))}
    assert np.abs(np.bincount(sides) / 600 - fractions).max() < 0.03


def test_assigned_samples_stay_and_new_ones_of_their_units_follow() -> None:
    sets = drawn(400, 20)
    units = np.arange(400) // 2
    first = stratify(units[:300:2], ragged(sets[:300:2]), [0.1, 0.9])
    assigned: Ints = np.full(400, FREE)
    assigned[:300:2] = first
    grown = stratify(units, ragged(sets), [0.1, 0.9], assigned)
    assert grown[:300:2].tolist() == first.tolist()
    assert grown[1:300:2].tolist() == first.tolist()
    assert {*grown[300:].tolist()} == {0, 1}


def test_samples_without_a_label_are_divided_by_their_fraction() -> None:
    sides = stratify(np.arange(100), ragged([[]] * 100), [0.25, 0.75])
    assert np.bincount(sides).tolist() == [25, 75]


def test_a_hundred_rare_labels_that_come_in_chains_are_all_on_both_sides() -> None:
    # Label n is that of samples n and n + 1 alone, so samples must alternate, whatever the fraction.
    sets = [[label for label in (sample - 1, sample) if 0 <= label < 100] for sample in range(101)]
    sides = stratify(np.arange(101), ragged(sets), [0.05, 0.95])
    assert (sides[1:] != sides[:-1]).all()


def test_a_stratified_holdout_never_changes() -> None:
    # Written down when the method was made: a change would mix old holdout images into new training sets.
    held = stratify(np.arange(300), ragged(drawn(300, 12)), [0.05, 0.95]) == 0
    assert np.flatnonzero(held).tolist() == [35, 38, 67, 68, 83, 138, 150, 152, 165, 184, 192, 224, 229, 248, 250]
