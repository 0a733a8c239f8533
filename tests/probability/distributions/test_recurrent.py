"""Label sets as sequences: exact probabilities against a written-out network, and estimates against all 2^L label sets."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit, logsumexp

from rayprob.errors import ModelError, QueryError
from rayprob.probability.distributions import recurrent, sequences
from rayprob.probability.distributions.evidence import Evidence
from rayprob.probability.distributions.recurrent import RecurrentDistribution
from rayprob.probability.queries.answer import parse, probabilities
from tests.probability.brute_force import all_sets, letters

B, L, E, H = 3, 5, 3, 4
SETS_SL = all_sets(L)
EVIDENCE = {3: True, 0: False}  # labels in the middle of the order
AGREES_S = SETS_SL[:, 3] & ~SETS_SL[:, 0]


def outputs_of(seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    shapes = {"context": (B, E), "embedding": (E, L), "cell_input": (3, E, H), "cell_state": (3, H, H), "cell_bias": (3, H)}
    shapes |= {"logits": (B, L), "start": (H,), "project": (H, E)}
    return {name: random.normal(0, 1.5, shape) for name, shape in shapes.items()} | {"order": np.array([2, 0, 4, 1, 3])}


def distribution(seed: int = 0) -> RecurrentDistribution:
    return RecurrentDistribution.of_outputs(outputs_of(seed))


def log_prob_of(outputs: dict[str, np.ndarray], image: int, y_L: np.ndarray) -> float:
    """Log p of one label set: the softmax over END and later labels, step by step."""
    order, state, last, total = np.argsort(outputs["order"]), outputs["start"], -1, 0.0
    sequence = [place for place in range(L) if y_L[order[place]]] + [L]
    for chosen in sequence:
        vector = np.tanh(outputs["context"][image] + state @ outputs["project"])
        logits = (outputs["logits"][image] + vector @ outputs["embedding"])[order]
        later = range(last + 1, L)
        softplus = np.log1p(np.exp(logits))
        scores = {place: logits[place] + sum(softplus[m] for m in later if m > place) for place in later} | {L: 0.0}
        total += scores[chosen] - logsumexp(list(scores.values()))
        if chosen < L:
            read, (into, kept, bias) = (
                outputs["embedding"][:, order[chosen]],
                (outputs[f"cell_{n}"] for n in ("input", "state", "bias")),
            )
            reset, update = (expit(read @ into[gate] + state @ kept[gate] + bias[gate]) for gate in (0, 1))
            new = np.tanh(read @ into[2] + bias[2] + reset * (state @ kept[2]))
            state, last = update * state + (1 - update) * new, chosen
    return total


@cache
def exact_BS(seed: int = 0) -> np.ndarray:
    outputs = outputs_of(seed)
    return np.exp([[log_prob_of(outputs, image, y_L) for y_L in SETS_SL] for image in range(B)])


def assert_within(found: np.ndarray, expected: np.ndarray, error: np.ndarray) -> None:
    assert (np.abs(found - expected) <= 4 * error + 1e-9).all(), (found - expected) / error


def test_log_probabilities_are_exact_and_sum_to_1_over_all_label_sets() -> None:
    found_BS = np.exp(np.stack([distribution().log_prob(y_L[None]) for y_L in SETS_SL], axis=1))
    np.testing.assert_allclose(found_BS, exact_BS(), rtol=1e-10)
    np.testing.assert_allclose(found_BS.sum(axis=1), 1, rtol=1e-12)


def test_estimates_agree_with_all_label_sets_within_their_errors() -> None:
    given, p_BS = distribution(), exact_BS()
    marginal_BL, error_BL = given.estimated_marginals()
    assert_within(marginal_BL, p_BS @ SETS_SL, error_BL)
    assert error_BL.max() < 0.03
    np.testing.assert_array_equal(given.marginals(), marginal_BL)
    pairs_BLL = np.einsum("bs,si,sj->bij", p_BS, SETS_SL, SETS_SL)
    np.testing.assert_allclose(given.pair_probabilities(), pairs_BLL, atol=0.12)
    entropy = given.entropy()
    assert_within(entropy.value_B, -(p_BS * np.log(p_BS)).sum(axis=1), entropy.standard_error_B)
    assert (entropy.standard_error_B > 0).all()


def test_the_first_label_of_the_order_has_its_exact_marginal() -> None:
    """It is drawn before all others, so each draw has the same chance of it."""
    marginal_BL, error_BL = distribution().estimated_marginals()
    np.testing.assert_allclose(marginal_BL[:, 1], (exact_BS() @ SETS_SL)[:, 1], rtol=1e-10)
    assert (error_BL[:, 1] < 1e-9).all()


def test_evidence_weighs_the_samples() -> None:
    told, p_BS = distribution().condition(EVIDENCE), exact_BS() * AGREES_S
    marginal_BL, error_BL = told.estimated_marginals()
    assert_within(marginal_BL, p_BS @ SETS_SL / p_BS.sum(axis=1, keepdims=True), error_BL)
    np.testing.assert_array_equal(marginal_BL[:, [0, 3]], [[0.0, 1.0]] * B)
    assert told.sample(9, seed=1)[:, :, 3].all()
    assert not told.sample(9, seed=1)[:, :, 0].any()
    evidence = Evidence.of(EVIDENCE, L)
    log_evidence_B = distribution().log_prob(evidence.values_BL, evidence.known_BL)
    np.testing.assert_allclose(np.exp(log_evidence_B), p_BS.sum(axis=1), rtol=0.1)
    entropy_B = -(p_BS * np.log(np.where(p_BS > 0, p_BS, 1) / p_BS.sum(axis=1, keepdims=True))).sum(1) / p_BS.sum(1)
    np.testing.assert_allclose(told.entropy().value_B, entropy_B, atol=0.2)
    for y_L, p_B in zip(SETS_SL[AGREES_S], p_BS[:, AGREES_S].T, strict=True):
        np.testing.assert_allclose(told.log_prob(y_L[None]), np.log(p_B) - log_evidence_B, rtol=1e-9)


def test_evidence_that_contradicts_what_is_known_is_refused() -> None:
    told = distribution().condition(EVIDENCE)
    assert told.rules_out_sets
    assert np.isneginf(told.log_prob(np.zeros((1, L), bool))).all()
    with pytest.raises(QueryError, match="has probability 0 for 3 of 3 images"):
        told.condition({3: False})


@pytest.mark.parametrize("text", ["P(a & !b | d)", "P(count >= 2)", "P(e | a, !b)", "P((a | b) | (c | d))", "P(c)"])
def test_queries_are_estimated_with_their_errors(text: str) -> None:
    query = parse(text, letters(L))
    a, b, c, d, e = SETS_SL.T
    event_S, given_S = {
        "P(a & !b | d)": (a & ~b, d),
        "P(count >= 2)": (SETS_SL.sum(axis=1) >= 2, a | ~a),
        "P(e | a, !b)": (e, a & ~b),
        "P((a | b) | (c | d))": (a | b, c | d),
        "P(c)": (c, a | ~a),
    }[text]
    expected_B = exact_BS() @ (event_S & given_S) / (exact_BS() @ given_S)
    found_B, error_B = distribution().prob(query), distribution().standard_error(query)
    assert_within(found_B, expected_B, error_B)
    assert (error_B < 0.1).all()
    np.testing.assert_array_equal(probabilities([query], distribution())[0], found_B)


def test_a_standard_error_is_refused_as_the_answer_is() -> None:
    rare = RecurrentDistribution.of_outputs(outputs_of() | {"logits": np.full((B, L), -30.0)})
    query = parse("P(a | count >= 4)", letters(L))
    with pytest.raises(QueryError, match="none of the 256 label sets drawn") as refused:
        rare.prob(query)
    with pytest.raises(QueryError) as refused_too:
        rare.standard_error(query)
    assert str(refused_too.value) == str(refused.value)


def test_a_standard_error_is_finite_where_the_weights_of_the_samples_underflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples of which one in two weighs e^-800: half of them meet a condition, and all of these weigh that."""
    drawn = sequences.draw

    def draw(*given: Any) -> sequences.Draws:
        found = drawn(*given)
        return replace(found, log_weight_BD=torch.where(found.sets_BDL[:, :, 0], -800.0, 0.0).double())

    monkeypatch.setattr(sequences, "draw", draw)
    first = letters(L).names[distribution().order_L[0]]
    query = parse(f"P({first} & count >= 2 | ({first} | ({first} & a)))", letters(L))
    p_B, error_B = distribution().prob(query), distribution().standard_error(query)
    number_B = distribution()._draws.sets_BDL[:, :, 0].sum(dim=1).numpy()
    np.testing.assert_allclose(error_B, np.maximum(np.sqrt(p_B * (1 - p_B) / number_B), 1 / number_B))


def test_a_wide_beam_finds_the_most_probable_sets() -> None:
    top, p_BS = distribution().top_sets(32), exact_BS()
    np.testing.assert_allclose(np.exp(top.log_prob_BT), -np.sort(-p_BS, axis=1), rtol=1e-10)
    for sets_TL, log_T, p_S in zip(top.sets_BTL, top.log_prob_BT, p_BS, strict=True):
        np.testing.assert_allclose(p_S[sets_TL @ (2 ** np.arange(L)[::-1])], np.exp(log_T), rtol=1e-10)
    told = distribution().condition(EVIDENCE).top_sets(8)
    assert (told.sets_BTL[:, :, 3] & ~told.sets_BTL[:, :, 0]).all()
    np.testing.assert_allclose(distribution().top_sets(3).log_prob_BT, top.log_prob_BT[:, :3])


def test_the_best_f1_set_is_near_the_best_of_all() -> None:
    f1_SS = 2 * (SETS_SL @ SETS_SL.T.astype(int)) / np.maximum(SETS_SL.sum(1)[:, None] + SETS_SL.sum(1), 1)
    f1_SS[0, 0] = 1
    best, expected_BS = distribution().best_f1_sets(), exact_BS() @ f1_SS
    chosen_B = best.sets_BL @ (2 ** np.arange(L)[::-1])
    assert (expected_BS[np.arange(B), chosen_B] > expected_BS.max(axis=1) - 0.03).all()
    np.testing.assert_allclose(best.expected_f1_B, expected_BS.max(axis=1), atol=0.08)


def test_an_image_has_the_same_answers_whatever_is_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    given = distribution()
    whole_BL = given.marginals()
    np.testing.assert_allclose(given[[2, 0]].marginals(), whole_BL[[2, 0]], rtol=1e-12)
    np.testing.assert_array_equal(given.sample(7, seed=3)[:, [1]], given[[1]].sample(7, seed=3))
    monkeypatch.setattr(recurrent.RecurrentDistribution, "bytes_per_image", 2**30)  # one image per chunk
    np.testing.assert_allclose(given.marginals(), whole_BL, rtol=1e-12)


def test_the_log_probabilities_of_whole_label_sets_are_computed_for_a_chunk_of_images_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sets_BL = np.array([[1, 0, 1, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], dtype=bool)
    whole_B, sizes = distribution().log_prob(sets_BL), []
    logits_of_sets = sequences.logits_of_sets

    def counted(network: sequences.LabelNetwork, *parts_B: torch.Tensor) -> torch.Tensor:
        sizes.append(len(parts_B[0]))
        return logits_of_sets(network, *parts_B)

    monkeypatch.setattr(sequences, "logits_of_sets", counted)
    monkeypatch.setattr("rayprob.probability.distributions.distribution.CHUNK_BYTES", 1000)  # one image per chunk
    np.testing.assert_allclose(distribution().log_prob(sets_BL), whole_B, rtol=1e-12)
    assert sizes == [1, 1, 1]


def test_outputs_with_nan_are_refused() -> None:
    with pytest.raises(ModelError, match="logits of family recurrent contain nan"):
        RecurrentDistribution.of_outputs({**outputs_of(), "logits": np.full((B, L), np.nan)})


def test_one_image_has_the_answers_that_it_has_among_several() -> None:
    told, alone = distribution().condition(EVIDENCE), distribution()[[1]].condition(EVIDENCE)
    np.testing.assert_allclose(alone.top_sets(2).log_prob_BT, told.top_sets(2).log_prob_BT[[1]], rtol=1e-12)
    np.testing.assert_allclose(alone.entropy().value_B, told.entropy().value_B[[1]], rtol=1e-12)
