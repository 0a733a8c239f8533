"""Calibrators: what they recover, what they keep, what they refuse. Outputs are simulated from stated distributions."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, log_loss

from rayprob.errors import BundleError, CalibrationError, SpecError
from rayprob.metrics.reliability import expected_calibration_error
from rayprob.probability.calibration import calibrators, platt
from rayprob.probability.calibration.calibrators import calibrator_from_arrays, choose_calibrator, fit_calibrator

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
RANKING_KEPT = ("identity", "temperature", "shared_platt", "platt")


def simulate(
    num_samples: int, log_scale: float | Floats, shift: float | Floats, *, seed: int = 0, num_labels: int = 40
) -> tuple[Floats, Bools, Floats]:
    """Return (raw logits, targets, true logits): targets follow the true logits = exp(log_scale) * raw + shift."""
    rng = np.random.default_rng(seed)
    centre_L = logit(10 ** np.linspace(-2.5, -0.3, num_labels)) * 1.3
    true_NL = centre_L + 2.2 * rng.normal(size=(num_samples, num_labels))
    targets_NL = rng.random(true_NL.shape) < expit(true_NL)
    return (true_NL - shift) / np.exp(log_scale), targets_NL, true_NL


def nll(logits_NL: Floats, targets_NL: Bools) -> float:
    return float(log_loss(targets_NL.ravel(), expit(logits_NL).ravel()) * targets_NL.shape[1])


def test_temperature_is_the_likelihood_optimum_and_recovers_the_truth() -> None:
    raw_NL, targets_NL, _ = simulate(2000, np.log(0.6), 0.0)
    calibrator = fit_calibrator("temperature", raw_NL, targets_NL, np.ones_like(targets_NL))
    scale = calibrator.to_arrays()["scale_L"][0]
    assert scale == pytest.approx(0.6, abs=0.02)
    grid = [nll(raw_NL * candidate, targets_NL) for candidate in scale * np.linspace(0.9, 1.1, 21)]
    assert int(np.argmin(grid)) == 10


def test_shared_platt_equals_unpenalised_logistic_regression() -> None:
    raw_NL, targets_NL, _ = simulate(500, 0.4, -0.8)
    arrays = fit_calibrator("shared_platt", raw_NL, targets_NL, np.ones_like(targets_NL)).to_arrays()
    oracle = LogisticRegression(C=1e12, tol=1e-10).fit(raw_NL.reshape(-1, 1), targets_NL.ravel())
    assert arrays["scale_L"][0] == pytest.approx(oracle.coef_[0, 0], rel=1e-4)
    assert arrays["shift_L"][0] == pytest.approx(oracle.intercept_[0], rel=1e-4)


def test_platt_recovers_each_frequent_label() -> None:
    rng = np.random.default_rng(1)
    log_scale_L, shift_L = rng.normal(0.3, 0.3, 40), rng.normal(-0.5, 0.7, 40)
    raw_NL, targets_NL, _ = simulate(6000, log_scale_L, shift_L)
    arrays = fit_calibrator("platt", raw_NL, targets_NL, np.ones_like(targets_NL)).to_arrays()
    frequent_L = targets_NL.sum(axis=0) > 500
    assert frequent_L.sum() > 10
    assert np.abs(np.log(arrays["scale_L"]) - log_scale_L)[frequent_L].max() < 0.15
    assert np.abs(arrays["shift_L"] - shift_L)[frequent_L].max() < 0.25


def test_platt_of_a_frequent_label_nears_its_own_maximum_likelihood() -> None:
    raw_NL, targets_NL, _ = simulate(6000, np.linspace(-0.5, 0.5, 40), np.linspace(1, -1, 40))
    arrays = fit_calibrator("platt", raw_NL, targets_NL, np.ones_like(targets_NL)).to_arrays()
    oracle = LogisticRegression(C=1e12, tol=1e-10).fit(raw_NL[:, -1:], targets_NL[:, -1])
    assert arrays["scale_L"][-1] == pytest.approx(oracle.coef_[0, 0], abs=0.05)
    assert arrays["shift_L"][-1] == pytest.approx(oracle.intercept_[0], abs=0.05)


def test_a_label_without_positives_is_calibrated_like_the_others() -> None:
    raw_NL, targets_NL, _ = simulate(300, 0.3, -0.6)
    raw_NL[:, 0] -= 5.0  # nothing seen of it, and nothing expected
    targets_NL[:, 0] = False
    arrays = fit_calibrator("platt", raw_NL, targets_NL, np.ones_like(targets_NL)).to_arrays()
    others = arrays["shift_L"][1:]
    assert others.min() - 0.1 <= arrays["shift_L"][0] <= others.max() + 0.1
    assert 1.0 < arrays["scale_L"][0] < 1.8


@pytest.mark.parametrize("spread", [0.0, 0.6])
def test_the_spread_between_labels_is_found(spread: float) -> None:
    shift_L = spread * np.random.default_rng(1).normal(size=120)
    raw_NL, targets_NL, _ = simulate(250, 0.2, shift_L, num_labels=120)
    _, prior = platt.fit_labels(raw_NL, targets_NL, np.ones_like(targets_NL))
    assert np.sqrt(prior.covariance_22[1, 1]) == pytest.approx(shift_L.std(), abs=0.16 if spread == 0 else 0.08)
    assert prior.mean_2 == pytest.approx([0.2, shift_L.mean()], abs=0.1)


def test_platt_minimises_penalised_likelihood() -> None:
    raw_NL, targets_NL, _ = simulate(80, 0.3, -0.6, num_labels=3)
    known_NL = np.random.default_rng(0).random(raw_NL.shape) < 0.8
    theta_L2, prior = platt.fit_labels(raw_NL, targets_NL, known_NL)

    def energy(theta_2: Floats, label: int) -> float:
        known_N = known_NL[:, label]
        p_M = expit(np.exp(theta_2[0]) * raw_NL[known_N, label] + theta_2[1])
        apart_2 = theta_2 - prior.mean_2
        fit = -np.log(np.where(targets_NL[known_N, label], p_M, 1 - p_M)).sum()
        return float(fit + 0.5 * apart_2 @ np.linalg.inv(prior.covariance_22) @ apart_2)

    for label, theta_2 in enumerate(theta_L2):
        around = [energy(theta_2 + 0.01 * np.array(step), label) for step in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1))]
        assert energy(theta_2, label) < min(around)


@pytest.mark.parametrize("name", ["temperature", "shared_platt", "platt", "isotonic"])
def test_calibrating_improves_held_out_likelihood(name: str) -> None:
    log_scale, shift = (0.5, 0.0) if name == "temperature" else (0.3, -1.0)
    raw_NL, targets_NL, _ = simulate(600, log_scale, shift)
    held_raw_NL, held_targets_NL, held_true_NL = simulate(4000, log_scale, shift, seed=9)
    calibrator = fit_calibrator(name, raw_NL, targets_NL, np.ones_like(targets_NL))
    before, after, best = (
        nll(logits_NL, held_targets_NL) for logits_NL in (held_raw_NL, calibrator.apply(held_raw_NL), held_true_NL)
    )
    assert after - best < 0.2 * (before - best)


@pytest.mark.parametrize("name", ["shared_platt", "platt", "isotonic"])
def test_calibrating_lowers_held_out_calibration_error(name: str) -> None:
    raw_NL, targets_NL, _ = simulate(1500, 0.3, -1.0)
    held_raw_NL, held_targets_NL, _ = simulate(4000, 0.3, -1.0, seed=9)
    calibrator = fit_calibrator(name, raw_NL, targets_NL, np.ones_like(targets_NL))
    before, after = (
        expected_calibration_error(expit(logits_NL), held_targets_NL)
        for logits_NL in (held_raw_NL, calibrator.apply(held_raw_NL))
    )
    assert after < 0.1 * before


def test_isotonic_mends_a_bend_that_platt_cannot() -> None:
    def bent(true_NL: Floats) -> Floats:
        return np.asarray(np.where(true_NL > -1, true_NL, -1 + (true_NL + 1) * 2.2))

    _, targets_NL, true_NL = simulate(3000, 0.0, 0.0)
    _, held_targets_NL, held_true_NL = simulate(4000, 0.0, 0.0, seed=9)
    known_NL = np.ones_like(targets_NL)
    after = {
        name: nll(fit_calibrator(name, bent(true_NL), targets_NL, known_NL).apply(bent(held_true_NL)), held_targets_NL)
        for name in ("platt", "isotonic")
    }
    assert after["isotonic"] < after["platt"] - 0.03


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_average_precision_of_every_label_is_kept(seed: int) -> None:
    raw_NL, targets_NL, _ = simulate(60, 0.5, 1.0, seed=seed, num_labels=5)
    for name in RANKING_KEPT:
        calibrator = fit_calibrator(name, raw_NL, targets_NL, np.ones_like(targets_NL))
        calibrated_NL = calibrator.apply(raw_NL)
        for label in np.flatnonzero(targets_NL.any(axis=0)):
            before, after = (average_precision_score(targets_NL[:, label], s_NL[:, label]) for s_NL in (raw_NL, calibrated_NL))
            assert after == pytest.approx(before, abs=1e-12)


def test_isotonic_never_turns_a_ranking_round_and_stays_finite() -> None:
    raw_NL, targets_NL, _ = simulate(300, 0.5, 1.0)
    calibrator = fit_calibrator("isotonic", raw_NL, targets_NL, np.ones_like(targets_NL))
    rising_N1 = np.linspace(-200, 200, 500)[:, None]
    calibrated_NL = calibrator.apply(np.tile(rising_N1, (1, 40)))
    assert np.isfinite(calibrated_NL).all()
    assert (np.diff(calibrated_NL, axis=0) >= -1e-12).all()


@pytest.mark.parametrize("name", list(calibrators.FITS))
def test_unknown_targets_change_nothing(name: str) -> None:
    raw_NL, targets_NL, _ = simulate(200, 0.4, -0.5)
    rng = np.random.default_rng(3)
    known_NL = rng.random(raw_NL.shape) < 0.7
    known_NL[:, 7] = False  # a label that the source never states
    turned_NL = np.where(known_NL, targets_NL, ~targets_NL)
    moved_NL = np.where(known_NL, raw_NL, 50.0)
    one, two = (fit_calibrator(name, raw_NL, y_NL, known_NL).to_arrays() for y_NL in (targets_NL, turned_NL))
    three = fit_calibrator(name, moved_NL, targets_NL, known_NL).to_arrays()
    for key, values in one.items():
        np.testing.assert_array_equal(values, two[key])
        np.testing.assert_array_equal(values, three[key])


def test_choosing_ignores_unknown_targets() -> None:
    raw_NL, targets_NL, _ = simulate(60, 0.4, -0.5)
    known_NL = np.random.default_rng(3).random(raw_NL.shape) < 0.7
    moved_NL = np.where(known_NL, raw_NL, 9.0)
    choices = [choose_calibrator("bernoulli", {"logits": z_NL}, targets_NL, known_NL) for z_NL in (raw_NL, moved_NL)]
    assert choices[0].nll_by_name == choices[1].nll_by_name


@pytest.mark.parametrize("name", list(calibrators.FITS))
def test_stored_calibrators_are_equal(name: str) -> None:
    raw_NL, targets_NL, _ = simulate(100, 0.4, -0.5)
    calibrator = fit_calibrator(name, raw_NL, targets_NL, np.ones_like(targets_NL))
    again = calibrator_from_arrays("bernoulli", name, calibrator.to_arrays())
    outputs = {"logits": raw_NL.astype(np.float32)}
    np.testing.assert_array_equal(again.apply_outputs(outputs)["logits"], calibrator.apply_outputs(outputs)["logits"])
    assert again.apply_outputs(outputs)["logits"].dtype == np.float32
    assert again.name == name


@pytest.mark.parametrize("num_samples", [4, 15, 50, 1200])
def test_choosing_never_worsens_calibrated_outputs_by_much(num_samples: int) -> None:
    held_raw_NL, held_targets_NL, _ = simulate(3000, 0.0, 0.0, seed=99)
    before = nll(held_raw_NL, held_targets_NL)
    for seed in range(1 if num_samples > 1000 else 8):
        raw_NL, targets_NL, _ = simulate(num_samples, 0.0, 0.0, seed=seed)
        choice = choose_calibrator("bernoulli", {"logits": raw_NL}, targets_NL, np.ones_like(targets_NL), seed=seed)
        after = nll(choice.calibrator.apply_outputs({"logits": held_raw_NL})["logits"], held_targets_NL)
        assert after < before * 1.02
        if num_samples < 50:
            assert choice.calibrator.name in ("identity", "temperature", "shared_platt")


@pytest.mark.parametrize(
    ("log_scale", "shift", "best"),
    [(0.0, 0.0, "identity"), (0.6, 0.0, "temperature"), (0.2, -1.5, "shared_platt"), (0.2, np.linspace(-2, 2, 40), "platt")],
)
def test_choosing_finds_the_kind_of_miscalibration(log_scale: float, shift: float | Floats, best: str) -> None:
    raw_NL, targets_NL, _ = simulate(400, log_scale, shift, seed=2)
    choice = choose_calibrator("bernoulli", {"logits": raw_NL}, targets_NL, np.ones_like(targets_NL))
    assert choice.calibrator.name == best
    assert set(choice.nll_by_name) == {"identity", "temperature", "shared_platt", "platt", "isotonic"}
    assert best in choice.reason
    words = f"{best}: {choice.nll_by_name[best]:.4f} nats per image, cross-validated"
    least = min(choice.nll_by_name, key=choice.nll_by_name.__getitem__)
    assert choice.reason == words + f"; {least}, less simple, reaches {choice.nll_by_name[least]:.4f}" * (least != best)


def test_choosing_finds_a_curved_miscalibration_among_300_samples() -> None:
    raw_NL, targets_NL, _ = simulate(300, 0.0, 0.0, seed=2)
    bent_NL = np.sign(raw_NL + 2) * np.abs(raw_NL + 2) ** 2.2
    choice = choose_calibrator("bernoulli", {"logits": bent_NL}, targets_NL, np.ones_like(targets_NL))
    assert choice.calibrator.name == "isotonic"
    assert choice.nll_by_name["isotonic"] < choice.nll_by_name["platt"] - 0.1


def test_wanted_candidates_only_are_tried() -> None:
    raw_NL, targets_NL, _ = simulate(60, 0.6, 0.0)
    known_NL = np.ones_like(targets_NL)
    choice = choose_calibrator("bernoulli", {"logits": raw_NL}, targets_NL, known_NL, candidates=["temperature", "identity"])
    assert set(choice.nll_by_name) == {"identity", "temperature"}
    only = choose_calibrator("bernoulli", {"logits": raw_NL}, targets_NL, known_NL, candidates=["platt"])
    assert (only.calibrator.name, only.nll_by_name) == ("platt", {})
    assert "are too few to compare" in only.reason


def test_samples_without_known_labels_do_not_count() -> None:
    raw_NL, targets_NL, _ = simulate(40, 0.6, 0.0)
    known_NL = np.ones_like(targets_NL)
    known_NL[8:] = False
    choice = choose_calibrator("bernoulli", {"logits": raw_NL}, targets_NL, known_NL)
    assert choice.calibrator.name == "identity"
    assert "8 samples with known labels" in choice.reason


ROWS = np.zeros((4, 3))
LABELS = np.ones((4, 3), dtype=bool)


@pytest.mark.parametrize(
    ("logits", "targets", "known", "message"),
    [
        (ROWS[:2], LABELS, LABELS, r"logits \[2, 3\], targets \[4, 3\] and known \[4, 3\] differ in shape"),
        (ROWS[0], LABELS[0], LABELS[0], r"must be \[samples, labels\]"),
        (ROWS, LABELS, ~LABELS, "4 samples without one known target; fit on a split that states its labels"),
        (
            np.where(np.eye(4, 3) > 0, np.nan, 0.0),
            LABELS,
            LABELS,
            "logits contain nan at row 0, label column 0; they must be finite",
        ),
    ],
)
def test_rows_that_cannot_be_fitted_are_named(logits: Floats, targets: Bools, known: Bools, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        fit_calibrator("platt", logits, targets, known)


def test_unknown_names_list_what_exists() -> None:
    with pytest.raises(SpecError, match="unknown calibrator 'plat'; nearest: platt; allowed: identity, temperature"):
        fit_calibrator("plat", ROWS, LABELS, LABELS)
    with pytest.raises(SpecError, match=r"unknown family of distributions 'normal'; allowed: bernoulli, .*mixture"):
        choose_calibrator("normal", {"logits": ROWS}, LABELS, LABELS)


def test_outputs_of_another_family_are_refused() -> None:
    with pytest.raises(CalibrationError, match="bernoulli outputs lack logits; found mixing_logits"):
        choose_calibrator("bernoulli", {"mixing_logits": ROWS}, LABELS, LABELS)
    for name in ("temperature", "isotonic"):
        calibrator = fit_calibrator(name, ROWS, LABELS, LABELS)
        with pytest.raises(CalibrationError, match="bernoulli outputs lack logits; found none; use the outputs of a bernoulli"):
            calibrator.apply_outputs({})


def test_a_calibrator_of_other_labels_is_refused() -> None:
    raw_NL, targets_NL, _ = simulate(60, 0.4, 0.0, num_labels=4)
    for name in ("platt", "isotonic"):
        calibrator = fit_calibrator(name, raw_NL, targets_NL, np.ones_like(targets_NL))
        with pytest.raises(CalibrationError, match=f"calibrator '{name}' was fitted on 4 labels, the logits have 3"):
            calibrator.apply(raw_NL[:, :3])


def test_a_bundle_without_its_arrays_is_refused() -> None:
    scale = {"scale_L": np.ones(1)}
    with pytest.raises(BundleError, match=re.escape("calibrator 'platt' lacks array 'shift_L'; found scale_L; write")):
        calibrator_from_arrays("bernoulli", "platt", scale)
    with pytest.raises(BundleError, match="calibrator 'isotonic' lacks array 'knots'; found scale_L; write"):
        calibrator_from_arrays("bernoulli", "isotonic", scale)
    with pytest.raises(BundleError, match="unknown calibrator 'beta'"):
        calibrator_from_arrays("bernoulli", "beta", scale)


def test_folds_need_rows() -> None:
    raw_NL, targets_NL, _ = simulate(30, 0.0, 0.0)
    with pytest.raises(CalibrationError, match="1 folds of 30 samples; cross-validation takes 2 to 30 folds"):
        choose_calibrator("bernoulli", {"logits": raw_NL}, targets_NL, np.ones_like(targets_NL), num_folds=1)
