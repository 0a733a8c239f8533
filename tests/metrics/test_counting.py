"""Counts, F1s, top k and thresholds against scikit-learn, brute force, and numbers worked out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_fscore_support

from rayprob.errors import MetricError
from rayprob.metrics.counting import (
    Averaging,
    best_single_threshold,
    count,
    count_metrics,
    label_sets,
    paper_metrics,
    threshold_curve,
    top_k,
)
from rayprob.metrics.ranking import mean_average_precision

MEAN_OF_F1 = Averaging(cf1="mean_of_f1")
NEVER_IS_RIGHT = Averaging(never_predicted=1.0)
NEVER_IS_LEFT_OUT = Averaging(never_predicted=None)


@st.composite
def scored(draw):
    """Scores, targets and known [N, L] with ties and at least one known positive."""
    rows, labels = draw(st.integers(1, 15)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scores_NL = (rng.integers(0, draw(st.sampled_from([2, 6, 1000])), (rows, labels)) / 1000).astype(np.float32)
    targets_NL = rng.random((rows, labels)) < draw(st.sampled_from([0.1, 0.5]))
    known_NL = rng.random((rows, labels)) < draw(st.sampled_from([0.6, 1.0]))
    targets_NL[0, 0] = known_NL[0, 0] = True
    return scores_NL, targets_NL, known_NL


# Label by label: 2 of 3 predicted are right, 2 are present; none predicted, 1 present; 1 of 1, 2 present; 0 of 1, none present.
TARGETS_NL = np.array([[1, 1, 1, 0], [1, 0, 1, 0], [0, 0, 0, 0]], dtype=bool)
PREDICTED_NL = np.array([[1, 0, 1, 0], [1, 0, 0, 0], [1, 0, 0, 1]], dtype=bool)


def test_the_six_numbers_by_hand():
    cp, cr = (2 / 3 + 0 + 1) / 3, (1 + 0 + 1 / 2) / 3
    expected = {"OP": 3 / 5, "OR": 3 / 5, "OF1": 3 / 5, "CP": cp, "CR": cr, "CF1": 2 * cp * cr / (cp + cr)}
    assert count_metrics(PREDICTED_NL, TARGETS_NL).to_dict() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("averaging", "cp", "cf1"),
    [
        (NEVER_IS_RIGHT, (2 / 3 + 1 + 1) / 3, None),
        (NEVER_IS_LEFT_OUT, (2 / 3 + 1) / 2, None),
        (MEAN_OF_F1, (2 / 3 + 0 + 1) / 3, (4 / 5 + 0 + 2 / 3) / 3),
        (Averaging("mean_of_f1", 1.0), (2 / 3 + 1 + 1) / 3, (4 / 5 + 0 + 2 / 3) / 3),
        (Averaging("mean_of_f1", None), (2 / 3 + 1) / 2, (4 / 5 + 2 / 3) / 2),
    ],
)
def test_variants_of_averaging_by_hand(averaging, cp, cf1):
    found = count_metrics(PREDICTED_NL, TARGETS_NL, averaging=averaging).to_dict()
    expected = {"CP": cp, "CF1": 2 * cp * 0.5 / (cp + 0.5) if cf1 is None else cf1, "OF1": 3 / 5}
    assert {name: found[name] for name in expected} == pytest.approx(expected)


@settings(deadline=None)
@given(scored(), st.floats(0, 1))
def test_the_six_numbers_equal_scikit_learn(case, threshold):
    scores_NL, targets_NL, known_NL = case
    predicted_NL = label_sets(scores_NL, threshold)
    for zero_division in (0, 1):

        def by_sklearn(targets, predicted, zero=zero_division):
            return precision_recall_fscore_support(targets, predicted, average="binary", zero_division=zero)[:3]

        columns = [(t[k], p[k]) for t, p, k in zip(targets_NL.T, predicted_NL.T, known_NL.T, strict=True) if t[k].any()]
        per_label = np.array([by_sklearn(*column) for column in columns]).mean(axis=0)
        pooled = by_sklearn(targets_NL[known_NL], predicted_NL[known_NL])
        ours = count_metrics(predicted_NL, targets_NL, known_NL, averaging=Averaging("mean_of_f1", float(zero_division)))
        expected = dict(zip(("OP", "OR", "OF1", "CP", "CR", "CF1"), (*pooled, *per_label), strict=True))
        assert ours.to_dict() == pytest.approx(expected, abs=1e-12)


@settings(deadline=None)
@given(scored(), st.integers(0, 2**32 - 1))
def test_order_of_rows_and_columns_never_matters(case, seed):
    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(case[0].shape[0]), rng.permutation(case[0].shape[1])
    scores_NL, targets_NL, known_NL = case
    shuffled = [table[rows][:, columns] for table in (label_sets(scores_NL, 0.3), targets_NL, known_NL)]
    expected = count_metrics(label_sets(scores_NL, 0.3), targets_NL, known_NL).to_dict()
    assert count_metrics(*shuffled).to_dict() == pytest.approx(expected, abs=1e-12)


def test_predicting_nothing_is_zero_without_a_warning():
    nothing_NL = np.zeros_like(TARGETS_NL)
    assert set(count_metrics(nothing_NL, TARGETS_NL).to_dict().values()) == {0.0}
    assert set(count_metrics(nothing_NL, TARGETS_NL, averaging=NEVER_IS_LEFT_OUT).to_dict().values()) == {0.0}
    assert count_metrics(nothing_NL, TARGETS_NL, averaging=NEVER_IS_RIGHT).to_dict()["OP"] == 1


def test_paper_metrics_are_mean_ap_and_the_six_numbers():
    scores_NL = np.random.default_rng(0).normal(size=TARGETS_NL.shape).astype(np.float32)
    seven = paper_metrics(scores_NL, PREDICTED_NL, TARGETS_NL).to_dict()
    assert set(seven) == {"mAP", "OP", "OR", "OF1", "CP", "CR", "CF1"}
    assert seven.pop("mAP") == mean_average_precision(scores_NL, TARGETS_NL).value
    assert seven == count_metrics(PREDICTED_NL, TARGETS_NL).to_dict()


def test_counts_leave_out_what_is_unknown():
    known_NL = np.ones_like(TARGETS_NL)
    known_NL[2] = False
    counts = count(PREDICTED_NL, TARGETS_NL, known_NL)
    assert counts.predicted_L.tolist() == [2, 0, 1, 0]
    assert counts.true_positives_L.tolist() == [2, 0, 1, 0]
    assert counts.positives_L.tolist() == [2, 1, 2, 0]


@settings(deadline=None)
@given(scored(), st.integers(1, 5))
def test_top_k_is_the_k_highest_and_then_the_lowest_column(case, k):
    scores_NL = case[0]
    k = min(k, scores_NL.shape[1])
    expected_NL = np.zeros(scores_NL.shape, bool)
    for row, scores in enumerate(scores_NL):
        best = sorted(range(len(scores)), key=lambda column: (-scores[column], column))
        expected_NL[row, best[:k]] = True
    np.testing.assert_array_equal(top_k(scores_NL, k), expected_NL)
    np.testing.assert_array_equal(top_k(scores_NL, k, at_least=0.002), expected_NL & (scores_NL >= np.float32(0.002)))


def test_label_sets_take_one_threshold_or_one_per_label():
    scores_NL = np.array([[0.1, 0.5], [0.7, 0.1]], dtype=np.float32)
    assert label_sets(scores_NL, 0.1).all(), "a threshold is rounded as the scores are, and a score equal to it counts"
    assert label_sets(scores_NL, [0.7, 0.2]).tolist() == [[False, True], [True, False]]


@settings(deadline=None, max_examples=60)
@given(scored(), st.sampled_from(["harmonic", "mean_of_f1"]), st.sampled_from([0.0, 1.0, None]))
def test_a_threshold_curve_is_the_six_numbers_at_each_threshold(case, cf1, never_predicted):
    scores_NL, targets_NL, known_NL = case
    averaging = Averaging(cf1, never_predicted)
    thresholds_T = np.linspace(-0.1, 1.1, 9)
    curve = threshold_curve(scores_NL, targets_NL, thresholds_T, known_NL, averaging=averaging)
    for at, threshold in enumerate(thresholds_T):
        expected = count_metrics(label_sets(scores_NL, threshold), targets_NL, known_NL, averaging=averaging).to_dict()
        assert {name: getattr(curve, name)[at] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_a_long_threshold_curve_comes_in_blocks_without_a_seam(monkeypatch):
    monkeypatch.setattr("rayprob.metrics.counting.COUNTS_AT_ONCE", 7)
    scores_NL = np.random.default_rng(0).random((30, 3)).astype(np.float32)
    targets_NL = scores_NL > np.random.default_rng(1).random((30, 3))
    thresholds_T = np.linspace(0, 1, 11)
    curve = threshold_curve(scores_NL, targets_NL, thresholds_T)
    expected = [count_metrics(label_sets(scores_NL, t), targets_NL).CF1 for t in thresholds_T]
    np.testing.assert_allclose(curve.CF1, expected, rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=60)
@given(
    scored(), st.sampled_from(["OF1", "CF1"]), st.sampled_from(["harmonic", "mean_of_f1"]), st.sampled_from([0.0, 1.0, None])
)
def test_best_threshold_beats_every_other(case, objective, cf1, never_predicted):
    scores_NL, targets_NL, known_NL = case
    averaging = Averaging(cf1, never_predicted)
    best = best_single_threshold(scores_NL, targets_NL, known_NL, objective=objective, averaging=averaging)
    # Every distinct score, and one above all of them: no other threshold gives other label sets.
    values = {
        float(t): getattr(count_metrics(label_sets(scores_NL, t), targets_NL, known_NL, averaging=averaging), objective)
        for t in np.append(np.unique(scores_NL), np.float32(2))
    }
    assert best.value == pytest.approx(max(values.values()), abs=1e-12)
    assert values[best.threshold] == pytest.approx(best.value, abs=1e-12)


def test_of_equally_good_thresholds_the_highest_is_taken():
    scores_NL = np.array([[0.9], [0.8], [0.7], [0.6]], dtype=np.float32)
    targets_NL = np.array([[True], [False], [False], [True]])
    best = best_single_threshold(scores_NL, targets_NL)  # F1 is 2/3 at 0.9 and at 0.6
    assert best.threshold == float(np.float32(0.9))


def test_bad_requests_are_named():
    scores_NL = np.zeros(TARGETS_NL.shape, np.float32)
    with pytest.raises(MetricError, match="no label has a known positive"):
        count_metrics(PREDICTED_NL, TARGETS_NL & False)
    with pytest.raises(MetricError, match="no label has a known positive"):
        best_single_threshold(scores_NL, TARGETS_NL & False)
    with pytest.raises(
        MetricError, match=r"predicted_NL is float32 \[3, 4\]; give booleans of the shape of targets_NL, \[3, 4\]"
    ):
        count_metrics(scores_NL, TARGETS_NL)
    with pytest.raises(MetricError, match="unknown objective 'of1'; nearest: OF1, CF1; allowed: OF1, CF1"):
        best_single_threshold(scores_NL, TARGETS_NL, objective="of1")
    with pytest.raises(MetricError, match="unknown CF1 'geometric'; allowed: harmonic, mean_of_f1"):
        count_metrics(PREDICTED_NL, TARGETS_NL, averaging=Averaging(cf1="geometric"))
    for k in (0, 5):
        with pytest.raises(MetricError, match=f"top {k} of 4 labels; choose k between 1 and 4"):
            top_k(scores_NL, k)
