"""Answers of a network over labels, against the same network in plain numpy and sums over all label sets.

B images, P places, L labels, D width, T blocks.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit

from rayprob.errors import ModelError, QueryError
from rayprob.probability.distributions import drawn
from rayprob.probability.distributions.evidence import Evidence
from rayprob.probability.distributions.masked import MaskedDistribution
from rayprob.probability.distributions.masked_network import OUTPUTS
from rayprob.probability.queries.answer import parse
from rayprob.probability.queries.explain import explain
from tests.probability.brute_force import all_sets, letters

B, P, L, D, T = 3, 2, 4, 8, 2
Outputs = dict[str, NDArray[Any]]


def random_outputs(num_labels: int = L, seed: int = 0) -> Outputs:
    random, sizes = np.random.default_rng(seed), {"N": B, "P": P, "L": num_labels, "D": D, "T": T}
    found = {name: random.normal(size=[sizes.get(s) or int(s) for s in shape]) for name, shape in OUTPUTS.items()}
    return found | {"turns": random.permutation(num_labels).astype(float)}


def masked(num_labels: int = L, seed: int = 0) -> MaskedDistribution:
    return MaskedDistribution.of_outputs(random_outputs(num_labels, seed))


def reference_logit(outputs: Outputs, image: int, label: int, known: Mapping[int, bool]) -> float:
    """Return what the network answers, written out for one label of one image."""
    tokens = [
        *outputs["places"][image],
        *(outputs["states"][0 if is_present else 1][column] for column, is_present in known.items()),
    ]
    keys = [_scaled(token) for token in tokens]
    hidden, size = outputs["queries"][label], D // 4
    for query, key, value, output, wide_a, wide_b, narrow_a, narrow_b in outputs["blocks"]:
        read = []
        for head in range(4):
            part = slice(head * size, (head + 1) * size)
            asked = (_scaled(hidden) @ query)[part]
            weights = np.exp([asked @ (token @ key)[part] / np.sqrt(size) for token in keys])
            read.append(sum(w * (token @ value)[part] for w, token in zip(weights / weights.sum(), keys, strict=True)))
        hidden = hidden + np.concatenate(read) @ output
        unit = _scaled(hidden)
        hidden = hidden + np.maximum(unit @ wide_a, 0) @ narrow_a + np.maximum(unit @ wide_b, 0) @ narrow_b
    return float(outputs["logits"][image, label] + _scaled(hidden) @ outputs["readout"][label])


def _scaled(vector: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(vector / np.sqrt(np.mean(vector**2) + 1e-6))


def reference_chain(outputs: Outputs, image: int, states: Mapping[int, bool], known: Mapping[int, bool] | None = None) -> float:
    """Return the probability of some labels' states: each given the known ones and those before it."""
    seen, product = dict(known or {}), 1.0
    for label in sorted(states, key=lambda label: outputs["turns"][label]):
        present = expit(reference_logit(outputs, image, label, seen))
        product *= present if states[label] else 1 - present
        seen[label] = states[label]
    return float(product)


def whole(outputs: Outputs, image: int, known: Mapping[int, bool] | None = None) -> NDArray[Any]:
    """Return the probability [S] of each label set of `all_sets`, by the chain."""
    return np.array([reference_chain(outputs, image, dict(enumerate(row.tolist())), known) for row in all_sets(L)])


def test_marginals_are_the_networks_answers_given_the_evidence() -> None:
    outputs, known = random_outputs(), {2: True, 0: False}
    told = masked().condition(known)
    for image in range(B):
        expected = [expit(reference_logit(outputs, image, label, {})) for label in range(L)]
        np.testing.assert_allclose(masked().marginals()[image], expected, rtol=1e-9)
        expected = [
            known[label] if label in known else expit(reference_logit(outputs, image, label, known)) for label in range(L)
        ]
        np.testing.assert_allclose(told.marginals()[image], expected, rtol=1e-9)


def test_a_label_set_has_the_probability_of_the_chain_and_all_sets_have_one_in_total() -> None:
    outputs, distribution = random_outputs(), masked()
    found_SB = np.exp([distribution.log_prob(np.tile(row, (B, 1))) for row in all_sets(L)])
    np.testing.assert_allclose(found_SB.sum(axis=0), 1, rtol=1e-12)
    np.testing.assert_allclose(found_SB[:, 1], whole(outputs, 1), rtol=1e-9)


def test_labels_that_are_not_stated_drop_out_of_the_chain_and_may_differ_between_images() -> None:
    outputs, random = random_outputs(), np.random.default_rng(1)
    sets_BL, stated_BL = random.random((B, L)) < 0.5, np.array([[1, 0, 1, 0], [0, 1, 1, 1], [0, 0, 0, 0]], dtype=bool)
    found_B = masked().log_prob(sets_BL, stated_BL)
    for image in range(B):
        states = {int(label): bool(sets_BL[image, label]) for label in np.flatnonzero(stated_BL[image])}
        assert found_B[image] == pytest.approx(np.log(reference_chain(outputs, image, states)), rel=1e-9)


def test_evidence_joins_the_chain_and_label_sets_against_it_are_impossible() -> None:
    known_BL = np.array([[1, 0, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]], dtype=bool)
    told = masked().condition(Evidence(np.ones((B, L), dtype=bool), known_BL))
    found_SB = np.exp([told.log_prob(np.tile(row, (B, 1))) for row in all_sets(L)])
    for image in range(B):
        known = {int(label): True for label in np.flatnonzero(known_BL[image])}
        agrees_S = all_sets(L)[:, list(known)].all(axis=1)
        rest = [{c: bool(row[c]) for c in range(L) if c not in known} for row in all_sets(L)]
        expected = [reference_chain(random_outputs(), image, states, known) for states in rest]
        np.testing.assert_allclose(found_SB[:, image], np.where(agrees_S, expected, 0), rtol=1e-9)
    assert told.rules_out_sets


def test_evidence_adds_up_and_must_not_contradict_itself() -> None:
    once, twice = masked().condition({0: True, 3: False}), masked().condition({3: False}).condition({0: True})
    np.testing.assert_array_equal(once.marginals(), twice.marginals())
    with pytest.raises(QueryError, match="the evidence has probability 0 for 3 of 3 images"):
        once.condition({0: False})


QUERIES: list[tuple[str, dict[int, bool], Callable[[NDArray[Any]], Any], Callable[[NDArray[Any]], Any]]] = [
    ("P(a)", {}, lambda y: y[0], lambda y: True),
    ("P(a | b)", {1: True}, lambda y: y[0], lambda y: True),
    ("P(c | !b, a)", {1: False, 0: True}, lambda y: y[2], lambda y: True),
    ("P((a | d) | c)", {2: True}, lambda y: y[0] | y[3], lambda y: True),
    ("P(a & !d | (b | c), d)", {3: True}, lambda y: False, lambda y: True),
    ("P(a | (b | c), d)", {3: True}, lambda y: y[0], lambda y: y[1] | y[2]),
    ("P(count >= 2 | a)", {0: True}, lambda y: y.sum() >= 2, lambda y: True),
]


@pytest.mark.parametrize(("text", "known", "event", "given"), QUERIES)
def test_a_question_is_answered_by_the_chain_over_its_labels_given_its_evidence(
    text: str, known: dict[int, bool], event: Callable[[NDArray[Any]], Any], given: Callable[[NDArray[Any]], Any]
) -> None:
    outputs, found_B = random_outputs(), masked().prob(parse(text, letters(L)))
    named = [c for c in range(L) if ("abcd"[c] in text or "count" in text) and c not in known]
    for image in range(B):
        both = total = 0.0
        for row in all_sets(L):
            if any(row[c] for c in range(L) if c not in named and c not in known) or any(row[c] != v for c, v in known.items()):
                continue
            p = reference_chain(outputs, image, {c: bool(row[c]) for c in named}, known)
            both, total = both + p * bool(event(row) and given(row)), total + p * bool(given(row))
        assert found_B[image] == pytest.approx(both / total, rel=1e-9)


def test_questions_about_many_labels_are_answered_from_label_sets_drawn() -> None:
    distribution = masked(9)
    found_B = distribution.prob(parse("P(count >= 5 | a)", letters(9)))
    sets_BSL = distribution.condition({0: True}).as_drawn.sets_BSL
    np.testing.assert_allclose(found_B, (sets_BSL.sum(axis=2) >= 5).mean(axis=1))
    assert sets_BSL[:, :, 0].all()
    error_B = np.sqrt(found_B * (1 - found_B) / drawn.NUM_DRAWN)
    np.testing.assert_allclose(
        distribution.standard_error(parse("P(count >= 5 | a)", letters(9))), np.maximum(error_B, 1 / drawn.NUM_DRAWN)
    )
    assert not distribution.standard_error(parse("P(b & c & d & e | a)", letters(9))).any()
    assert str(drawn.NUM_DRAWN) in distribution.notes[0]


def test_a_condition_that_no_label_set_drawn_meets_is_too_improbable_to_estimate_and_not_impossible() -> None:
    outputs = random_outputs(9)
    rare = MaskedDistribution.of_outputs(outputs | {"logits": outputs["logits"] - 5})
    query = parse("P(a | count >= 8)", letters(9))
    with pytest.raises(
        QueryError, match=r"none of the 64 label sets drawn meets the evidence of .* for 3 of 3 images: it is too"
    ):
        rare.prob(query)
    with pytest.raises(QueryError, match=r"none of the 64 label sets drawn meets the evidence of .*8.: it is too improbable"):
        rare[:1].prob(query)
    with pytest.raises(
        QueryError, match=r"the evidence of .* has probability 0 for 3 of 3 images, first image 0: it contradicts"
    ):
        masked().condition({1: False, 2: False}).prob(parse("P(a | (b | c))", letters(L)))


@pytest.mark.parametrize("text", ["P(a | count >= 8)", "P(a | (b | c))", "P(a | b)", "P(a | (b | c | d | e | f | g | h))"])
def test_a_standard_error_is_refused_as_the_answer_is(text: str) -> None:
    outputs, query = random_outputs(9), parse(text, letters(9))
    told = MaskedDistribution.of_outputs(outputs | {"logits": outputs["logits"] - 9}).condition({1: False, 2: False})
    with pytest.raises(QueryError) as refused:
        told.prob(query)
    with pytest.raises(QueryError) as refused_too:
        told.standard_error(query)
    assert str(refused_too.value) == str(refused.value)


def test_label_sets_are_drawn_with_the_probabilities_of_the_chain() -> None:
    sets_SBL = masked().sample(4000, seed=3)
    for image in range(B):
        seen_S = np.array([(sets_SBL[:, image] == row).all(axis=1).mean() for row in all_sets(L)])
        p_S = whole(random_outputs(), image)
        assert (np.abs(seen_S - p_S) <= 4 * np.sqrt(p_S * (1 - p_S) / 4000) + 1e-3).all()
    np.testing.assert_array_equal(sets_SBL, masked().sample(4000, seed=3))


def test_entropy_is_that_of_all_label_sets_within_its_error() -> None:
    found = masked().entropy(num_samples=500, seed=1)
    for image in range(B):
        p_S = whole(random_outputs(), image)
        assert abs(found.value_B[image] + (p_S * np.log(p_S)).sum()) <= 4 * found.standard_error_B[image]


def test_top_sets_of_few_labels_are_those_of_all_label_sets() -> None:
    for known in ({}, {1: True}):
        top = masked().condition(known).top_sets(5)
        for image in range(B):
            agrees_S = np.array([all(row[c] == v for c, v in known.items()) for row in all_sets(L)])
            rest = [{c: bool(row[c]) for c in range(L) if c not in known} for row in all_sets(L)]
            p_S = agrees_S * [reference_chain(random_outputs(), image, states, known) for states in rest]
            order_S = np.argsort(-p_S, kind="stable")[:5]
            np.testing.assert_allclose(np.exp(top.log_prob_BT[image]), p_S[order_S], rtol=1e-9)
            np.testing.assert_array_equal(top.sets_BTL[image], all_sets(L)[order_S])


def test_the_label_set_with_the_best_expected_f1_is_that_of_the_label_sets_drawn() -> None:
    found, sets_BSL = masked().best_f1_sets(), masked().as_drawn.sets_BSL
    for image in range(B):
        both_CS = (all_sets(L)[:, None] & sets_BSL[image]).sum(axis=2)
        sizes_CS = all_sets(L).sum(axis=1)[:, None] + sets_BSL[image].sum(axis=1)
        f1_C = np.where(sizes_CS > 0, 2 * both_CS / np.maximum(sizes_CS, 1), 1.0).mean(axis=1)
        assert found.expected_f1_B[image] == pytest.approx(f1_C.max())
        assert f1_C[(all_sets(L) == found.sets_BL[image]).all(axis=1)] == pytest.approx(f1_C.max())


def test_an_image_is_answered_alike_in_any_batch() -> None:
    distribution, order = masked(7), [2, 0, 1]
    sets_BL = np.random.default_rng(5).random((B, 7)) < 0.5
    for ask in (
        lambda d, rows: d.marginal_logits(),
        lambda d, rows: d.log_prob(sets_BL[rows]),
        lambda d, rows: d.as_drawn.sets_BSL,
        lambda d, rows: d.top_sets(3).sets_BTL,
        lambda d, rows: d.entropy().value_B,
        lambda d, rows: d.prob(parse("P(a & b | c)", letters(7))),
    ):
        all_rows = ask(distribution, [0, 1, 2])
        np.testing.assert_allclose(ask(distribution[order], order), all_rows[order], rtol=1e-9)
        np.testing.assert_allclose(ask(distribution[[1]], [1])[0], all_rows[1], rtol=1e-9)


def test_an_explanation_names_the_evidence_and_no_components() -> None:
    why = explain(masked()[[0]], 0, {2: True, 3: False}, letters(L))
    assert {piece.name for piece in why.pieces} == {"c", "d"}
    assert why.scenes == ()
    assert why.log_odds == pytest.approx(reference_logit(random_outputs(), 0, 0, {2: True, 3: False}), rel=1e-9)


def test_outputs_that_do_not_fit_are_named() -> None:
    outputs = random_outputs()
    with pytest.raises(ModelError, match=r"output 'places' of the family 'masked' has shape \(3, 2, 6\); it must be NPD"):
        MaskedDistribution.of_outputs(outputs | {"places": np.zeros((B, P, 6))})
    with pytest.raises(ModelError, match="output 'readout' of the family 'masked' contains nan"):
        MaskedDistribution.of_outputs(outputs | {"readout": np.full((L, D), np.nan)})
    with pytest.raises(ModelError, match="family 'masked' needs outputs logits, places"):
        MaskedDistribution.of_outputs({"logits": outputs["logits"]})
