"""Calibration metrics against scikit-learn, pair-by-pair loops, and what calibrated marginals must show."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from rayprob.errors import MetricError
from rayprob.metrics.reliability import (
    adaptive_calibration_error,
    brier_score,
    calibration_error_of_labels,
    expected_calibration_error,
    reliability_curve,
    reliability_curves,
)


@st.composite
def forecasts(draw):
    """Marginals (with ties, zeros and ones), targets and known [N, L], at least one pair of each kind known."""
    rows, labels = draw(st.integers(2, 30)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.sampled_from([2, 10, 2**20]))
    marginals_NL = (rng.integers(0, levels + 1, (rows, labels)) / levels).astype(
        draw(st.sampled_from([np.float32, np.float64]))
    )
    targets_NL = rng.random((rows, labels)) < 0.4
    known_NL = rng.random((rows, labels)) < draw(st.sampled_from([0.5, 1.0]))
    targets_NL[:2, 0], known_NL[:2, 0] = (True, False), True
    return marginals_NL, targets_NL, known_NL


def calibration_error_by_loop(marginals_M, targets_M, edges):
    """Naeini et al. 2015, one bin after another."""
    total = 0.0
    for place, (low, high) in enumerate(pairwise(edges)):
        inside = (marginals_M > low) & (marginals_M <= high) | (marginals_M == low) & (place == 0)
        if inside.any():
            total += inside.sum() * abs(targets_M[inside].mean() - marginals_M[inside].astype(np.float64).mean())
    return total / len(marginals_M)


@settings(deadline=None)
@given(forecasts(), st.integers(1, 20))
def test_reliability_curves_equal_scikit_learn(case, bins):
    marginals_NL, targets_NL, known_NL = case
    for binning, strategy in (("equal_width", "uniform"), ("equal_mass", "quantile")):
        curve = reliability_curve(*case, binning=binning, bins=bins)
        # scikit-learn adds a tiny step to its last edge and takes percentiles in the type it is given.
        share, marginal = calibration_curve(
            targets_NL[known_NL], marginals_NL[known_NL].astype(np.float64), n_bins=bins, strategy=strategy
        )
        filled_B = curve.pairs_B > 0
        np.testing.assert_allclose(curve.present_share_B[filled_B], share, rtol=0, atol=1e-12)
        np.testing.assert_allclose(curve.mean_marginal_B[filled_B], marginal, rtol=0, atol=1e-12)
        assert np.isnan(curve.mean_marginal_B[~filled_B]).all()
        assert curve.pairs_B.sum() == known_NL.sum()


@settings(deadline=None)
@given(forecasts(), st.integers(1, 20))
def test_calibration_errors_equal_the_loop_over_bins(case, bins):
    marginals_NL, targets_NL, known_NL = case
    flat = (marginals_NL[known_NL], targets_NL[known_NL])
    uniform = np.linspace(0, 1, bins + 1)
    assert expected_calibration_error(*case, bins=bins) == pytest.approx(calibration_error_by_loop(*flat, uniform), abs=1e-12)
    masses = np.percentile(flat[0].astype(np.float64), uniform * 100)
    assert adaptive_calibration_error(*case, bins=bins) == pytest.approx(calibration_error_by_loop(*flat, masses), abs=1e-12)


@settings(deadline=None)
@given(forecasts())
def test_each_label_has_its_own_curve(case):
    marginals_NL, targets_NL, known_NL = case
    errors_L = calibration_error_of_labels(*case)
    for label, curve in enumerate(reliability_curves(*case)):
        known = known_NL[:, label]
        if known.any():
            alone = (marginals_NL[known, label], targets_NL[known, label])
            assert errors_L[label] == pytest.approx(calibration_error_by_loop(*alone, curve.edges), abs=1e-12)
        else:
            assert np.isnan(errors_L[label])


@settings(deadline=None, max_examples=60)
@given(forecasts(), st.sampled_from(["equal_width", "equal_mass"]), st.integers(1, 12))
def test_brier_score_equals_scikit_learn_and_its_parts_the_loop(case, binning, bins):
    marginals_NL, targets_NL, known_NL = case
    marginals_M, targets_M = marginals_NL[known_NL].astype(np.float64), targets_NL[known_NL]
    score = brier_score(*case, binning=binning, bins=bins)
    assert score.value == pytest.approx(brier_score_loss(targets_M, marginals_M), abs=1e-12)
    share, edges = targets_M.mean(), reliability_curve(*case, binning=binning, bins=bins).edges
    bin_M = np.array([sum(marginal > edge for edge in edges[1:-1]) for marginal in marginals_M])
    parts = np.zeros(3)
    for number in set(bin_M.tolist()):
        p, y = marginals_M[bin_M == number], targets_M[bin_M == number].astype(float)
        hidden = np.mean((p - p.mean()) ** 2) - 2 * np.mean((p - p.mean()) * (y - y.mean()))
        parts += len(p) / len(marginals_M) * np.array([(p.mean() - y.mean()) ** 2, (y.mean() - share) ** 2, hidden])
    found = (score.reliability, score.resolution, score.within_bins, score.uncertainty)
    assert found == pytest.approx((*parts, share * (1 - share)), abs=1e-12)


def test_marginals_that_generated_the_targets_are_calibrated_and_sharpened_ones_are_not():
    rng = np.random.default_rng(0)
    marginals_NL = rng.random((40_000, 3))
    targets_NL = rng.random(marginals_NL.shape) < marginals_NL
    assert expected_calibration_error(marginals_NL, targets_NL) < 0.01
    assert adaptive_calibration_error(marginals_NL, targets_NL) < 0.01
    sharpened_NL = marginals_NL**2 / (marginals_NL**2 + (1 - marginals_NL) ** 2)
    assert expected_calibration_error(sharpened_NL, targets_NL) > 0.08
    assert brier_score(sharpened_NL, targets_NL).reliability > brier_score(marginals_NL, targets_NL).reliability + 0.005


def test_equal_mass_bins_hold_equal_numbers_where_equal_width_bins_do_not():
    marginals_NL = np.random.default_rng(0).random((1500, 2)) ** 8
    targets_NL = marginals_NL > 0.5
    assert np.ptp(reliability_curve(marginals_NL, targets_NL, binning="equal_mass").pairs_B) <= 1
    assert np.ptp(reliability_curve(marginals_NL, targets_NL).pairs_B) > 1000


def test_calibration_error_by_hand():
    marginals_NL = np.array([[0.1], [0.1], [0.9], [0.9]])
    targets_NL = np.array([[False], [True], [True], [True]])
    curve = reliability_curve(marginals_NL, targets_NL, bins=2)
    assert curve.calibration_error == pytest.approx((0.4 + 0.1) / 2)


MARGINALS_NL, TARGETS_NL = np.full((4, 2), 0.5, np.float32), np.ones((4, 2), bool)


@pytest.mark.parametrize("metric", [reliability_curve, reliability_curves, brier_score, calibration_error_of_labels])
def test_logits_are_refused(metric):
    with pytest.raises(
        MetricError, match=r"marginals_NL ranges from -4 to 0\.5, outside \[0, 1\]; convert logits to marginals"
    ):
        metric(MARGINALS_NL - np.array([4.5, 0], np.float32), TARGETS_NL)


def test_bad_requests_are_named():
    with pytest.raises(MetricError, match="unknown binning 'equal'; nearest: equal_mass, equal_width"):
        reliability_curve(MARGINALS_NL, TARGETS_NL, binning="equal")
    with pytest.raises(MetricError, match="bins is 0; give at least 1"):
        expected_calibration_error(MARGINALS_NL, TARGETS_NL, bins=0)
    with pytest.raises(MetricError, match="no label of any sample is known"):
        brier_score(MARGINALS_NL, TARGETS_NL, ~TARGETS_NL)
