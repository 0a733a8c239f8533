"""Ranking metrics against scikit-learn, the definitions of PASCAL VOC step by step, and their own properties."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve

from rayprob.errors import MetricError
from rayprob.metrics.ranking import (
    average_precision,
    mean_average_precision,
    mean_average_precision_by_size,
    micro_average_precision,
    pooled_curve,
    precision_recall_curves,
)


@st.composite
def ranked(draw, min_labels=1):
    """Scores, targets and known [N, L]; few distinct scores make ties, many make none."""
    rows, labels = draw(st.integers(1, 40)), draw(st.integers(min_labels, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.sampled_from([1, 2, 5, 1000]))
    scores_NL = (rng.integers(0, levels, (rows, labels)) / 7 - 3).astype(np.float32)
    targets_NL = rng.random((rows, labels)) < draw(st.sampled_from([0.05, 0.3, 0.9]))
    known_NL = rng.random((rows, labels)) < draw(st.sampled_from([0.5, 1.0]))
    return scores_NL, targets_NL, known_NL


def sklearn_ap(scores_NL, targets_NL, known_NL):
    values = []
    for scores, targets, known in zip(scores_NL.T, targets_NL.T, known_NL.T, strict=True):
        has_positive = targets[known].any()
        values.append(average_precision_score(targets[known], scores[known]) if has_positive else np.nan)
    return np.array(values)


def voc_ap(scores_N, targets_N, eleven_points):
    """The development kit's loop over the ranked list, a group of ties entering at once."""
    points = []
    for threshold in sorted(set(scores_N.tolist()), reverse=True):
        hits = int((targets_N & (scores_N >= threshold)).sum())
        points.append((hits / int(targets_N.sum()), hits / int((scores_N >= threshold).sum())))
    if eleven_points:
        # 1e-12: a tenth has no exact binary form.
        return sum(max((p for r, p in points if r >= t / 10 - 1e-12), default=0) for t in range(11)) / 11
    recalls = [0.0] + [r for r, _ in points]
    return sum((b - a) * max(p for r, p in points if r >= b) for a, b in pairwise(recalls) if b > a)


@settings(deadline=None)
@given(ranked())
def test_average_precision_equals_scikit_learn(case):
    np.testing.assert_allclose(average_precision(*case), sklearn_ap(*case), rtol=0, atol=1e-9)


@pytest.mark.parametrize("digits", [1, 3, 9])
def test_average_precision_equals_scikit_learn_at_size(digits):
    rng = np.random.default_rng(digits)
    targets_NL = rng.random((5000, 70)) < 0.04
    scores_NL = np.round(rng.normal(size=targets_NL.shape) + 2 * targets_NL, digits).astype(np.float32)
    everything = np.ones_like(targets_NL)
    ours_L = average_precision(scores_NL, targets_NL)
    assert np.abs(ours_L - sklearn_ap(scores_NL, targets_NL, everything)).max() < 1e-9
    assert ours_L.dtype == np.float64


@settings(deadline=None)
@given(ranked(), st.integers(0, 2**32 - 1))
def test_order_of_rows_never_matters(case, seed):
    order = np.random.default_rng(seed).permutation(len(case[0]))
    for variant in ("exact", "voc2010", "voc2007"):
        np.testing.assert_array_equal(
            average_precision(*case, variant=variant), average_precision(*(table[order] for table in case), variant=variant)
        )


@settings(deadline=None)
@given(ranked())
def test_a_monotone_map_of_the_scores_never_matters(case):
    scores_NL, targets_NL, known_NL = case
    mapped_NL = 1 / (1 + np.exp(-scores_NL.astype(np.float64) / 20))
    np.testing.assert_array_equal(average_precision(*case), average_precision(mapped_NL, targets_NL, known_NL))


@settings(deadline=None)
@given(ranked())
def test_what_an_unknown_label_says_never_matters(case):
    scores_NL, targets_NL, known_NL = case
    np.testing.assert_array_equal(average_precision(*case), average_precision(scores_NL, targets_NL ^ ~known_NL, known_NL))


@settings(deadline=None, max_examples=60)
@given(ranked())
def test_interpolated_precision_follows_the_voc_definitions(case):
    for variant, eleven_points in (("voc2010", False), ("voc2007", True)):
        ours_L = average_precision(*case, variant=variant)
        for ours, scores, targets, known in zip(ours_L, *(table.T for table in case), strict=True):
            if targets[known].any():
                assert ours == pytest.approx(voc_ap(scores[known], targets[known], eleven_points), abs=1e-12)
            else:
                assert np.isnan(ours)


@settings(deadline=None)
@given(ranked())
def test_interpolation_never_lowers_average_precision(case):
    exact_L, voc_L = (average_precision(*case, variant=variant) for variant in ("exact", "voc2010"))
    counted_L = ~np.isnan(exact_L)
    assert (voc_L[counted_L] >= exact_L[counted_L] - 1e-12).all()


def test_variants_by_hand():
    # Ranked: present, absent, present, absent. Precision 1, 1/2, 2/3, 1/2 at recall 1/2, 1/2, 1, 1.
    scores_NL = np.array([[0.9], [0.8], [0.7], [0.6]], dtype=np.float32)
    targets_NL = np.array([[True], [False], [True], [False]])
    assert average_precision(scores_NL, targets_NL)[0] == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(scores_NL, targets_NL, variant="voc2010")[0] == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(scores_NL, targets_NL, variant="voc2007")[0] == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)
    # Absent, present, present: interpolation lifts the precision 1/2 at recall 1/2 to the 2/3 beyond it.
    targets_NL = np.array([[False], [True], [True], [False]])
    assert average_precision(scores_NL, targets_NL)[0] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert average_precision(scores_NL, targets_NL, variant="voc2010")[0] == pytest.approx(2 / 3)


@settings(deadline=None)
@given(ranked())
def test_micro_average_precision_equals_scikit_learn(case):
    scores_NL, targets_NL, known_NL = case
    ours = micro_average_precision(*case)
    if targets_NL[known_NL].any():
        assert ours == pytest.approx(average_precision_score(targets_NL[known_NL], scores_NL[known_NL]), abs=1e-9)
    else:
        assert np.isnan(ours)


def test_mean_leaves_out_labels_without_positives_and_says_how_many_count():
    targets_NL = np.array([[True, False, True], [False, False, True]])
    scores_NL = np.array([[0, 0, 0], [1, 1, 1]], dtype=np.float32)
    mean = mean_average_precision(scores_NL, targets_NL)
    assert mean.labels_counted == 2
    assert mean.value == pytest.approx((0.5 + 1) / 2)
    np.testing.assert_array_equal(mean.ap_L, [0.5, np.nan, 1.0])


@settings(deadline=None)
@given(ranked())
def test_precision_recall_points_lie_on_scikit_learns_curve(case):
    for curve, scores, targets, known in zip(precision_recall_curves(*case), *(t.T for t in case), strict=True):
        if not targets[known].any():
            assert curve.positives == len(curve.thresholds_P) == 0
            continue
        precision, recall, thresholds = precision_recall_curve(targets[known], scores[known])
        at = {t: (p, r) for t, p, r in zip(thresholds.tolist(), precision, recall, strict=False)}
        ours = zip(curve.thresholds_P.tolist(), curve.precision_P, curve.recall_P, strict=True)
        assert all(at[t] == pytest.approx((p, r)) for t, p, r in ours)
        assert curve.thresholds_P.tolist() == sorted(set(scores[known & targets].tolist()), reverse=True)
        assert curve.recall_P[-1] == 1


def test_pooled_curve_counts_all_labels_together():
    targets_NL = np.array([[True, False], [False, True]])
    curve = pooled_curve(np.array([[4, 3], [2, 1]], dtype=np.float32), targets_NL)
    assert curve.thresholds_P.tolist() == [4, 1]
    assert curve.predicted_P.tolist() == [1, 4]
    assert curve.true_positives_P.tolist() == [1, 2]


def test_average_precision_by_size_keeps_only_the_positives_of_that_size():
    areas_NL = np.array([[10], [31 * 32], [32**2], [96**2 - 1], [96**2], [np.nan], [np.nan]])
    scores_NL = np.array([[7], [1], [6], [2], [0], [5], [3]], dtype=np.float32)
    targets_NL = ~np.isnan(areas_NL)
    means = mean_average_precision_by_size(scores_NL, targets_NL, areas_NL)
    for size, rows in (("small", [0, 1]), ("medium", [2, 3]), ("large", [4])):
        chosen = [*rows, 5, 6]
        assert means[size].value == pytest.approx(average_precision_score(targets_NL[chosen, 0], scores_NL[chosen, 0]))


def test_a_size_that_no_positive_has_is_none():
    targets_NL = np.array([[True, True], [False, True]])
    areas_NL = np.where(targets_NL, 5.0, np.nan)
    known_NL = np.array([[True, True], [True, False]])
    means = mean_average_precision_by_size(np.zeros((2, 2), np.float32), targets_NL, areas_NL, known_NL)
    assert means["medium"] is means["large"] is None
    np.testing.assert_array_equal(means["small"].ap_L, [0.5, 1.0])


SCORES_NL, TARGETS_NL = np.zeros((12, 3), np.float32), np.ones((12, 3), bool)


def with_faults():
    scores_NL = SCORES_NL.copy()
    scores_NL[[1, 4], 2] = np.nan
    scores_NL[4, 0] = np.inf
    return scores_NL


@pytest.mark.parametrize(
    ("scores_NL", "targets_NL", "known_NL", "message"),
    [
        (with_faults(), TARGETS_NL, None, "3 of 36 scores are nan or inf, in rows 1, 4 and label columns 0, 2"),
        (SCORES_NL.astype(int), TARGETS_NL, None, "scores_NL is int64, not floating point"),
        (SCORES_NL[:, :2], TARGETS_NL, None, r"scores_NL has shape \[12, 2\] but targets_NL \[12, 3\]"),
        (SCORES_NL, TARGETS_NL.astype(int), None, "targets_NL is int64; give booleans"),
        (SCORES_NL, TARGETS_NL, TARGETS_NL.astype(int), "known_NL is int64; give booleans"),
        (SCORES_NL, TARGETS_NL, TARGETS_NL[:5], r"known_NL has shape \[5, 3\] but targets_NL \[12, 3\]"),
        (SCORES_NL[0], TARGETS_NL[0], None, r"targets_NL has shape \[3\]; give at least one row and one label"),
        (SCORES_NL[:0], TARGETS_NL[:0], None, r"targets_NL has shape \[0, 3\]; give at least one row and one label"),
    ],
)
def test_bad_input_is_named(scores_NL, targets_NL, known_NL, message):
    for metric in (average_precision, micro_average_precision, precision_recall_curves, pooled_curve):
        with pytest.raises(MetricError, match=message):
            metric(scores_NL, targets_NL, known_NL)


def test_many_bad_rows_are_counted_not_listed():
    with pytest.raises(MetricError, match="in rows 0, 1, 2, 3, 4, 5, 6, 7 and 4 more and label columns"):
        average_precision(SCORES_NL * np.nan, TARGETS_NL)


def test_bad_requests_are_named():
    with pytest.raises(MetricError, match="none of the 3 labels has a known positive"):
        mean_average_precision(SCORES_NL, ~TARGETS_NL)
    with pytest.raises(MetricError, match="unknown AP variant 'voc2012'; nearest: voc2010, voc2007; allowed: exact"):
        average_precision(SCORES_NL, TARGETS_NL, variant="voc2012")
    with pytest.raises(MetricError, match="36 positives have no area"):
        mean_average_precision_by_size(SCORES_NL, TARGETS_NL, SCORES_NL * np.nan)
    with pytest.raises(MetricError, match=r"areas_px2_NL has shape \[12, 2\] but targets_NL \[12, 3\]"):
        mean_average_precision_by_size(SCORES_NL, TARGETS_NL, SCORES_NL[:, :2])
