"""Uncertainty of several members, and what abstaining by it gains."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import bernoulli

from rayprob.errors import CalibrationError
from rayprob.probability.distributions.uncertainty import abstention_curve, uncertainty

Floats = NDArray[np.float64]
members = arrays(np.float64, st.tuples(st.integers(2, 4), st.integers(1, 4), st.integers(1, 3)), elements=st.floats(0, 1))


@given(members)
@settings(max_examples=60, deadline=None)
def test_epistemic_is_the_mutual_information_of_label_and_member(members_MNL: Floats) -> None:
    found = uncertainty(members_MNL)
    num_members, num_samples, num_labels = members_MNL.shape
    for sample in range(num_samples):
        for label in range(num_labels):
            p_M = members_MNL[:, sample, label]
            joint_M2 = np.stack([1 - p_M, p_M], axis=1) / num_members
            independent_M2 = joint_M2.sum(axis=1, keepdims=True) * joint_M2.sum(axis=0)
            filled = joint_M2 > 0
            expected = (joint_M2[filled] * np.log(joint_M2[filled] / independent_M2[filled])).sum()
            assert found.epistemic_NL[sample, label] == pytest.approx(expected, abs=1e-9)


@given(members)
@settings(max_examples=60, deadline=None)
def test_total_is_aleatoric_and_epistemic_and_bounded(members_MNL: Floats) -> None:
    found = uncertainty(members_MNL)
    np.testing.assert_allclose(found.total_NL, found.aleatoric_NL + found.epistemic_NL, atol=1e-12)
    np.testing.assert_allclose(found.total_NL, bernoulli(found.marginals_NL).entropy(), atol=1e-9)
    assert (found.epistemic_NL >= 0).all()
    assert (found.total_NL <= np.log(2) + 1e-12).all()
    assert found.total_N == pytest.approx(found.total_NL.sum(axis=1))
    assert found.total_N == pytest.approx(found.aleatoric_N + found.epistemic_N, abs=1e-12)


def test_members_that_agree_have_no_epistemic_uncertainty_and_that_contradict_no_other() -> None:
    agree = uncertainty(np.full((3, 1, 2), 0.5))
    assert agree.epistemic_N[0] == pytest.approx(0, abs=1e-12)
    assert agree.total_N[0] == pytest.approx(2 * np.log(2))
    contradict = uncertainty(np.array([[[0.0, 1.0]], [[1.0, 0.0]]]))
    assert contradict.aleatoric_N[0] == 0
    assert contradict.epistemic_N[0] == pytest.approx(2 * np.log(2))
    assert contradict.num_members == 2


def test_samples_on_which_members_were_not_fitted_are_epistemically_uncertain() -> None:
    rng = np.random.default_rng(0)
    slopes_M = 1.0 + 0.3 * rng.normal(size=8)  # members agree near 0, and part far away
    offsets_M = rng.normal(size=8)
    inside_N, outside_N = rng.normal(size=200), 4 + rng.normal(size=200)
    marginals = [
        np.stack(
            [
                expit(slope * x_N + offset * (np.abs(x_N) > 2) * (x_N - 2))
                for slope, offset in zip(slopes_M, offsets_M, strict=True)
            ]
        )
        for x_N in (inside_N, outside_N)
    ]
    inside, outside = (uncertainty(members_MN[..., None]).epistemic_N for members_MN in marginals)
    assert outside.mean() > 3 * inside.mean()


def answered(seed: int = 0) -> tuple[Floats, NDArray[np.bool_]]:
    """Return uncertainties, and whether each sample is answered correctly, which it says something about."""
    rng = np.random.default_rng(seed)
    uncertainty_N = rng.random(2000)
    return uncertainty_N, rng.random(2000) > 0.6 * uncertainty_N


def test_abstaining_on_uncertain_samples_raises_quality_between_random_and_oracle() -> None:
    uncertainty_N, correct_N = answered()
    curve = abstention_curve(uncertainty_N, lambda rows_R: float(correct_N[rows_R].mean()), ~correct_N)
    assert (curve.quality_C[:-1] > curve.random_C[:-1]).all()
    assert (curve.oracle_C >= curve.quality_C - 1e-12).all()
    assert [curve.quality_C[-1], curve.random_C[-1], curve.oracle_C[-1]] == pytest.approx([correct_N.mean()] * 3)
    assert 0.1 < curve.gain < 0.9
    assert curve.area == pytest.approx(np.mean(1 - 0.3 * curve.coverage_C), abs=0.02)


def test_useless_and_perfect_orders_gain_nothing_and_everything() -> None:
    _, correct_N = answered()

    def accuracy(rows_R: NDArray[np.int64]) -> float:
        return float(correct_N[rows_R].mean())

    useless = abstention_curve(np.random.default_rng(1).random(2000), accuracy, ~correct_N)
    perfect = abstention_curve(~correct_N, accuracy, ~correct_N)
    assert useless.gain == pytest.approx(0, abs=0.1)
    assert perfect.gain == pytest.approx(1)


def test_random_abstention_keeps_the_quality_of_all() -> None:
    uncertainty_N, correct_N = answered()
    curve = abstention_curve(uncertainty_N, lambda rows_R: float(correct_N[rows_R].mean()), ~correct_N)
    assert curve.random_C == pytest.approx(np.full(19, correct_N.mean()), abs=0.02)
    again = abstention_curve(uncertainty_N, lambda rows_R: float(correct_N[rows_R].mean()), ~correct_N)
    np.testing.assert_array_equal(again.random_C, curve.random_C)


def test_coverage_counts_samples() -> None:
    seen: list[int] = []

    def quality(rows_R: NDArray[np.int64]) -> float:
        seen.append(len(rows_R))
        return float(len(rows_R))

    curve = abstention_curve(np.arange(10), quality, np.arange(10), coverages_C=[0.01, 0.5, 1.0])
    assert sorted(set(seen)) == [1, 5, 10]
    assert curve.quality_C.tolist() == [1, 5, 10]
    assert np.isnan(curve.gain)


def test_one_coverage_has_its_quality_as_area() -> None:
    assert abstention_curve(np.arange(10), lambda rows_R: float(len(rows_R)), np.arange(10), coverages_C=[0.5]).area == 5


def test_faults_are_named() -> None:
    with pytest.raises(CalibrationError, match=r"member marginals have shape \[1, 2, 3\]; give .* at least 2 members"):
        uncertainty(np.zeros((1, 2, 3)))
    with pytest.raises(CalibrationError, match=r"member marginals have shape \[2, 3\]"):
        uncertainty(np.zeros((2, 3)))
    for bad in (1.5, -0.1, np.nan):
        with pytest.raises(
            CalibrationError, match="member marginals are not all between 0 and 1; pass probabilities, not logits"
        ):
            uncertainty(np.full((2, 2, 2), bad))
    with pytest.raises(CalibrationError, match=r"uncertainties \[3\] and losses \[2\] must have one value per sample"):
        abstention_curve(np.zeros(3), lambda rows_R: 0.0, np.zeros(2))
    for coverages in ([0.5, 0.2], [0.0, 1.0], [0.5, 1.2], []):
        with pytest.raises(CalibrationError, match=r"must increase within \(0, 1\], such as 0\.5, 0\.75, 1"):
            abstention_curve(np.zeros(3), lambda rows_R: 0.0, np.zeros(3), coverages_C=coverages)
