"""Scale, shift and strength of a prior, fitted together by likelihood."""

import numpy as np
import pytest
from scipy.special import expit, logit

from rayprob.probability.calibration.prior import FITS, PriorCalibrator, fit_prior_calibrator
from rayprob.probability.distributions.mixture import LabelMixture

NUM_LABELS = 8


def scenes_and_classifier(num_images: int, seed: int, *, sees_context: bool):
    """Label sets of two kinds of scenes, and the logits of a classifier that looks at each label alone, or at the scene too."""
    random = np.random.default_rng(seed)
    p_KL = np.clip(np.stack([np.linspace(0.9, 0.05, NUM_LABELS), np.linspace(0.05, 0.9, NUM_LABELS)]), 0.05, 0.9)
    mixture = LabelMixture(np.array([0.5, 0.5]), p_KL)
    component_N = random.integers(0, 2, num_images)
    targets_NL = random.random((num_images, NUM_LABELS)) < p_KL[component_N]
    evidence_NL = random.normal(np.where(targets_NL, 1.0, -1.0), 1.0)  # its log likelihood ratio is 2 x
    base_NL = logit(p_KL[component_N]) if sees_context else logit(mixture.marginals_L)
    return mixture, 2 * evidence_NL + base_NL, targets_NL, np.ones_like(targets_NL)


def said(calibrator: PriorCalibrator, logits_NL):
    return calibrator.as_distribution(calibrator.apply_outputs({"logits": logits_NL}))


@pytest.mark.parametrize("affine", list(FITS))
def test_a_classifier_of_single_labels_takes_the_whole_prior(affine: str) -> None:
    fitted = fit_prior_calibrator(affine, "true", *scenes_and_classifier(2000, 0, sees_context=False))
    assert fitted.strength == pytest.approx(1, abs=0.1)
    np.testing.assert_allclose(np.log(fitted.affine.scale_L), 0, atol=0.25)


@pytest.mark.parametrize("affine", list(FITS))
def test_a_classifier_that_sees_the_scene_takes_none(affine: str) -> None:
    fitted = fit_prior_calibrator(affine, "true", *scenes_and_classifier(2000, 1, sees_context=True))
    assert fitted.strength < 0.1


def test_a_prior_of_other_labels_is_left_aside() -> None:
    mixture, *rows = scenes_and_classifier(2000, 2, sees_context=False)
    permuted = LabelMixture(mixture.mixing_weights_K, mixture.probabilities_KL[:, [0, 7, 2, 5, 4, 3, 6, 1]])
    assert fit_prior_calibrator("identity", "wrong", permuted, *rows).strength < 0.2


def test_a_few_images_take_less_of_it_than_many() -> None:
    few, many = (
        fit_prior_calibrator("identity", "true", *scenes_and_classifier(n, 3, sees_context=False)).strength for n in (3, 3000)
    )
    assert few < many


def test_the_joint_model_is_better_than_independent_labels_on_new_images() -> None:
    fitted = fit_prior_calibrator("temperature", "true", *scenes_and_classifier(500, 4, sees_context=False))
    _, logits_NL, targets_NL, _ = scenes_and_classifier(2000, 5, sees_context=False)
    joint = -said(fitted, logits_NL).log_prob(targets_NL).mean()
    alone = np.logaddexp(0, np.where(targets_NL, -logits_NL, logits_NL)).sum(axis=1).mean()
    assert joint < alone - 0.3


def test_unknown_labels_neither_help_nor_hurt() -> None:
    mixture, logits_NL, targets_NL, known_NL = scenes_and_classifier(400, 6, sees_context=False)
    known_NL[:, 3] = False
    changed_NL = targets_NL.copy()
    changed_NL[:, 3] = ~changed_NL[:, 3]
    first, second = (fit_prior_calibrator("platt", "true", mixture, logits_NL, t, known_NL) for t in (targets_NL, changed_NL))
    assert first.strength == second.strength


def test_a_stored_calibrator_comes_back() -> None:
    mixture, logits_NL, targets_NL, known_NL = scenes_and_classifier(100, 7, sees_context=False)
    fitted = fit_prior_calibrator("platt", "coco", mixture, logits_NL, targets_NL, known_NL)
    again = PriorCalibrator.from_arrays(fitted.name, fitted.to_arrays())
    assert again.name == fitted.name == "platt + coco"
    assert np.array_equal(said(again, logits_NL).marginals(), said(fitted, logits_NL).marginals())
    assert not np.allclose(said(fitted, logits_NL).marginals(), expit(logits_NL))
