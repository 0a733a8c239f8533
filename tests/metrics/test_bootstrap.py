"""The bootstrap and its statistics: against the metrics themselves on repeated rows, and against known standard errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from scipy.special import expit

from rayprob.errors import MetricError
from rayprob.metrics.bootstrap import Resampled, bootstrap, drawn_counts
from rayprob.metrics.counting import count_metrics
from rayprob.metrics.drawn import calibration_error_of, count_metric_of, mean_average_precision_of, mean_of
from rayprob.metrics.ranking import average_precision
from rayprob.metrics.reliability import expected_calibration_error
from tests.metrics.test_ranking import ranked


def repeated(counts_N, *tables):
    """The rows of tables, each as often as a draw takes it: what the metrics themselves are computed on."""
    return tuple(np.repeat(table, counts_N, axis=0) for table in tables)


def some_draws(num_samples, draws=4):
    return np.concatenate(list(drawn_counts(num_samples, draws=draws, seed=1)))


@settings(deadline=None, max_examples=60)
@given(ranked())
def test_map_of_a_draw_is_that_of_repeated_rows(case):
    counts_DN = some_draws(len(case[0]))
    values_D = mean_average_precision_of(*case)(counts_DN)
    for value, counts_N in zip(values_D, counts_DN, strict=True):
        ap_L = average_precision(*repeated(counts_N, *case))
        assert value == pytest.approx(np.nanmean(ap_L) if np.isfinite(ap_L).any() else np.nan, abs=1e-12, nan_ok=True)


@settings(deadline=None, max_examples=30)
@given(ranked())
def test_counts_and_calibration_error_of_a_draw_are_those_of_repeated_rows(case):
    scores_NL, targets_NL, known_NL = case
    marginals_NL = expit(scores_NL)
    counts_DN = some_draws(len(scores_NL))
    ece_D = calibration_error_of(marginals_NL, targets_NL, known_NL)(counts_DN)
    of1_D, cp_D = (count_metric_of(name, scores_NL >= 0, targets_NL, known_NL)(counts_DN) for name in ("OF1", "CP"))
    for place, counts_N in enumerate(counts_DN):
        scores, targets, known = repeated(counts_N, *case)
        assert ece_D[place] == pytest.approx(expected_calibration_error(expit(scores), targets, known), nan_ok=True)
        if (targets & known).any():
            six = count_metrics(scores >= 0, targets, known)
            assert (of1_D[place], cp_D[place]) == pytest.approx((six.OF1, six.CP))
        else:
            assert np.isnan(of1_D[place])


def test_a_draw_takes_as_many_images_as_there_are_and_is_the_same_in_blocks_of_any_size(monkeypatch):
    whole_DN = np.concatenate(list(drawn_counts(50, draws=7, seed=3)))
    assert (whole_DN.sum(axis=1) == 50).all()
    monkeypatch.setattr("rayprob.metrics.bootstrap.COUNTS_AT_ONCE", 100)
    np.testing.assert_array_equal(np.concatenate(list(drawn_counts(50, draws=7, seed=3))), whole_DN)


def test_the_interval_of_a_mean_is_that_of_its_standard_error():
    values_N = np.random.default_rng(0).normal(3, 2, 400)
    interval = bootstrap(mean_of(values_N), 400, draws=4000).interval()
    error = values_N.std() / np.sqrt(400)
    assert interval.value == pytest.approx(values_N.mean())
    assert (interval.low, interval.high) == pytest.approx(values_N.mean() + np.array([-1.96, 1.96]) * error, abs=0.1 * error)


def test_a_paired_difference_is_far_narrower_than_either_value():
    hard_N = np.random.default_rng(0).normal(0, 5, 200)
    a, b = (bootstrap(mean_of(hard_N + shift_N), 200) for shift_N in (0, np.random.default_rng(1).normal(0.2, 0.1, 200)))
    assert not b.interval().is_clear
    gain = (b - a).interval()
    assert gain.is_clear
    assert gain.value == pytest.approx(0.2, abs=0.03)
    assert gain.low < gain.value < gain.high < 0.25


def test_images_without_a_value_are_left_out_of_a_mean():
    values_N = np.array([1.0, np.nan, 3.0])
    assert mean_of(values_N)(np.array([[1, 1, 1], [0, 5, 0], [3, 0, 1]], dtype=np.int32)).tolist()[::2] == [2.0, 1.5]
    assert np.isnan(mean_of(values_N)(np.array([[0, 5, 0]], dtype=np.int32))[0])
    resampled = bootstrap(mean_of(values_N), 3, draws=500)
    assert np.isnan(resampled.drawn_D).any()
    assert (resampled.interval().low, resampled.interval().high) == (1.0, 3.0)


def test_a_difference_of_other_draws_is_refused():
    of_ten, of_others = (bootstrap(mean_of(np.arange(10.0)), 10, draws=20, seed=seed) for seed in (0, 1))
    with pytest.raises(MetricError, match=r"same draws; found 20 draws of \(images, seed\) \(10, 0\) and 20 of \(10, 1\)"):
        of_ten - of_others
    with pytest.raises(MetricError, match="at least 1 image and 1 draw; found 0 and 1000"):
        list(drawn_counts(0))


def test_a_statistic_that_no_draw_defines_has_no_interval():
    nothing = Resampled(float("nan"), np.full(3, np.nan), (5, 0))
    assert np.isnan(nothing.interval().low)
    assert not nothing.interval().is_clear
