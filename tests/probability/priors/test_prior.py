"""A label prior over independent labels: exact against its definition, summed over all 2^L label sets."""

import itertools

import numpy as np
import pytest
from scipy.special import expit, log_expit, logsumexp

from rayprob.probability.distributions.distribution import MixtureDistribution
from rayprob.probability.distributions.mixture import LabelMixture
from rayprob.probability.distributions.tilted import TiltedDistribution
from rayprob.probability.priors.prior import LabelPrior

SIZES = [(2, 5, 1), (3, 4, 3), (1, 8, 2)]


def made(num_images: int, num_labels: int, num_components: int, seed: int = 0):
    random = np.random.default_rng(seed)
    weights_K = random.dirichlet(np.ones(num_components))
    mixture = LabelMixture(weights_K, random.uniform(0.02, 0.9, (num_components, num_labels)))
    return mixture, random.normal(-1, 2, (num_images, num_labels)), random.uniform(0, 1.2, (num_images, 1))


def all_sets(num_labels: int):
    return np.array(list(itertools.product([False, True], repeat=num_labels)))


def by_definition(mixture: LabelMixture, logits_L, strength: float):
    """Log probability of every label set [2^L], from the formula as it is printed."""
    sets_SL = all_sets(len(logits_L))
    p_KL, p_L = mixture.probabilities_KL, mixture.marginals_L
    log_classifier_S = np.where(sets_SL, log_expit(logits_L), log_expit(-logits_L)).sum(axis=1)
    ratio_SKL = np.where(sets_SL[:, None], p_KL / p_L, (1 - p_KL) / (1 - p_L))
    log_S = log_classifier_S + np.log((mixture.mixing_weights_K * (ratio_SKL**strength).prod(axis=2)).sum(axis=1))
    return log_S - logsumexp(log_S)


@pytest.mark.parametrize(("num_images", "num_labels", "num_components"), SIZES)
def test_every_label_set_has_the_probability_of_the_definition(num_images, num_labels, num_components):
    mixture, logits_BL, strength_B1 = made(num_images, num_labels, num_components)
    tilted = TiltedDistribution(LabelPrior.of(mixture), logits_BL, strength_B1)
    sets_SL = all_sets(num_labels)
    for image in range(num_images):
        expected_S = by_definition(mixture, logits_BL[image], strength_B1[image, 0])
        found_S = np.array([tilted[[image]].log_prob(present_L[None])[0] for present_L in sets_SL])
        np.testing.assert_allclose(found_S, expected_S, atol=1e-10)
        np.testing.assert_allclose(tilted.marginals()[image], np.exp(expected_S) @ sets_SL, atol=1e-12)
        assert np.exp(tilted.top_sets(1).log_prob_BT[image, 0]) == pytest.approx(np.exp(expected_S.max()))


def test_a_strength_of_zero_leaves_the_classifier_alone():
    mixture, logits_BL, _ = made(3, 6, 4)
    tilted = TiltedDistribution(LabelPrior.of(mixture), logits_BL, np.zeros((3, 1)))
    np.testing.assert_allclose(tilted.marginals(), expit(logits_BL), atol=1e-13)


def test_evidence_is_conditioned_on_as_in_the_mixture_written_out():
    mixture, logits_BL, strength_B1 = made(3, 6, 4)
    tilted = TiltedDistribution(LabelPrior.of(mixture), logits_BL, strength_B1)
    whole = MixtureDistribution(tilted.log_mixing_BK, tilted.component_logits_BKL)
    found, expected = (distribution.condition({1: True, 4: False}) for distribution in (tilted, whole))
    assert isinstance(found, TiltedDistribution)
    np.testing.assert_allclose(found.marginals(), expected.marginals(), atol=1e-13)
    np.testing.assert_allclose(found.entropy().value_B, expected.entropy().value_B, atol=1e-12)
    assert np.array_equal(found.best_f1_sets().sets_BL, expected.best_f1_sets().sets_BL)


def test_nothing_depends_on_how_images_are_cut_into_chunks(monkeypatch):
    mixture, logits_BL, strength_B1 = made(9, 6, 4)
    tilted = TiltedDistribution(LabelPrior.of(mixture), logits_BL, strength_B1)
    whole = tilted.marginals(), tilted.top_sets(3), tilted.best_f1_sets()
    monkeypatch.setattr("rayprob.probability.distributions.distribution.CHUNK_BYTES", 8 * 6 * 4 * 2)
    monkeypatch.setattr("rayprob.probability.priors.prior.CHUNK_VALUES", 6 * 4 * 2)
    again = TiltedDistribution(LabelPrior.of(mixture), logits_BL, strength_B1)
    np.testing.assert_allclose(again.marginals(), whole[0], atol=1e-15)
    assert np.array_equal(again.top_sets(3).sets_BTL, whole[1].sets_BTL)
    assert np.array_equal(again.best_f1_sets().sets_BL, whole[2].sets_BL)


@pytest.mark.parametrize("known_share", [1.0, 0.6, 0.0])
def test_slopes_are_those_of_the_negative_log_likelihood(known_share):
    mixture, logits_NL, strength_N1 = made(4, 5, 3)
    random = np.random.default_rng(1)
    targets_NL, known_NL = random.random((4, 5)) < 0.4, random.random((4, 5)) < known_share
    prior = LabelPrior.of(mixture)
    found = prior.slopes(logits_NL, strength_N1, targets_NL, known_NL)
    expected_N = -TiltedDistribution(prior, logits_NL, strength_N1).log_prob(targets_NL, known_NL)
    np.testing.assert_allclose(found.nll_N, expected_N, atol=1e-12)
    step = 1e-6
    for label in range(5):
        moved = logits_NL + step * (np.arange(5) == label)
        rise_N = prior.slopes(moved, strength_N1, targets_NL, known_NL).nll_N - found.nll_N
        np.testing.assert_allclose(found.logits_NL[:, label], rise_N / step, atol=1e-5)
    rise_N = prior.slopes(logits_NL, strength_N1 + step, targets_NL, known_NL).nll_N - found.nll_N
    np.testing.assert_allclose(found.strength_N, rise_N / step, atol=1e-5)
