"""The Chow-Liu tree: a distribution, exact for a chain, and no worse than independent labels."""

import itertools

import numpy as np
import pytest

from rayprob.probability.priors.chow_liu import ChowLiuTree


def chain(num_samples: int, num_labels: int, seed: int = 0):
    """Label sets in which each label follows the one before it with probability 0.9."""
    random = np.random.default_rng(seed)
    sets_NL = np.empty((num_samples, num_labels), dtype=bool)
    sets_NL[:, 0] = random.random(num_samples) < 0.3
    for label in range(1, num_labels):
        sets_NL[:, label] = sets_NL[:, label - 1] ^ (random.random(num_samples) < 0.1)
    return sets_NL


@pytest.mark.parametrize("num_labels", [1, 2, 6])
def test_the_probabilities_of_all_label_sets_sum_to_one(num_labels: int) -> None:
    tree = ChowLiuTree.fit(chain(200, num_labels))
    every = np.array(list(itertools.product([False, True], repeat=num_labels)))
    assert np.exp(tree.log_prob(every)).sum() == pytest.approx(1)


def test_a_chain_is_recovered_whatever_the_order_of_its_labels() -> None:
    order = np.array([3, 0, 4, 1, 2])
    tree = ChowLiuTree.fit(chain(5000, 5)[:, order])
    edges = {frozenset((int(order[a]), int(order[tree.parent_L[a]]))) for a in tree.order_L[1:]}
    assert edges == {frozenset((label, label + 1)) for label in range(4)}


def test_unknown_labels_leave_the_tree_as_it_is() -> None:
    sets_NL = chain(5000, 5)
    known_NL = np.random.default_rng(1).random(sets_NL.shape) < 0.6
    whole, partial = ChowLiuTree.fit(sets_NL), ChowLiuTree.fit(sets_NL & known_NL, known_NL)
    fresh_NL = chain(2000, 5, seed=2)
    assert partial.log_prob(fresh_NL).mean() == pytest.approx(whole.log_prob(fresh_NL).mean(), abs=0.02)


def test_labels_that_never_occur_are_in_the_tree() -> None:
    sets_NL = chain(500, 4)
    sets_NL[:, 2] = False
    tree = ChowLiuTree.fit(sets_NL)
    assert sorted(tree.order_L) == [0, 1, 2, 3]
    assert np.isfinite(tree.log_prob(~sets_NL)).all()


def test_a_weight_counts_like_copies_of_a_label_set() -> None:
    sets_NL, copies_N = chain(200, 5), np.arange(200) % 4
    weighted, copied = (
        ChowLiuTree.fit(sets_NL, weights_N=copies_N.astype(float)),
        ChowLiuTree.fit(sets_NL.repeat(copies_N, axis=0)),
    )
    assert weighted.log_prob(sets_NL) == pytest.approx(copied.log_prob(sets_NL), abs=1e-12)
