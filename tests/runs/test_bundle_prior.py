"""A bundle with a label prior, written and read again, against the prior's definition summed over all 2^L label sets."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rayprob.errors import CalibrationError, QueryError
from rayprob.labels import LabelSpace
from rayprob.probability.calibration.affine import AffineCalibrator
from rayprob.probability.calibration.prior import PriorCalibrator
from rayprob.probability.distributions.distribution import LabelDistribution
from rayprob.probability.distributions.evidence import Evidence
from rayprob.probability.distributions.mixture import LabelMixture
from rayprob.probability.priors.file import LabelPriorFile
from rayprob.probability.queries.answer import parse
from rayprob.runs.bundle import Bundle
from tests.predict.small import make_bundle
from tests.probability.brute_force import all_sets

Floats = NDArray[np.float64]

NUM_IMAGES = 3
KNOWN_TO_PRIOR = 9
LABELS = LabelSpace(tuple("abcdefghijkl"), tuple(range(12)))  # the prior does not know j, k and l
SETS_SL = all_sets(len(LABELS))
CLOSE = {"rtol": 0, "atol": 1e-10}


def calibrator(strength: float) -> PriorCalibrator:
    random = np.random.default_rng(3)
    p_KL = random.uniform(0.01, 0.9, (7, KNOWN_TO_PRIOR))
    file = LabelPriorFile(LABELS.names[:KNOWN_TO_PRIOR], LabelMixture(random.dirichlet(np.ones(7)), p_KL), "a test")
    affine = AffineCalibrator("platt", random.uniform(0.7, 1.3, 12), random.normal(0, 0.3, 12))
    return PriorCalibrator(affine, strength, "scenes", file.over(LABELS))


def by_definition(given: PriorCalibrator, logits_BL: Floats) -> Floats:
    """P(label set) [B, S], multiplied out from the formula at the head of `prior.py`."""
    p_BL = 1 / (1 + np.exp(-(logits_BL * given.affine.scale_L + given.affine.shift_L)))
    p_KL, p_L = given.mixture.probabilities_KL, given.mixture.marginals_L
    ratio_SKL = np.where(SETS_SL[:, None], p_KL / p_L, (1 - p_KL) / (1 - p_L)) ** given.strength
    prior_S = (given.mixture.mixing_weights_K * ratio_SKL.prod(axis=2)).sum(axis=1)
    joint_BS = np.where(SETS_SL, p_BL[:, None], 1 - p_BL[:, None]).prod(axis=2) * prior_S
    return np.asarray(joint_BS / joint_BS.sum(axis=1, keepdims=True))


@pytest.fixture(params=[0.0, 0.6, 2.0])
def loaded(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[LabelDistribution, Floats]:
    """What a bundle that was written and read again makes of some logits, and the probabilities [B, S] that are right."""
    given = calibrator(request.param)
    replace(make_bundle(0, {"name": "bernoulli"}, labels=LABELS), calibrator=given).save(str(tmp_path / "bundle"))
    logits_BL = np.random.default_rng(4).normal(-1, 2, (NUM_IMAGES, 12))
    return Bundle.load(str(tmp_path / "bundle")).distribution({"logits": logits_BL}), by_definition(given, logits_BL)


def test_marginals_pairs_and_counts(loaded: tuple[LabelDistribution, Floats]) -> None:
    found, p_BS = loaded
    np.testing.assert_allclose(found.marginals(), p_BS @ SETS_SL, **CLOSE)
    present_BL, absent_BL = p_BS @ SETS_SL, p_BS @ ~SETS_SL
    np.testing.assert_allclose(found.marginal_logits(), np.log(present_BL / absent_BL), **CLOSE)
    np.testing.assert_allclose(found.pair_probabilities(), np.einsum("bs,si,sj->bij", p_BS, SETS_SL, SETS_SL), **CLOSE)
    counts_SN = SETS_SL.sum(axis=1)[:, None] == np.arange(13)
    np.testing.assert_allclose(found.count_distribution(), p_BS @ counts_SN, **CLOSE)


def test_probabilities_of_whole_and_partial_label_sets(loaded: tuple[LabelDistribution, Floats]) -> None:
    found, p_BS = loaded
    for row in (0, 5, 1234, 4095):
        sets_BL = np.repeat(SETS_SL[[row]], NUM_IMAGES, axis=0)
        np.testing.assert_allclose(found.log_prob(sets_BL), np.log(p_BS[:, row]), **CLOSE)
    random = np.random.default_rng(5)
    values_BL, known_BL = random.random((2, NUM_IMAGES, 12)) < 0.5
    agree_BS = ((values_BL[:, None] == SETS_SL) | ~known_BL[:, None]).all(axis=2)
    np.testing.assert_allclose(found.log_prob(values_BL, known_BL), np.log((p_BS * agree_BS).sum(axis=1)), **CLOSE)


QUERIES: dict[str, tuple[Callable[[Floats], Floats], Callable[[Floats], Floats]]] = {
    "P(a & k)": (lambda s: s[:, 0] & s[:, 10], lambda s: s[:, 0] | True),
    "P(a | b, !l)": (lambda s: s[:, 0], lambda s: s[:, 1] & ~s[:, 11]),
    "P(count >= 4 | c)": (lambda s: s.sum(axis=1) >= 4, lambda s: s[:, 2]),
    "P(a & (b | c) | !d)": (lambda s: s[:, 0] & (s[:, 1] | s[:, 2]), lambda s: ~s[:, 3]),
}


@pytest.mark.parametrize("text", list(QUERIES))
def test_queries(loaded: tuple[LabelDistribution, Floats], text: str) -> None:
    found, p_BS = loaded
    event_S, given_S = (np.asarray(is_true(SETS_SL)) for is_true in QUERIES[text])
    wanted_B = (p_BS * (event_S & given_S)).sum(axis=1) / (p_BS * given_S).sum(axis=1)
    np.testing.assert_allclose(found.prob(parse(text, LABELS)), wanted_B, **CLOSE)


def test_partial_evidence_and_all_that_is_asked_after_it(loaded: tuple[LabelDistribution, Floats]) -> None:
    found, p_BS = loaded
    values_BL, known_BL = np.zeros((2, NUM_IMAGES, 12), dtype=bool)
    known_BL[0, [0, 9]], known_BL[1, [4]], values_BL[0, 0], values_BL[1, 4] = True, True, True, True  # nothing of image 2
    p_BS = p_BS * ((values_BL[:, None] == SETS_SL) | ~known_BL[:, None]).all(axis=2)
    p_BS = p_BS / p_BS.sum(axis=1, keepdims=True)
    after = found.condition(Evidence(values_BL, known_BL))
    np.testing.assert_allclose(after.marginals(), p_BS @ SETS_SL, **CLOSE)
    np.testing.assert_allclose(np.exp(after.top_sets(5).log_prob_BT), -np.sort(-p_BS, axis=1)[:, :5], **CLOSE)
    later = after.condition({2: True})
    p_BS = p_BS * SETS_SL[:, 2] / (p_BS @ SETS_SL[:, [2]])
    np.testing.assert_allclose(later.marginals(), p_BS @ SETS_SL, **CLOSE)
    np.testing.assert_allclose(later.prob(parse("P(a | b)", LABELS)), after.prob(parse("P(a | b, c)", LABELS)), **CLOSE)
    with pytest.raises(QueryError, match="the evidence has probability 0 for 3 of 3 images"):
        later.condition({2: False})


def test_top_sets(loaded: tuple[LabelDistribution, Floats]) -> None:
    found, p_BS = loaded
    top = found.top_sets(20)
    np.testing.assert_allclose(np.exp(top.log_prob_BT), -np.sort(-p_BS, axis=1)[:, :20], **CLOSE)
    place_BT = top.sets_BTL @ (2 ** np.arange(12)[::-1])
    assert [len(set(place_T)) for place_T in place_BT] == [20] * NUM_IMAGES
    np.testing.assert_allclose(np.take_along_axis(p_BS, place_BT, axis=1), np.exp(top.log_prob_BT), **CLOSE)


def test_entropy_and_mutual_information(loaded: tuple[LabelDistribution, Floats]) -> None:
    found, p_BS = loaded
    np.testing.assert_allclose(found.entropy().value_B, -(p_BS * np.log(p_BS)).sum(axis=1), **CLOSE)
    states_S2L = np.stack([~SETS_SL, SETS_SL], axis=1)
    pairs = np.einsum("bs,sui,svj->buvij", p_BS, states_S2L, states_S2L, optimize=True)
    alone = np.einsum("bs,sui->bui", p_BS, states_S2L)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = pairs * np.log(pairs / (alone[:, :, None, :, None] * alone[:, None, :, None, :]))
    np.testing.assert_allclose(found.mutual_information(), np.nansum(terms, axis=(1, 2)), **CLOSE)


def test_sets_of_the_largest_expected_f1(loaded: tuple[LabelDistribution, Floats]) -> None:
    found, p_BS = loaded
    evidence = {0: True, 9: False, 10: False}
    left_S = np.flatnonzero((SETS_SL[:, list(evidence)] == list(evidence.values())).all(axis=1))  # 512, of which to choose
    sets_SL, p_BS = SETS_SL[left_S], p_BS[:, left_S] / p_BS[:, left_S].sum(axis=1, keepdims=True)
    both_SS, size_S = sets_SL.astype(float) @ sets_SL.T, sets_SL.sum(axis=1)
    expected_BS = p_BS @ (2 * both_SS / (size_S[:, None] + size_S))
    best = found.condition(evidence).best_f1_sets()
    np.testing.assert_allclose(best.expected_f1_B, expected_BS.max(axis=1), **CLOSE)
    same_BS = (best.sets_BL[:, None] == sets_SL).all(axis=2)
    np.testing.assert_allclose(expected_BS[same_BS], expected_BS.max(axis=1), **CLOSE)


def test_a_prior_over_other_labels_is_named() -> None:
    given = replace(calibrator(0.6), mixture=calibrator(0.6).mixture.restricted(range(5)))
    with pytest.raises(CalibrationError, match=r"'platt \+ scenes' has a prior over 5 labels, but the logits have 12"):
        given.apply_outputs({"logits": np.zeros((1, 12))})
