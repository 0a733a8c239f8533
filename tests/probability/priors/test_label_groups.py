"""Labels four at a time give what labels one at a time give, also where numbers grow steep."""

import numpy as np
import pytest
from numpy.typing import NDArray

from rayprob.probability.distributions.distribution import MixtureDistribution
from rayprob.probability.distributions.mixture import LabelMixture
from rayprob.probability.distributions.tilted import TiltedDistribution
from rayprob.probability.priors import label_groups
from rayprob.probability.priors.label_groups import LabelGroups
from rayprob.probability.priors.prior import LabelPrior

Floats = NDArray[np.float64]


def made(num_labels: int, *, least: float = 1e-3) -> tuple[LabelPrior, Floats]:
    random = np.random.default_rng(num_labels)
    p_KL = np.exp(random.uniform(np.log(least), np.log(0.9), (5, num_labels)))
    return LabelPrior.of(LabelMixture(random.dirichlet(np.ones(5)), p_KL)), random.normal(-1, 3, (6, num_labels))


def assert_same_as_written_out(found: TiltedDistribution) -> None:
    """Weights by one logarithm for each component and label; all else as any mixture of these components."""
    p_BL, q_BL = 1 / (1 + np.exp(-found.logits_BL)), 1 / (1 + np.exp(found.logits_BL))
    factor_BKL = q_BL[:, None] + p_BL[:, None] * np.exp(found.strength_B1[:, None] * found.prior.odds_KL)
    log_BK = found.prior.log_mixing_K + found.strength_B1 * found.prior.absent_K + np.log(factor_BKL).sum(axis=2)
    whole = MixtureDistribution(log_BK, found.component_logits_BKL)
    np.testing.assert_allclose(found.log_mixing_BK, whole.log_mixing_BK, atol=1e-10)
    np.testing.assert_allclose(found.marginals(), whole.marginals(), atol=1e-12)
    np.testing.assert_allclose(found.marginal_logits(), whole.marginal_logits(), rtol=1e-12, atol=1e-10)
    top, wanted = found.top_sets(4), whole.top_sets(4)
    np.testing.assert_allclose(top.log_prob_BT, wanted.log_prob_BT, atol=1e-9)
    np.testing.assert_allclose(found.best_f1_sets().expected_f1_B, whole.best_f1_sets().expected_f1_B, atol=1e-12)


@pytest.mark.parametrize("num_labels", [1, 4, 5, 11, 30])
@pytest.mark.parametrize("strength", [0.0, 0.7, 2.0])
def test_any_number_of_labels(num_labels: int, strength: float) -> None:
    prior, logits_BL = made(num_labels)
    assert_same_as_written_out(TiltedDistribution(prior, logits_BL, strength))


def test_steep_logits_and_labels_known_for_certain() -> None:
    prior, logits_BL = made(9)
    logits_BL[0, :6], logits_BL[1, 2:5], logits_BL[2] = -300.0, [np.inf, -np.inf, 40.0], 90.0
    assert_same_as_written_out(TiltedDistribution(prior, logits_BL, 1.0))


def test_a_prior_of_tiny_probabilities() -> None:
    prior, logits_BL = made(9, least=1e-38)
    assert not label_groups.LabelGroups.of(prior.odds_KL).is_steep
    assert_same_as_written_out(TiltedDistribution(prior, logits_BL, 1.0))
    assert LabelGroups.of(4 * prior.odds_KL).is_steep
    assert_same_as_written_out(TiltedDistribution(prior, logits_BL, 4.0))


def test_images_of_several_strengths_are_as_each_by_itself() -> None:
    prior, logits_BL = made(10)
    strength_B1 = np.array([0.2, 1.5, 0.2, 0.0, 1.5, 0.7])[:, None]
    together = TiltedDistribution(prior, logits_BL, strength_B1)
    for image in range(6):
        alone = TiltedDistribution(prior, logits_BL[[image]], strength_B1[[image]])
        np.testing.assert_allclose(together.marginals()[[image]], alone.marginals(), atol=1e-14)
        np.testing.assert_allclose(together.log_mixing_BK[[image]], alone.log_mixing_BK, atol=1e-12)


def test_products_too_small_for_a_number_are_kept_as_logarithms(monkeypatch: pytest.MonkeyPatch) -> None:
    prior, logits_BL = made(400)
    logits_BL[0] = np.inf  # all labels present: in most components a product of tiny factors
    whole = TiltedDistribution(prior, logits_BL, 2.0)
    assert np.minimum(2 * prior.odds_KL, 0).sum(axis=1).min() < -745, "e^-745 is 0"
    assert_same_as_written_out(whole)
    monkeypatch.setattr(label_groups, "MOST_REACH", 100.0)
    np.testing.assert_allclose(TiltedDistribution(prior, logits_BL, 2.0).log_mixing_BK, whole.log_mixing_BK, rtol=1e-12)
