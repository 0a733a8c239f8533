"""The most probable label sets, against sorting all 2^L of them."""

import numpy as np
import pytest
from hypothesis import example, settings
from hypothesis import given as for_all
from hypothesis import strategies as st

from rayprob.errors import QueryError
from rayprob.probability.distributions import topsets
from rayprob.probability.distributions.distribution import BernoulliDistribution, LabelDistribution, MixtureDistribution
from tests.probability.brute_force import all_sets, both_families, random_mixture, set_probabilities


def assert_top_sets_are_right(given: LabelDistribution, k: int) -> None:
    found, sets_SL, p_BS = given.top_sets(k), all_sets(given.num_labels), set_probabilities(given)
    size = min(k, len(sets_SL))
    assert found.sets_BTL.shape == (len(given), size, given.num_labels)
    np.testing.assert_allclose(np.exp(found.log_prob_BT), -np.sort(-p_BS, axis=1)[:, :size], rtol=1e-10, atol=1e-300)
    place_BT = found.sets_BTL @ (2 ** np.arange(given.num_labels)[::-1])
    possible_BT = found.log_prob_BT > -np.inf
    shown_BT = np.take_along_axis(p_BS, place_BT, axis=1)
    np.testing.assert_allclose(np.exp(found.log_prob_BT)[possible_BT], shown_BT[possible_BT], rtol=1e-10, atol=1e-300)
    for places_T, possible_T in zip(place_BT, possible_BT, strict=True):
        assert len(set(places_T[possible_T])) == possible_T.sum()


@settings(deadline=None, max_examples=60)
@for_all(st.integers(0, 2**32), st.integers(1, 6), st.integers(1, 10), st.integers(1, 40), st.floats(0.01, 6))
@example(3, 2, 2, 3, 5.0)  # a logit of 15
def test_top_sets_equal_brute_force(seed: int, num_components: int, num_labels: int, k: int, spread: float) -> None:
    random = np.random.default_rng(seed)
    logits_BKL = random.normal(-spread / 3, spread, (3, num_components, num_labels))
    assert_top_sets_are_right(MixtureDistribution(random.normal(0, 2, (3, num_components)), logits_BKL), k)
    assert_top_sets_are_right(BernoulliDistribution(logits_BKL[:, 0]), k)


def test_top_sets_of_twelve_labels_equal_brute_force() -> None:
    for given in both_families(0, num_labels=12, num_images=3, num_components=5):
        assert_top_sets_are_right(given, 10)


def test_components_that_disagree_about_every_label_are_no_obstacle() -> None:
    pattern_KL = np.array([[1, 0] * 5, [0, 1] * 5, [1, 1, 0] * 3 + [0], [0] * 10, [1] * 10])
    assert_top_sets_are_right(MixtureDistribution(np.zeros((1, 5)), (3.0 * (2 * pattern_KL - 1))[None]), 25)


def test_ties_are_broken_but_never_counted_twice() -> None:
    assert_top_sets_are_right(BernoulliDistribution(np.zeros((2, 7))), 100)
    assert_top_sets_are_right(MixtureDistribution(np.zeros((2, 3)), np.zeros((2, 3, 6))), 64)


def test_sets_that_evidence_rules_out_come_last_with_no_probability() -> None:
    for given in both_families(1, num_labels=4):
        conditioned = given.condition({0: True, 2: False})
        assert_top_sets_are_right(conditioned, 16)
        found = conditioned.top_sets(16)
        assert np.isneginf(found.log_prob_BT[:, 4:]).all()
        assert found.sets_BTL[:, :4, 0].all()
        assert not found.sets_BTL[:, :4, 2].any()


def test_no_sampled_set_of_eighty_labels_beats_the_top_sets() -> None:
    random = np.random.default_rng(0)
    logits_BKL = random.normal(-4, 2.5, (5, 32, 80))
    given = MixtureDistribution(random.normal(0, 1, (5, 32)), logits_BKL)
    found = given.top_sets(10)
    for rank in range(10):
        np.testing.assert_allclose(given.log_prob(found.sets_BTL[:, rank]), found.log_prob_BT[:, rank], rtol=1e-9)
    for image in range(5):
        top = {row.tobytes() for row in found.sets_BTL[image]}
        near_NL = np.repeat(found.sets_BTL[image], 80, axis=0) ^ np.tile(np.eye(80, dtype=bool), (10, 1))
        tried_NL = np.concatenate([given[[image]].sample(300, seed=image)[:, 0], near_NL])
        log_prob_N = given[np.full(len(tried_NL), image)].log_prob(tried_NL)
        is_top_N = np.array([row.tobytes() in top for row in tried_NL])
        assert log_prob_N[~is_top_N].max() <= found.log_prob_BT[image, -1] + 1e-9


def test_splitting_a_chunk_that_grows_too_large_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    given = random_mixture(2, num_images=9, num_components=4, num_labels=9)
    whole = given.top_sets(5)
    monkeypatch.setattr(topsets, "MOST_NUMBERS", 3_000)
    parts = given.top_sets(5)
    np.testing.assert_allclose(parts.log_prob_BT, whole.log_prob_BT, rtol=1e-12)


def test_a_search_that_grows_too_large_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    given = MixtureDistribution(np.zeros((2, 12)), random.choice([-0.3, 0.3], (2, 12, 30)))
    monkeypatch.setattr(topsets, "MOST_NUMBERS", 5_000)
    with pytest.raises(
        QueryError, match=r"top 10 label sets of image 0 cannot be found exactly: .* more than 416 partial sets"
    ):
        given.top_sets(10)
    with pytest.raises(QueryError, match="k of at least 1, found 0"):
        given.top_sets(0)


def test_log_probabilities_of_improbable_modes_do_not_underflow() -> None:
    given = BernoulliDistribution(np.random.default_rng(1).normal(0, 0.05, (1, 2000)))
    found = given.top_sets(3)
    assert found.log_prob_BT[0, 0] == pytest.approx(-np.log1p(np.exp(-np.abs(given.logits_BL))).sum(), rel=1e-12)
    assert found.log_prob_BT[0, 0] < -1000
    cheapest = np.sort(np.abs(given.logits_BL[0]))[:2]
    np.testing.assert_allclose(found.log_prob_BT[0, 1:], found.log_prob_BT[0, 0] - cheapest, rtol=1e-12)
