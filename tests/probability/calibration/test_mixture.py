"""Calibration of mixtures: still a mixture, equal to independent labels for one component, honest jointly and marginally."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit, logit, softmax
from sklearn.metrics import log_loss

from rayprob.errors import BundleError, CalibrationError, SpecError
from rayprob.probability.calibration import mixture as mixture_calibration
from rayprob.probability.calibration.calibrators import calibrator_from_arrays, choose_calibrator, fit_calibrator
from rayprob.probability.calibration.mixture import MIXTURE_FITS, MixtureCalibrator, checked_mixture

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
MIXING_SCALE, SCALE_L, SHIFT_L = 0.6, np.linspace(0.8, 1.8, 15), np.linspace(0.5, -1.5, 15)  # what mends simulate_mixture


def simulate_mixture(num_samples: int, *, seed: int = 0, noise: float = 0.0) -> tuple[dict[str, Floats], Bools]:
    """Return raw outputs of a mixture of 6 components over 15 labels, and targets of which they are a distorted account."""
    rng = np.random.default_rng(seed)
    centre_KL = logit(10 ** rng.uniform(-2, -0.5, 15)) + 1.8 * rng.normal(size=(6, 15))
    mixing_NK = 2 * rng.normal(size=(num_samples, 6))
    component_NKL = centre_KL + rng.normal(size=(num_samples, 1, 15))
    component_N = [rng.choice(6, p=p_K) for p_K in softmax(mixing_NK, axis=-1)]
    targets_NL = rng.random((num_samples, 15)) < expit(component_NKL[np.arange(num_samples), component_N])
    raw_mixing_NK = mixing_NK / MIXING_SCALE + noise * rng.normal(size=mixing_NK.shape)
    raw_component_NKL = (component_NKL - SHIFT_L) / SCALE_L + noise * rng.normal(size=component_NKL.shape)
    return {"mixing_logits": raw_mixing_NK, "component_logits": raw_component_NKL}, targets_NL


def fitted(name: str, outputs: dict[str, Floats], targets_NL: Bools, known_NL: Bools) -> MixtureCalibrator:
    return MIXTURE_FITS[name](*checked_mixture(outputs, targets_NL, known_NL))


def brute_force_log_prob(outputs: dict[str, Floats], row: int, targets_L: Bools) -> float:
    """The joint by plain products, for few labels."""
    mixing_K = softmax(outputs["mixing_logits"][row])
    p_KL = expit(outputs["component_logits"][row])
    return float(np.log(sum(w * np.prod(np.where(targets_L, p_L, 1 - p_L)) for w, p_L in zip(mixing_K, p_KL, strict=True))))


@pytest.mark.parametrize("name", list(MIXTURE_FITS))
def test_one_component_is_the_independent_model(name: str) -> None:
    rng = np.random.default_rng(0)
    raw_NL = rng.normal(-2, 2, (150, 8))
    targets_NL = rng.random(raw_NL.shape) < expit(np.linspace(0.5, 2, 8) * raw_NL - 0.5)
    known_NL = np.random.default_rng(0).random(raw_NL.shape) < 0.8
    independent = fit_calibrator(name, raw_NL, targets_NL, known_NL)
    outputs = {"mixing_logits": np.zeros((150, 1)), "component_logits": raw_NL[:, None]}
    mixture = fitted(name, outputs, targets_NL, known_NL)
    assert mixture.mixing_scale == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(mixture.apply_outputs(outputs)["component_logits"][:, 0], independent.apply(raw_NL), atol=1e-3)


def test_joint_likelihood_and_marginals_equal_brute_force() -> None:
    outputs, targets_NL = simulate_mixture(20)
    outputs = {"mixing_logits": outputs["mixing_logits"], "component_logits": outputs["component_logits"][..., :5]}
    targets_NL = targets_NL[:, :5]
    known_NL = np.ones_like(targets_NL)
    nll_N = mixture_calibration.joint_nll(*outputs.values(), targets_NL, known_NL)
    assert nll_N == pytest.approx([-brute_force_log_prob(outputs, row, targets_NL[row]) for row in range(20)], abs=1e-10)
    marginals_NL = np.einsum("nk,nkl->nl", softmax(outputs["mixing_logits"], axis=-1), expit(outputs["component_logits"]))
    logits_NL = mixture_calibration.marginal_logits(*outputs.values())
    np.testing.assert_allclose(expit(logits_NL), marginals_NL, atol=1e-12)


def test_unknown_labels_drop_out_of_the_joint() -> None:
    outputs, targets_NL = simulate_mixture(20)
    known_NL = np.ones_like(targets_NL)
    known_NL[:, 4:] = False
    few = outputs["component_logits"][..., :4]
    all_nll_N = mixture_calibration.joint_nll(*outputs.values(), targets_NL, known_NL)
    few_nll_N = mixture_calibration.joint_nll(outputs["mixing_logits"], few, targets_NL[:, :4], known_NL[:, :4])
    np.testing.assert_allclose(all_nll_N, few_nll_N, atol=1e-12)


def test_slopes_of_the_joint_equal_differences() -> None:
    outputs, targets_NL = simulate_mixture(30)
    known_NL = np.random.default_rng(0).random(targets_NL.shape) < 0.7
    arguments = (*outputs.values(), targets_NL & known_NL, known_NL)
    theta_L2 = np.random.default_rng(1).normal(0, 0.3, (15, 2))
    nll_here, mixing_slope, slope_L2 = mixture_calibration._nll_and_slopes(0.2, theta_L2, *arguments)
    for place in ((0, 0), (3, 1), (14, 0)):
        moved_L2 = theta_L2.copy()
        moved_L2[place] += 1e-6
        assert (mixture_calibration._nll_and_slopes(0.2, moved_L2, *arguments)[0] - nll_here) / 1e-6 == pytest.approx(
            slope_L2[place], abs=1e-2
        )
    moved_nll = mixture_calibration._nll_and_slopes(0.2 + 1e-6, theta_L2, *arguments)[0]
    assert (moved_nll - nll_here) / 1e-6 == pytest.approx(mixing_slope, abs=1e-2)


def test_mixture_parameters_are_recovered() -> None:
    outputs, targets_NL = simulate_mixture(6000)
    calibrator = fitted("platt", outputs, targets_NL, np.ones_like(targets_NL))
    assert calibrator.mixing_scale == pytest.approx(MIXING_SCALE, abs=0.03)
    assert np.abs(calibrator.scale_L / SCALE_L - 1).max() < 0.2
    assert np.abs(calibrator.shift_L - SHIFT_L).max() < 0.35


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_joint_calibration_gives_marginals_no_worse_than_calibrating_them_alone(noise: float) -> None:
    outputs, targets_NL = simulate_mixture(6000, noise=noise)
    fit_on, held = {key: value[:2000] for key, value in outputs.items()}, {key: value[2000:] for key, value in outputs.items()}
    known_NL = np.ones_like(targets_NL)
    mixture = fitted("platt", fit_on, targets_NL[:2000], known_NL[:2000]).apply_outputs(held)
    alone = fit_calibrator("platt", mixture_calibration.marginal_logits(*fit_on.values()), targets_NL[:2000], known_NL[:2000])
    raw_NL = mixture_calibration.marginal_logits(*held.values())
    raw, marginal, joint = (
        log_loss(targets_NL[2000:].ravel(), expit(logits_NL).ravel())
        for logits_NL in (raw_NL, alone.apply(raw_NL), mixture_calibration.marginal_logits(*mixture.values()))
    )
    assert joint <= marginal < raw
    before, after = (
        mixture_calibration.joint_nll(*o.values(), targets_NL[2000:], known_NL[2000:]).mean() for o in (held, mixture)
    )
    assert after < before


@pytest.mark.parametrize("name", list(MIXTURE_FITS))
def test_stored_mixture_calibrators_are_equal(name: str) -> None:
    outputs, targets_NL = simulate_mixture(60)
    calibrator = fitted(name, outputs, targets_NL, np.ones_like(targets_NL))
    again = calibrator_from_arrays("mixture", name, calibrator.to_arrays())
    outputs = {key: value.astype(np.float32) for key, value in outputs.items()}
    for key, values in again.apply_outputs(outputs).items():
        np.testing.assert_array_equal(values, calibrator.apply_outputs(outputs)[key])
        assert values.dtype == np.float32


def test_choosing_for_a_mixture_lowers_its_joint_likelihood() -> None:
    outputs, targets_NL = simulate_mixture(1500)
    fit_on, held = {key: value[:400] for key, value in outputs.items()}, {key: value[400:] for key, value in outputs.items()}
    known_NL = np.ones_like(targets_NL)
    choice = choose_calibrator("mixture", fit_on, targets_NL[:400], known_NL[:400], num_folds=3)
    before, after = (
        mixture_calibration.joint_nll(*o.values(), targets_NL[400:], known_NL[400:]).mean()
        for o in (held, choice.calibrator.apply_outputs(held))
    )
    assert choice.calibrator.name == "platt"
    assert after < before


ROWS, LABELS = np.zeros((4, 3)), np.ones((4, 3), dtype=bool)


def test_names_and_outputs_that_do_not_exist_are_named() -> None:
    mixture = {"mixing_logits": np.zeros((4, 2)), "component_logits": np.zeros((4, 2, 3))}
    with pytest.raises(SpecError, match="unknown calibrator of a mixture distribution 'isotonic'; allowed: identity"):
        choose_calibrator("mixture", mixture, LABELS, LABELS, candidates=["isotonic"])
    with pytest.raises(CalibrationError, match="mixture outputs lack component_logits, mixing_logits; found logits; use the"):
        choose_calibrator("mixture", {"logits": ROWS}, LABELS, LABELS)
    with pytest.raises(CalibrationError, match="mixture outputs lack component_logits; found mixing_logits; use the"):
        fitted("temperature", mixture, LABELS, LABELS).apply_outputs({"mixing_logits": ROWS})
    with pytest.raises(CalibrationError, match=r"mixing logits \[4, 5\] and component logits \[4, 2, 3\] must be finite"):
        fitted("platt", mixture | {"mixing_logits": np.zeros((4, 5))}, LABELS, LABELS)


def test_a_mixture_calibrator_of_other_labels_is_refused() -> None:
    outputs, targets_NL = simulate_mixture(20)
    mixture = fitted("platt", outputs, targets_NL, np.ones_like(targets_NL))
    outputs["component_logits"] = outputs["component_logits"][..., :3]
    with pytest.raises(CalibrationError, match="was fitted on 15 labels, the outputs have 3"):
        mixture.apply_outputs(outputs)


def test_a_bundle_without_its_mixture_arrays_is_refused() -> None:
    scale = {"scale_L": np.ones(1)}
    with pytest.raises(BundleError, match="mixture calibrator 'platt' lacks array 'shift_L'; found scale_L; write"):
        calibrator_from_arrays("mixture", "platt", scale)
    with pytest.raises(BundleError, match="unknown mixture calibrator 'beta'"):
        calibrator_from_arrays("mixture", "beta", scale)
