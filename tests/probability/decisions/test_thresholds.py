"""Thresholds: equal to brute force, no worse than one for all on held-out samples, and honest about what cannot be reached."""

import itertools
import json
import logging

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import expit, logit
from sklearn.metrics import f1_score, precision_recall_curve, precision_score, recall_score

from rayprob.errors import BundleError, CalibrationError, SpecError
from rayprob.probability.calibration.holdout import checked_marginals
from rayprob.probability.decisions.cuts import NEVER, OBJECTIVES, Cuts, _cf1_shares, best_shared_threshold
from rayprob.probability.decisions.thresholds import (
    Thresholds,
    fit_global_precision,
    fit_global_threshold,
    fit_label_precision,
    fit_label_thresholds,
)

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def simulate(
    num_samples: int, *, seed: int = 0, num_labels: int = 40, shift_L: Floats | float = 0.0
) -> tuple[Floats, Bools, Bools]:
    """Return marginals, targets, known; without a shift the marginals are the true probabilities."""
    rng = np.random.default_rng(seed)
    centre_L = logit(10 ** np.linspace(-2.5, -0.3, num_labels)) * 1.3
    logits_NL = centre_L + 2.2 * rng.normal(size=(num_samples, num_labels))
    targets_NL = rng.random(logits_NL.shape) < expit(logits_NL)
    return expit(logits_NL - shift_L), targets_NL, np.ones_like(targets_NL)


def value_of(objective: str, predicted_NL: Bools, targets_NL: Bools, known_NL: Bools) -> float:
    """The objective by its definition; labels without a known positive count in OF1 only."""
    hits_L = (predicted_NL & targets_NL & known_NL).sum(axis=0)
    predicted_L, positives_L = (predicted_NL & known_NL).sum(axis=0), (targets_NL & known_NL).sum(axis=0)
    if objective == "OF1":
        return float(2 * hits_L.sum() / (predicted_L.sum() + positives_L.sum()))
    counted = positives_L > 0
    precision_L = hits_L[counted] / np.maximum(predicted_L[counted], 1)
    recall_L = hits_L[counted] / positives_L[counted]
    if objective == "CF1":
        return harmonic(float(precision_L.mean()), float(recall_L.mean()))
    return float(np.mean([harmonic(p, r) for p, r in zip(precision_L, recall_L, strict=True)]))


def harmonic(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def some_rows(seed: int, num_samples: int, num_labels: int) -> tuple[Floats, Bools, Bools]:
    """Coarse marginals with many ties, and a few unknown targets."""
    rng = np.random.default_rng(seed)
    marginals_NL = rng.integers(0, 9, (num_samples, num_labels)) / 8
    return marginals_NL, rng.random(marginals_NL.shape) < marginals_NL * 0.7, rng.random(marginals_NL.shape) < 0.85


@given(st.sampled_from(list(OBJECTIVES)), st.integers(0, 10_000), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_a_threshold_a_label_equals_brute_force(objective: str, seed: int, num_labels: int) -> None:
    marginals_NL, targets_NL, known_NL = some_rows(seed, 5, num_labels)
    assume((targets_NL & known_NL).any(axis=0).all())
    fitted = fit_label_thresholds(marginals_NL, targets_NL, known_NL, objective=objective, smoothing=0)
    columns = [[*np.unique(marginals_NL[:, label]), NEVER] for label in range(num_labels)]
    best = max(
        value_of(objective, marginals_NL >= np.array(values_L), targets_NL, known_NL)
        for values_L in itertools.product(*columns)
    )
    assert fitted.value == pytest.approx(best, abs=1e-12)
    assert value_of(objective, fitted.decide(marginals_NL), targets_NL, known_NL) == pytest.approx(best, abs=1e-12)


def test_cf1_equals_brute_force_even_off_the_hull() -> None:
    for seed in (55, 63, 149, 169, *range(40)):  # the first four need the ascent
        sweep = Cuts.of(*checked_marginals(*some_rows(seed, 5, 3)))
        choices = [np.flatnonzero(sweep.is_cut_CL[:, label]) for label in range(3)]
        values = [OBJECTIVES["CF1"].value(*sweep.counts_at(np.array(cuts))) for cuts in itertools.product(*choices)]
        reached = OBJECTIVES["CF1"].value(*sweep.counts_at(OBJECTIVES["CF1"].best_cuts(sweep)))
        assert reached == pytest.approx(max(values), abs=1e-12)


def test_cuts_lie_between_distinct_known_marginals() -> None:
    marginals_NL = np.array([[0.3], [0.3], [0.9], [0.5], [0.0]])
    known_NL = np.array([[True], [True], [True], [False], [True]])
    sweep = Cuts.of(marginals_NL, np.zeros_like(known_NL), known_NL)
    assert np.flatnonzero(sweep.is_cut_CL[:, 0]).tolist() == [0, 1, 3, 4]
    assert best_shared_threshold(sweep, OBJECTIVES["OF1"]) == (NEVER, 0.0)


@given(st.sampled_from(list(OBJECTIVES)), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_one_threshold_equals_brute_force(objective: str, seed: int) -> None:
    marginals_NL, targets_NL, known_NL = some_rows(seed, 8, 3)
    assume((targets_NL & known_NL).any())
    fitted = fit_global_threshold(marginals_NL, targets_NL, known_NL, objective=objective)
    best = max(
        value_of(objective, marginals_NL >= threshold, targets_NL, known_NL) for threshold in [*np.unique(marginals_NL), NEVER]
    )
    assert fitted.value == pytest.approx(best, abs=1e-12)
    assert value_of(objective, fitted.decide(marginals_NL), targets_NL, known_NL) == pytest.approx(best, abs=1e-12)
    assert len(np.unique(fitted.values_L)) == 1


def test_the_objectives_are_those_of_scikit_learn() -> None:
    rows = simulate(300, num_labels=12)
    predicted_NL, targets_NL = fit_global_threshold(*rows).decide(rows[0]), rows[1]
    cp, cr = (score(targets_NL, predicted_NL, average="macro", zero_division=0) for score in (precision_score, recall_score))
    oracles = {
        "OF1": f1_score(targets_NL, predicted_NL, average="micro"),
        "CF1": 2 * cp * cr / (cp + cr),
        "mean_F1": f1_score(targets_NL, predicted_NL, average="macro", zero_division=0),
    }
    counts = ((predicted_NL & targets_NL).sum(axis=0), predicted_NL.sum(axis=0), targets_NL.sum(axis=0))
    for objective, oracle in oracles.items():
        assert OBJECTIVES[objective].value(*counts) == pytest.approx(oracle, abs=1e-12)
        assert value_of(objective, predicted_NL, targets_NL, rows[2]) == pytest.approx(oracle, abs=1e-12)


@pytest.mark.parametrize("num_samples", [50, 1000])
def test_cf1_of_many_labels_is_within_a_hair_of_its_upper_bound(num_samples: int) -> None:
    sweep = Cuts.of(*simulate(num_samples, num_labels=60))
    reached = OBJECTIVES["CF1"].value(*sweep.counts_at(OBJECTIVES["CF1"].best_cuts(sweep)))
    shares_CL2 = _cf1_shares(sweep.true_positives_CL, sweep.predicted_C1, sweep.positives_L)
    bounds = [
        2 * np.where(sweep.is_cut_CL, w**2 * shares_CL2[..., 0] + (1 - w) ** 2 * shares_CL2[..., 1], 0).max(axis=0).sum()
        for w in np.linspace(0.3, 0.7, 401)
    ]
    assert min(bounds) - 1e-4 <= reached <= min(bounds) + 1e-12


@pytest.mark.parametrize("objective", ["OF1", "mean_F1"])
@pytest.mark.parametrize("num_samples", [30, 600])
def test_smoothing_helps_on_held_out_samples(objective: str, num_samples: int) -> None:
    held_NL, held_targets_NL, held_known_NL = simulate(6000, seed=77)
    values = {"own": 0.0, "smoothed": 0.0}
    for seed in range(3):
        rows = simulate(num_samples, seed=seed)
        for name, smoothing in (("own", 0.0), ("smoothed", None)):
            fitted = fit_label_thresholds(*rows, objective=objective, smoothing=smoothing)
            values[name] += value_of(objective, fitted.decide(held_NL), held_targets_NL, held_known_NL) / 3
    assert values["smoothed"] > values["own"] + 0.003


def test_labels_that_differ_get_their_own_thresholds() -> None:
    shift_L = np.linspace(-2, 2, 40)
    rows, held = simulate(800, shift_L=shift_L), simulate(4000, seed=5, shift_L=shift_L)
    shared, own = fit_global_threshold(*rows), fit_label_thresholds(*rows)
    of1 = [value_of("OF1", fitted.decide(held[0]), *held[1:]) for fitted in (shared, own)]
    assert of1[1] > of1[0] + 0.03
    assert np.corrcoef(logit(own.values_L[10:]), -shift_L[10:])[0, 1] > 0.9


def test_of1_threshold_of_true_probabilities_is_half_of_its_value() -> None:
    # Lipton, Elkan and Narayanaswamy, "Thresholding classifiers to maximize F1 score" (2014).
    fitted = fit_global_threshold(*simulate(20_000))
    assert fitted.values_L[0] == pytest.approx(fitted.value / 2, abs=0.02)


def test_more_smoothing_moves_every_threshold_towards_the_one_for_all() -> None:
    rows = simulate(200)
    shared = fit_global_threshold(*rows).values_L[0]
    distances = [
        np.abs(logit(fit_label_thresholds(*rows, smoothing=smoothing).values_L) - logit(shared))
        for smoothing in (0.0, 5.0, 50.0, np.inf)
    ]
    for near_L, far_L in itertools.pairwise(distances[::-1]):
        assert (near_L <= far_L + 1e-9).all()
    assert distances[-1].max() < 1e-9


def test_a_label_without_positives_takes_the_threshold_for_all() -> None:
    marginals_NL, targets_NL, known_NL = simulate(200)
    known_NL[targets_NL[:, 3], 3] = False  # its positives are not stated
    known_NL[:, 4] = False
    for smoothing in (0.0, 10.0):
        fitted = fit_label_thresholds(marginals_NL, targets_NL, known_NL, smoothing=smoothing)
        shared = fit_global_threshold(marginals_NL, targets_NL, known_NL)
        assert fitted.values_L[3] == fitted.values_L[4] == shared.values_L[0]


def test_unknown_targets_change_nothing() -> None:
    marginals_NL, targets_NL, known_NL = simulate(200)
    known_NL = np.random.default_rng(0).random(known_NL.shape) < 0.7
    turned_NL = np.where(known_NL, targets_NL, ~targets_NL)
    moved_NL = np.where(known_NL, marginals_NL, 0.99)
    for fit in (fit_global_threshold, fit_label_thresholds):
        values = [fit(*rows, known_NL).values_L for rows in ((marginals_NL, targets_NL), (moved_NL, turned_NL))]
        np.testing.assert_array_equal(*values)
    values = [
        fit_label_precision(*rows, known_NL, precision=0.7).values_L
        for rows in ((marginals_NL, targets_NL), (moved_NL, turned_NL))
    ]
    np.testing.assert_array_equal(*values)


@given(st.integers(0, 10_000), st.floats(0.2, 1.0))
@settings(max_examples=40, deadline=None)
def test_the_lowest_threshold_of_a_precision_equals_scikit_learn(seed: int, precision: float) -> None:
    marginals_NL, targets_NL, known_NL = some_rows(seed, 12, 2)
    known_NL[0] = True
    targets_NL[0], marginals_NL[0] = True, 1.0
    found_T, _, thresholds_T = precision_recall_curve(targets_NL[known_NL], marginals_NL[known_NL])
    reached_T = thresholds_T[found_T[:-1] >= precision]
    assume(len(reached_T) > 0)
    fitted = fit_global_precision(marginals_NL, targets_NL, known_NL, precision=precision)
    np.testing.assert_array_equal(fitted.decide(marginals_NL)[known_NL], (marginals_NL >= reached_T.min())[known_NL])
    assert fitted.value >= precision


def test_precision_a_label_is_near_the_wanted_one_on_held_out_samples() -> None:
    shift_L = np.linspace(-1.5, 1.5, 40)
    fitted = fit_label_precision(*simulate(3000, shift_L=shift_L), precision=0.8)
    held_NL, held_targets_NL, _ = simulate(8000, seed=4, shift_L=shift_L)
    predicted_NL = fitted.decide(held_NL)
    precision_L = (predicted_NL & held_targets_NL).sum(axis=0) / np.maximum(predicted_NL.sum(axis=0), 1)
    assert np.abs(precision_L[30:] - 0.8).max() < 0.05
    assert fitted.value == pytest.approx(0.8, abs=0.02)
    assert fitted.objective == "precision>=0.8"


def test_a_label_out_of_reach_is_never_predicted_and_named(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    marginals_NL, targets_NL, known_NL = simulate(400)
    marginals_NL[:, -1] = 1 - marginals_NL[:, -1]  # ranked the wrong way round
    fitted = fit_label_precision(marginals_NL, targets_NL, known_NL, precision=0.9)
    assert fitted.values_L[-1] == NEVER
    assert not fitted.decide(np.ones((1, 40)))[0, -1]
    assert any(note.startswith("label column 39 reaches precision 0.") for note in fitted.notes)
    assert "not 0.9: never predicted" in caplog.text


def test_a_label_with_few_positives_takes_the_precision_for_all() -> None:
    marginals_NL, targets_NL, known_NL = simulate(400)
    targets_NL[4:, 0] = False
    targets_NL[:4, 0] = True
    shared = fit_global_precision(marginals_NL, targets_NL, known_NL, precision=0.7)
    fitted = fit_label_precision(marginals_NL, targets_NL, known_NL, precision=0.7)
    assert fitted.values_L[0] == shared.values_L[0]


def test_neighbouring_float32_marginals_are_told_apart() -> None:
    for step in (0.0, 1.0):  # the middle is rounded to the one below, or to the one above
        high = np.float32(0.75)
        low = np.nextafter(high, np.float32(step))
        low, high = min(low, high), max(low, high)
        marginals_NL = np.array([[high], [low]], dtype=np.float32)
        targets_NL, known_NL = np.array([[True], [False]]), np.ones((2, 1), dtype=bool)
        fitted = fit_global_threshold(marginals_NL, targets_NL, known_NL)
        assert fitted.decide(marginals_NL).ravel().tolist() == [True, False]
        assert fitted.value == 1.0


def test_marginals_of_one_can_be_left_out() -> None:
    marginals_NL = np.array([[1.0, 0.9], [1.0, 0.8], [1.0, 0.1], [1.0, 0.2]])
    targets_NL = np.array([[False, True], [False, True], [False, False], [True, False]])
    fitted = fit_label_thresholds(marginals_NL, targets_NL, np.ones_like(targets_NL), smoothing=0)
    assert fitted.values_L[0] == NEVER
    assert fitted.decide(marginals_NL.astype(np.float32)).tolist() == [
        [False, True],
        [False, True],
        [False, False],
        [False, False],
    ]


def test_few_samples_take_the_threshold_for_all() -> None:
    marginals_NL, targets_NL = np.array([[0.9, 0.2]]), np.array([[True, False]])
    fitted = fit_label_thresholds(marginals_NL, targets_NL, np.ones_like(targets_NL))
    assert fitted.smoothing == np.inf
    assert fitted.decide(marginals_NL).tolist() == [[True, False]]


@pytest.mark.parametrize("smoothing", [0.0, np.inf])
def test_stored_thresholds_are_equal(smoothing: float) -> None:
    fitted = fit_label_thresholds(*simulate(60), smoothing=smoothing)
    again = Thresholds.from_dict(json.loads(json.dumps(fitted.to_dict(), allow_nan=False)))
    np.testing.assert_array_equal(again.values_L, fitted.values_L)
    assert (again.objective, again.smoothing, again.value, again.num_samples, again.notes) == (
        "OF1", smoothing, fitted.value, 60, ()
    )  # fmt: skip


def test_faults_are_named() -> None:
    rows = simulate(60)
    nothing_NL = np.zeros_like(rows[1])
    with pytest.raises(SpecError, match="unknown threshold objective 'OF2'; nearest: OF1; allowed: OF1, CF1, mean_F1"):
        fit_global_threshold(*rows, objective="OF2")
    with pytest.raises(SpecError, match="unknown threshold objective 'F'"):
        fit_label_thresholds(*rows, objective="F")
    with pytest.raises(CalibrationError, match="60 samples without one positive; thresholds need positives"):
        fit_global_threshold(rows[0], nothing_NL, rows[2])
    with pytest.raises(CalibrationError, match=r"marginals range from -4 to 7, not within 0 and 1; pass probabilities"):
        fit_global_threshold(np.array([[-4.0], [7.0]]), np.ones((2, 1)), np.ones((2, 1)))
    with pytest.raises(SpecError, match=r"precision 90 is outside \(0, 1\]; write 90 % as 0\.9"):
        fit_global_precision(*rows, precision=90)
    with pytest.raises(CalibrationError, match="thresholds of 40 labels, marginals of 3; use those of this model"):
        fit_global_threshold(*rows).decide(np.zeros((2, 3)))
    with pytest.raises(
        BundleError, match=r"stored thresholds cannot be read \(KeyError\('smoothing'\)\); write the bundle again"
    ):
        Thresholds.from_dict({"values": [0.5]})


def test_a_precision_out_of_reach_names_the_highest() -> None:
    marginals_NL = np.array([[0.9], [0.8], [0.7], [0.6]])
    targets_NL = np.array([[False], [True], [True], [False]])
    with pytest.raises(
        CalibrationError,
        match=r"no threshold reaches precision 0\.9 on these 4 samples; the highest is 0\.6667 at threshold 0\.65",
    ):
        fit_global_precision(marginals_NL, targets_NL, np.ones_like(targets_NL), precision=0.9)
