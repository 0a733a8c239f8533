"""Label sets with a probability each, against all 2^L label sets."""

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import expit, softmax

from rayprob.errors import ModelError, QueryError
from rayprob.labels import LabelSpace
from rayprob.probability.distributions.distribution import MixtureDistribution
from rayprob.probability.distributions.evidence import Evidence
from rayprob.probability.distributions.powerset import PowersetDistribution
from rayprob.probability.distributions.set_table import SetTable
from rayprob.probability.queries.answer import parse
from tests.probability.brute_force import all_sets, ask, letters, set_probabilities
from tests.probability.distributions.test_topsets import assert_top_sets_are_right

B, S, L = 3, 9, 6
EVIDENCE = {1: True, 4: False}


def random_powerset(seed: int = 0, *, spread: float = 2.0, num_labels: int = L) -> PowersetDistribution:
    random = np.random.default_rng(seed)
    sets_SL = all_sets(num_labels)[random.choice(2**num_labels, S, replace=False)]
    return PowersetDistribution.of_outputs(
        {
            "set_logits": random.normal(0, spread, (B, S)),
            "rest_logit": random.normal(1, 1, (B, 1)),
            "logits": random.normal(-1, spread, (B, num_labels)),
            "sets": sets_SL.astype(np.float32),
        }
    )


def as_mixture(given: PowersetDistribution) -> MixtureDistribution:
    return MixtureDistribution(given.log_mixing_BK, given.component_logits_BKL)


def test_each_set_has_its_weight_and_its_part_of_the_remainder() -> None:
    random = np.random.default_rng(1)
    set_logits, rest_logit, logits = random.normal(size=(1, 2)), random.normal(size=(1, 1)), random.normal(size=(1, 3))
    sets = np.array([[0, 1, 1], [0, 0, 0]])
    given = PowersetDistribution.of_outputs(
        {"set_logits": set_logits, "rest_logit": rest_logit, "logits": logits, "sets": sets}
    )
    weight_K = softmax(np.append(set_logits, rest_logit))
    for y_L in all_sets(3):
        expected = weight_K[2] * np.prod([expit(u) if y else expit(-u) for u, y in zip(logits[0], y_L, strict=True)])
        expected += sum(weight for weight, set_L in zip(weight_K, sets, strict=False) if (set_L == y_L).all())
        np.testing.assert_allclose(np.exp(given.log_prob(y_L[None])), [expected], rtol=1e-12)


@pytest.mark.parametrize("given", [random_powerset(), random_powerset(3, spread=12.0), random_powerset().condition(EVIDENCE)])
def test_every_answer_is_the_sum_over_label_sets(given: PowersetDistribution) -> None:
    p_BS, sets_SL = set_probabilities(given), all_sets(L)
    np.testing.assert_allclose(p_BS.sum(axis=1), 1)
    np.testing.assert_allclose(given.marginals(), p_BS @ sets_SL, rtol=1e-12)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(given.marginal_logits(), np.log(p_BS @ sets_SL) - np.log(p_BS @ ~sets_SL), rtol=1e-9)
        entropy_B = -(p_BS * np.log(np.where(p_BS > 0, p_BS, 1))).sum(axis=1)
    for y_L, p_B in zip(sets_SL, p_BS.T, strict=True):
        np.testing.assert_allclose(np.exp(given.log_prob(y_L[None])), p_B, rtol=1e-10)
    np.testing.assert_allclose(given.entropy().value_B, entropy_B, atol=1e-12)
    assert (given.entropy().standard_error_B == 0).all()
    pairs_BLL = np.einsum("bs,si,sj->bij", p_BS, sets_SL, sets_SL)
    np.testing.assert_allclose(given.pair_probabilities(), pairs_BLL, rtol=1e-12)
    np.testing.assert_allclose(given.mutual_information(), as_mixture(given).mutual_information(), atol=1e-12)
    sizes_SN = sets_SL.sum(axis=1)[:, None] == np.arange(L + 1)
    np.testing.assert_allclose(given.count_distribution(), p_BS @ sizes_SN, atol=1e-14)
    f1_SS = 2 * (sets_SL @ sets_SL.T.astype(int)) / np.maximum(sets_SL.sum(1)[:, None] + sets_SL.sum(1), 1)
    f1_SS[0, 0] = 1
    np.testing.assert_allclose(given.best_f1_sets().expected_f1_B, (p_BS @ f1_SS).max(axis=1), rtol=1e-9)
    for k in (1, 5, 40, 64):
        assert_top_sets_are_right(given, k)


def test_evidence_is_conditioned_on_exactly() -> None:
    given = random_powerset()
    p_BS, sets_SL = set_probabilities(given), all_sets(L)
    agrees_S = sets_SL[:, 1] & ~sets_SL[:, 4]
    given_BS = p_BS * agrees_S / (p_BS @ agrees_S)[:, None]
    np.testing.assert_allclose(set_probabilities(given.condition(EVIDENCE)), given_BS, rtol=1e-12)
    found_B = given.log_prob(sets_SL[agrees_S][:1], Evidence.of(EVIDENCE, L).known_BL)
    np.testing.assert_allclose(np.exp(found_B), p_BS @ agrees_S, rtol=1e-12)


def test_impossible_evidence_is_refused_and_known_as_such() -> None:
    given = random_powerset()
    assert not given.rules_out_sets
    told = given.condition({1: True})
    assert told.rules_out_sets
    assert (told.log_prob(np.zeros((1, L), bool)) == -np.inf).all()
    with pytest.raises(QueryError, match="has probability 0 for 3 of 3 images"):
        told.condition({1: False})


@pytest.mark.parametrize(
    ("text", "event", "evidence"),
    [
        ("P(a & !b | c)", lambda y: 0 in y and 1 not in y, lambda y: 2 in y),
        ("P(count{a, b, c} >= 2 | (d | e))", lambda y: len(y & {0, 1, 2}) >= 2, lambda y: bool(y & {3, 4})),
        ("P(count >= 3)", lambda y: len(y) >= 3, lambda y: True),
        ("P(exactly {a, b})", lambda y: y == {0, 1}, lambda y: True),
    ],
)
def test_queries_equal_brute_force(
    text: str, event: Callable[[frozenset[int]], bool], evidence: Callable[[frozenset[int]], bool]
) -> None:
    given = random_powerset(5)
    np.testing.assert_allclose(given.prob(parse(text, letters(L))), ask(given, event, evidence), rtol=1e-12)


def test_queries_of_tiny_probability_do_not_underflow() -> None:
    given = PowersetDistribution(np.log([[1e-300, 1.0]]), SetTable(np.ones((1, 2), bool)), np.full((1, 2), -800.0))
    np.testing.assert_allclose(given.prob(parse("P(a | b)", letters(2))), [1.0])
    np.testing.assert_allclose(given.marginal_logits(), np.full((1, 2), np.log(1e-300)))


def test_samples_have_the_frequencies_of_the_distribution() -> None:
    given = random_powerset()
    drawn_DBL = given.sample(4000, seed=0)
    np.testing.assert_allclose(drawn_DBL.mean(axis=0), given.marginals(), atol=0.04)
    pairs_BLL = np.einsum("dbi,dbj->bij", drawn_DBL.astype(float), drawn_DBL) / 4000
    np.testing.assert_allclose(pairs_BLL, given.pair_probabilities(), atol=0.04)
    np.testing.assert_array_equal(drawn_DBL, given.sample(4000, seed=0))


def test_equal_sets_are_one_set() -> None:
    given = random_powerset()
    outputs = {"rest_logit": np.zeros((B, 1)), "logits": given.logits_BL}
    once = {"set_logits": np.log([[1.0, 5.0]] * B), "sets": given.table.sets_SL[[0, 1]]}
    thrice = {"set_logits": np.log([[2.0, 1.0, 3.0]] * B), "sets": given.table.sets_SL[[1, 0, 1]]}
    found, expected = (PowersetDistribution.of_outputs({**outputs, **sets}) for sets in (thrice, once))
    assert len(found.table) == 2
    np.testing.assert_allclose(set_probabilities(found), set_probabilities(expected), rtol=1e-12)
    assert_top_sets_are_right(found, 64)


def test_without_listed_sets_labels_are_independent() -> None:
    logits_BL = np.random.default_rng(0).normal(size=(B, L))
    given = PowersetDistribution(np.zeros((B, 1)), SetTable(np.zeros((0, L), bool)), logits_BL)
    np.testing.assert_allclose(given.marginals(), expit(logits_BL), rtol=1e-12)
    np.testing.assert_allclose(given.entropy().value_B, given.rest.entropy().value_B, rtol=1e-12)
    assert given.sample(5, seed=0).shape == (5, B, L)
    assert_top_sets_are_right(given, 9)


def test_outputs_that_do_not_fit_are_refused() -> None:
    outputs = {
        "set_logits": np.zeros((2, 3)),
        "rest_logit": np.zeros((2, 1)),
        "logits": np.zeros((2, 5)),
        "sets": np.zeros((4, 5)),
    }
    with pytest.raises(ModelError, match=r"set and rest logits \(2, 4\), sets \(4, 5\) and logits \(2, 5\) do not fit"):
        PowersetDistribution.of_outputs(outputs)
    with pytest.raises(ModelError, match="contain nan"):
        PowersetDistribution.of_outputs({**outputs, "set_logits": np.full((2, 3), np.nan)})


def test_two_thousand_sets_of_eighty_labels_take_no_array_of_images_sets_and_labels() -> None:
    random = np.random.default_rng(0)
    table = SetTable(random.random((2000, 80)) < 0.04)
    log_mixing_BK = np.full((512, 2001), -np.log(2001))
    given = PowersetDistribution(log_mixing_BK, table, random.normal(-3, 1, (512, 80)))
    tracemalloc.start()
    names = LabelSpace(tuple(f"l{c}" for c in range(80)), tuple(range(80)))
    for _ in (given.marginals(), given.top_sets(2), given.condition({0: True}), given.prob(parse("P(l1 | l2)", names))):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.2 * 8 * 512 * 2001 * 80  # bytes of such an array


def test_the_log_odds_of_known_labels_are_computed_for_a_chunk_of_images_at_a_time() -> None:
    random, num_images, num_sets = np.random.default_rng(0), 1500, 500
    logits_BL = random.normal(-1, 1, (num_images, 20))
    table = SetTable(random.random((num_sets, 20)) < 0.1).distinct()[0]
    given = PowersetDistribution(np.full((num_images, len(table) + 1), -np.log(len(table) + 1)), table, logits_BL)
    given = given.condition(Evidence.of(dict.fromkeys(range(16), False), 20))
    with np.errstate(divide="ignore"):
        expected_BL = np.log(given.marginals()) - np.log1p(-given.marginals())
    tracemalloc.start()
    found_BL = given.marginal_logits()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(found_BL[:, 16:], expected_BL[:, 16:], rtol=1e-9)
    assert np.isneginf(found_BL[:, :16]).all()
    assert peak < 2 * 16 * 2**20
    assert 8 * num_images * 16 * len(table) > 2 * 16 * 2**20  # bytes of one array of all known labels
