"""Every answer at logits of +-80 to +-1e4 and infinity and components of weight e^-2000, against mpmath over all label sets."""

from collections.abc import Callable
from itertools import product

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st

from rayprob.errors import ModelError, QueryError
from rayprob.probability.distributions.counts import count_probabilities
from rayprob.probability.distributions.distribution import BernoulliDistribution, LabelDistribution, MixtureDistribution
from rayprob.probability.queries.answer import parse
from rayprob.probability.queries.explain import explain
from tests.probability.brute_force import letters
from tests.probability.precise import LabelSet, columns, entropy, expected_f1, log, log_ratio, set_probabilities, total

SIZES = [0.0, 1.0, 3.0, 20.0, 36.0, 80.0, 400.0, 800.0, 5000.0, 1e4]
LOGITS = st.sampled_from([*SIZES, *(-size for size in SIZES), np.inf, -np.inf]) | st.floats(-60, 60)
MIXING = st.sampled_from([0.0, -1.0, -40.0, -400.0, -2000.0, -np.inf])
NUMBER, LOG = {"rtol": 1e-9, "atol": 1e-300}, {"rtol": 1e-12, "atol": 1e-9}


@st.composite
def distributions(draw: st.DrawFn) -> LabelDistribution:
    """One image of 2 to 5 labels, of either family."""
    num_labels, num_components = draw(st.integers(2, 5)), draw(st.integers(0, 3))
    rows = draw(st.lists(LOGITS, min_size=num_labels * max(num_components, 1), max_size=num_labels * max(num_components, 1)))
    if not num_components:
        return BernoulliDistribution(np.array([rows]))
    mixing = [0.0, *draw(st.lists(MIXING, min_size=num_components - 1, max_size=num_components - 1))]
    return MixtureDistribution(np.array([mixing]), np.array(rows).reshape(1, num_components, num_labels))


ALL = for_all(distributions())
QUICK = settings(deadline=None, max_examples=50)


@QUICK
@ALL
def test_marginals_their_logits_and_pairs(given: LabelDistribution) -> None:
    sets = set_probabilities(given)
    for i in range(given.num_labels):
        present, absent = (total(sets, lambda chosen, i=i, v=v: chosen[i] == v) for v in (True, False))
        np.testing.assert_allclose(given.marginals()[0, i], float(present), **NUMBER)
        np.testing.assert_allclose(given.marginal_logits()[0, i], log_ratio(present, absent), **LOG)
        for j in range(given.num_labels):
            both = total(sets, lambda chosen, i=i, j=j: chosen[i] and chosen[j])
            np.testing.assert_allclose(given.pair_probabilities()[0, i, j], float(both), **NUMBER)


@QUICK
@ALL
def test_log_probabilities_and_top_sets(given: LabelDistribution) -> None:
    sets = set_probabilities(given)
    for chosen, probability in sets.items():
        np.testing.assert_allclose(given.log_prob(np.array([chosen]))[0], log(probability), **LOG)
    expected = sorted((log(probability) for probability in sets.values()), reverse=True)
    for k in (3, 2**given.num_labels):
        found = given.top_sets(k)
        assert len({columns(sets_L) for sets_L in found.sets_BTL[0]}) == min(k, len(sets)), "a label set stands twice"
        np.testing.assert_allclose(found.log_prob_BT[0], expected[:k], **LOG)
        np.testing.assert_allclose([log(sets[columns(s)]) for s in found.sets_BTL[0]], found.log_prob_BT[0], **LOG)


QUERIES: dict[str, tuple[Callable[[LabelSet], bool], Callable[[LabelSet], bool]]] = {
    "P(a)": (lambda s: s[0], lambda s: True),
    "P(a | b)": (lambda s: s[0], lambda s: s[1]),
    "P(!a | b, a)": (lambda s: not s[0], lambda s: s[1] and s[0]),
    "P(a & !b)": (lambda s: s[0] and not s[1], lambda s: True),
    "P(a | (a | b))": (lambda s: s[0], lambda s: s[0] or s[1]),
    "P((a | !b) | !a)": (lambda s: s[0] or not s[1], lambda s: not s[0]),
    "P(count >= 2 | a)": (lambda s: sum(s) >= 2, lambda s: s[0]),
    "P(b | count == 1)": (lambda s: s[1], lambda s: sum(s) == 1),
    "P(exactly{a} | count{a, b} < 2, !b)": (lambda s: s[0] and sum(s) == 1, lambda s: not (s[0] and s[1]) and not s[1]),
}


@QUICK
@ALL
def test_queries_and_their_refusals(given: LabelDistribution) -> None:
    sets = set_probabilities(given)
    for text, (event, evidence) in QUERIES.items():
        query, whole = parse(text, letters(given.num_labels)), total(sets, evidence)
        if not whole:
            for ask in (given.prob, given.standard_error):
                with pytest.raises(QueryError, match="has probability 0: it contradicts"):
                    ask(query)
            continue
        expected = total(sets, lambda s, e=event, g=evidence: e(s) and g(s)) / whole
        np.testing.assert_allclose(given.prob(query)[0], float(expected), err_msg=text, **NUMBER)


@QUICK
@ALL
def test_conditioned_distributions(given: LabelDistribution) -> None:
    sets = set_probabilities(given)
    for values in product((True, False), repeat=2):
        evidence = dict(enumerate(values))
        holding = {chosen: p for chosen, p in sets.items() if chosen[:2] == values}
        if not any(holding.values()):
            with pytest.raises(QueryError, match="the evidence has probability 0: it contradicts"):
                given.condition(evidence)
            continue
        found = given.condition(evidence)
        for column in range(given.num_labels):
            present, absent = (total(holding, lambda s, c=column, v=v: s[c] == v) for v in (True, False))
            np.testing.assert_allclose(found.marginal_logits()[0, column], log_ratio(present, absent), **LOG)


@QUICK
@ALL
def test_counts_and_expected_f1(given: LabelDistribution) -> None:
    sets = set_probabilities(given)
    for count in range(given.num_labels + 1):
        expected = float(total(sets, lambda chosen, n=count: sum(chosen) == n))
        np.testing.assert_allclose(given.count_distribution()[0, count], expected, **NUMBER)
    found, best = given.best_f1_sets(), max(float(expected_f1(sets, chosen)) for chosen in sets)
    assert found.expected_f1_B[0] == pytest.approx(best, abs=1e-10)
    assert float(expected_f1(sets, found.sets_BL[0])) == pytest.approx(best, abs=1e-10)


@QUICK
@ALL
def test_entropy_and_mutual_information(given: LabelDistribution) -> None:
    sets, information_LL = set_probabilities(given), given.mutual_information()[0]
    assert given.entropy().value_B[0] == pytest.approx(float(entropy(list(sets.values()))), abs=1e-10)
    for i in range(given.num_labels):
        for j in range(i):
            pair = [total(sets, lambda s, v=v, i=i, j=j: (s[i], s[j]) == v) for v in product((True, False), repeat=2)]
            alone = [total(sets, lambda s, c=c, v=v: s[c] == v) for c in (i, j) for v in (True, False)]
            expected = entropy(alone[:2]) + entropy(alone[2:]) - entropy(pair)
            assert information_LL[i, j] == pytest.approx(float(expected), abs=1e-10)
            assert information_LL[j, i] == pytest.approx(information_LL[i, j], abs=1e-12)


@QUICK
@ALL
def test_samples_are_label_sets_that_can_be(given: LabelDistribution) -> None:
    sets = set_probabilities(given)
    assert all(sets[columns(sets_L)] > 1e-12 for sets_L in given.sample(40, seed=0)[:, 0])


@settings(QUICK, max_examples=15)
@ALL
def test_explanations(given: LabelDistribution) -> None:
    sets = set_probabilities(given)
    before = given.marginal_logits()[0, 0]
    if not np.isfinite(before):
        return
    for other, value in product(range(1, given.num_labels), (True, False)):
        present, absent = (total(sets, lambda s, o=other, u=u, v=value: s[0] == u and s[o] == v) for u in (True, False))
        if present or absent:
            why = explain(given, 0, {other: value}, letters(given.num_labels))
            np.testing.assert_allclose(why.pieces[0].alone, log_ratio(present, absent) - before, rtol=1e-11, atol=1e-8)
            assert sum(scene.share for scene in why.scenes) == pytest.approx(1 if present else 0, abs=1e-9)


def test_unlikely_evidence_of_a_query_is_that_of_condition() -> None:
    # b is all but impossible in both components; which of them allows it more decides about d.
    logits_BKL = np.array([[[-800.0, 5.0], [-900.0, -5.0]]])
    given = MixtureDistribution(np.array([[0.0, 50.0]]), logits_BKL)
    answer = given.prob(parse("P(b | a)", letters(2)))[0]
    assert answer == pytest.approx(1 / (1 + np.exp(-5.0)), abs=1e-12)
    assert answer == pytest.approx(given.condition({0: True}).marginals()[0, 1], abs=1e-12)


def test_marginal_logits_keep_their_order_where_marginals_round_to_one() -> None:
    steep_B = np.array([36.0, 50.0, 700.0, 750.0, 1e4])
    given = MixtureDistribution(np.zeros((5, 2)), np.repeat(steep_B[:, None, None], 2, axis=1))
    np.testing.assert_allclose(given.marginal_logits()[:, 0], steep_B, rtol=1e-12)
    mirrored = MixtureDistribution(np.zeros((5, 2)), -np.repeat(steep_B[:, None, None], 2, axis=1))
    np.testing.assert_allclose(mirrored.marginal_logits()[:, 0], -steep_B, rtol=1e-12)


def test_mutual_information_of_a_component_of_weight_e_minus_400_is_nothing_rather_than_infinite() -> None:
    given = MixtureDistribution(np.array([[0.0, -400.0]]), np.array([[[-1e4, -1e4], [3.0, 3.0]]]))
    assert 0 <= given.mutual_information()[0, 0, 1] < 1e-150


def test_entropy_by_draws_at_steep_logits() -> None:
    # 14 labels that the component decides, and one that it does not: log 2 for the component, 2 log 2 for the free label.
    steep_KL = np.concatenate([np.full((2, 14), 5000.0) * [[1], [-1]], np.zeros((2, 1))], axis=1)
    found = MixtureDistribution(np.zeros((1, 2)), steep_KL[None]).entropy()
    assert found.value_B[0] == pytest.approx(2 * np.log(2), abs=1e-12)
    assert found.standard_error_B[0] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("cap", [0, 1, 7, 60, 200])
def test_counts_of_two_hundred_labels_equal_mpmath_at_every_cap(cap: int) -> None:
    present_L = np.random.default_rng(0).beta(0.2, 0.3, 200)
    with mp.workdps(30):
        exact = [mp.mpf(1)] + [mp.mpf(0)] * 200
        for present in map(mp.mpf, present_L):
            exact = [stay * (1 - present) + below * present for stay, below in zip(exact, [mp.mpf(0), *exact], strict=False)]
        expected = [float(p) for p in [*exact[:cap], mp.fsum(exact[cap:])]]
    found = count_probabilities(present_L[:, None], 1 - present_L[:, None], cap)
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-11, atol=1e-300)


@pytest.mark.parametrize("mixing", [[-np.inf, -np.inf], [np.inf, 0.0]])
def test_mixing_logits_that_sum_to_no_distribution_are_refused(mixing: list[float]) -> None:
    with pytest.raises(ModelError, match=r"mixing logits of image 0 are .*; at least one must be finite, none inf"):
        MixtureDistribution(np.array([mixing]), np.zeros((1, 2, 3)))
