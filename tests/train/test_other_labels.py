"""AP of an image's other labels given some of them, by hand and against an independent loop."""

import numpy as np
import pytest
from sklearn.metrics import label_ranking_average_precision_score

from rayprob.probability.distributions.distribution import BernoulliDistribution, MixtureDistribution
from rayprob.probability.families import from_outputs
from rayprob.train.assess import other_labels
from rayprob.train.other_labels import ap_of_others, compare_other_labels
from tests.calibrate.calibrated_run import mixture_predictions

# Two kinds of images: with labels 0 and 1, or with 2 and 3. Label 0 is a little likelier than 2.
LARGEST = np.finfo(np.float64).max
SCENES = MixtureDistribution(np.log([[0.6, 0.4]]), np.array([[[2.0, 2.0, -4.0, -4.0], [-4.0, -4.0, 2.0, 2.0]]]))


def truth(*columns):
    targets_1L = np.zeros((1, 4), dtype=bool)
    targets_1L[0, list(columns)] = True
    return targets_1L, np.ones_like(targets_1L)


def test_what_is_given_lifts_the_label_that_goes_with_it():
    """Of {2, 3} one is given: the other is ranked first by the mixture, and last but for 0 and 1 by its marginals alone."""
    alone = BernoulliDistribution(SCENES.marginal_logits())
    assert ap_of_others(alone, *truth(2, 3), 0)[0] == pytest.approx((2 / 4 + 2 / 4) / 2)  # 0 and 1 are first, 2 and 3 tie
    assert ap_of_others(SCENES, *truth(2, 3), 0)[0] == pytest.approx(0.5)
    assert ap_of_others(alone, *truth(2, 3), 1)[0] == pytest.approx(1 / 3)
    assert ap_of_others(SCENES, *truth(2, 3), 1)[0] == 1


def test_an_image_without_a_label_left_over_has_no_value():
    assert np.isnan(ap_of_others(SCENES, *truth(2, 3), 2)).all()
    rows = compare_other_labels(BernoulliDistribution(SCENES.marginal_logits()), SCENES, *truth(2, 3))
    assert [(row.num_given, row.num_images) for row in rows] == [(0, 1), (1, 1)]
    assert (rows[1].alone, rows[1].joint, rows[1].gain.value) == pytest.approx((1 / 3, 1, 2 / 3))


def test_a_label_that_is_not_known_is_neither_given_nor_ranked():
    targets_1L, known_1L = truth(1, 2, 3)
    known_1L[0, 1] = False
    assert ap_of_others(SCENES, targets_1L, known_1L, 1)[0] == 1  # of 0 and the one of 2, 3 that is not given
    assert np.isnan(ap_of_others(SCENES, targets_1L, known_1L, 2)[0])


def test_with_nothing_given_it_is_scikit_learns_label_ranking_average_precision():
    random = np.random.default_rng(0)
    logits_NL, targets_NL = random.normal(size=(60, 7)).round(1), random.random((60, 7)) < 0.4
    targets_NL = targets_NL[targets_NL.any(axis=1)]
    logits_NL = logits_NL[: len(targets_NL)]
    ap_N = ap_of_others(BernoulliDistribution(logits_NL), targets_NL, np.ones_like(targets_NL), 0)
    assert ap_N.mean() == pytest.approx(label_ranking_average_precision_score(targets_NL, logits_NL))


def test_evidence_changes_no_score_of_independent_labels_and_equal_seeds_give_equal_values():
    random = np.random.default_rng(1)
    logits_NL, targets_NL = random.normal(size=(40, 6)), random.random((40, 6)) < 0.5
    known_NL = np.ones_like(targets_NL)
    first, again, other = (ap_of_others(BernoulliDistribution(logits_NL), targets_NL, known_NL, 1, seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other, equal_nan=True)
    # The mean over draws comes near that over all labels that can be given.
    image = int(np.flatnonzero(targets_NL.sum(axis=1) == 3)[0])
    each = []
    for column in np.flatnonzero(targets_NL[image]):
        rest = np.delete(np.arange(6), column)
        each.append(label_ranking_average_precision_score(targets_NL[image, None][:, rest], logits_NL[image, None][:, rest]))
    assert first[image] == pytest.approx(np.mean(each), abs=0.1)


@pytest.mark.parametrize("num_given", [1, 2])
def test_a_mixture_that_the_labels_follow_gains_clearly(num_given):
    random = np.random.default_rng(2)
    p_KL = np.array([[0.7, 0.7, 0.7, 0.05, 0.05, 0.05], [0.05, 0.05, 0.05, 0.7, 0.7, 0.7]])
    targets_NL = random.random((300, 6)) < p_KL[random.integers(0, 2, 300)]
    joint = MixtureDistribution(np.zeros((300, 2)), np.tile(np.log(p_KL / (1 - p_KL)), (300, 1, 1)))
    alone = BernoulliDistribution(joint.marginal_logits() + 0.01 * random.normal(size=(300, 6)))
    (row,) = compare_other_labels(alone, joint, targets_NL, np.ones_like(targets_NL), [num_given])
    assert row.gain.low > 0.1


def test_an_image_whose_evidence_is_impossible_is_left_out_of_both():
    """Samples of label sets as components: {0, 1} and {2, 3} for the first two images, {0, 2} alone for the third."""
    samples_BKL = np.array([[[1, 1, 0, 0], [0, 0, 1, 1]]] * 2 + [[[1, 0, 1, 0], [1, 0, 1, 0]]])
    joint = MixtureDistribution(np.log(np.full((3, 2), 0.5)), np.where(samples_BKL == 1, np.inf, -np.inf))
    assert joint.ranking_scores()[2].tolist() == [LARGEST, -LARGEST, LARGEST, -LARGEST]
    targets_NL = np.array([[True, True, False, False], [False, False, True, True], [False, False, True, True]])
    alone = BernoulliDistribution(np.clip(joint.marginal_logits(), -9, 9))
    rows = compare_other_labels(alone, joint, targets_NL, np.ones_like(targets_NL), (0, 1))
    assert [(row.num_given, row.num_images) for row in rows] == [(0, 3), (1, 2)]
    assert rows[1].joint == 1
    assert np.isnan(ap_of_others(joint[[2]], targets_NL[2:], np.ones((1, 4), dtype=bool), 1)).all()
    assert rows[0].joint == pytest.approx((2 / 4 + 2 / 4 + (1 / 2 + 2 / 4) / 2) / 3)


def test_a_mixture_head_is_laid_beside_its_own_marginals():
    predicted = mixture_predictions(60, "val", seed=3)
    rows = other_labels(from_outputs(predicted.family, predicted.outputs), predicted)
    assert rows[0].alone == rows[0].joint, "without evidence both rank alike"
    assert (rows[0].gain.low, rows[0].gain.high) == (0, 0)
    assert all(row.alone != row.joint for row in rows[1:])
