"""Calibration of a mixture of independent label models; the result is a mixture again. N samples, K components, L labels.

A map of the marginals alone would contradict the joint distribution behind conditionals, queries and label sets. So the
parameters are mapped: mixing logits are multiplied by one scale (the temperature of the choice of component), and every
component's logit of label l becomes scale_l * logit + shift_l. With one component this is Platt scaling (or temperature
scaling) of independent labels.

The fit minimises the joint negative log-likelihood of the known labels, a proper score of everything computed from the
mixture; the labels' (log scale, shift) have the prior that `platt.fit_labels` finds on the marginals.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy  # loads scipy.optimize on first use; every training process imports this module
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_expit, log_softmax, logsumexp

from rayprob.arrays import Bools, Floats
from rayprob.errors import BundleError, CalibrationError
from rayprob.probability.calibration import platt
from rayprob.probability.calibration.candidates import Candidates, Fit, Outputs, OutputsCalibrator
from rayprob.probability.calibration.holdout import checked_logits, require_outputs
from rayprob.probability.distributions.distribution import LabelDistribution, MixtureDistribution
from rayprob.registry import choose

CHUNK_VALUES = 250_000  # component logits processed at a time: 2 MB per array, which stays in the cache


@dataclass(frozen=True)
class MixtureCalibrator:
    """Mixing logits times `mixing_scale`; component logits times `scale_L` plus `shift_L` (one value, or one per label)."""

    name: str
    mixing_scale: float
    scale_L: Floats
    shift_L: Floats
    family: ClassVar[str] = "mixture"

    def apply_outputs(self, outputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return calibrated "mixing_logits" [..., K] and "component_logits" [..., K, L] in their input dtype."""
        require_outputs(outputs, "mixture", "mixing_logits", "component_logits")
        mixing_NK, component_NKL = outputs["mixing_logits"], outputs["component_logits"]
        if self.scale_L.size not in (1, component_NKL.shape[-1]):
            raise CalibrationError(
                f"calibrator {self.name!r} was fitted on {self.scale_L.size} labels, the outputs have "
                f"{component_NKL.shape[-1]}; use the calibrator of this model"
            )
        scale_L, shift_L = (value.astype(component_NKL.dtype) for value in (self.scale_L, self.shift_L))
        mixing_scale = np.asarray(self.mixing_scale, dtype=mixing_NK.dtype)
        return {"mixing_logits": mixing_NK * mixing_scale, "component_logits": component_NKL * scale_L + shift_L}

    def as_distribution(self, outputs: Mapping[str, NDArray[Any]]) -> LabelDistribution:
        """Return the distributions that calibrated outputs describe."""
        return MixtureDistribution.of_outputs(outputs)

    def to_arrays(self) -> dict[str, Floats]:
        """Return plain arrays, for safetensors."""
        return {"mixing_scale": np.array([self.mixing_scale]), "scale_L": self.scale_L, "shift_L": self.shift_L}

    @classmethod
    def from_arrays(cls, name: str, arrays: Mapping[str, NDArray[Any]]) -> "MixtureCalibrator":
        """Rebuild a calibrator from its name and `to_arrays`. Raises BundleError if an array is missing."""
        try:
            scale_L, shift_L = (np.asarray(arrays[key], dtype=np.float64) for key in ("scale_L", "shift_L"))
            return cls(name, float(arrays["mixing_scale"][0]), scale_L, shift_L)
        except KeyError as error:
            raise BundleError(
                f"mixture calibrator {name!r} lacks array {error}; found {', '.join(arrays)}; write the bundle again"
            ) from error


def checked_mixture(
    outputs: Mapping[str, ArrayLike], targets: ArrayLike, known: ArrayLike
) -> tuple[Floats, Floats, Bools, Bools]:
    """Return mixing_logits_NK, component_logits_NKL (float64), targets_NL and known_NL. Raises CalibrationError."""
    require_outputs(outputs, "mixture", "mixing_logits", "component_logits")
    mixing_NK = np.asarray(outputs["mixing_logits"], dtype=np.float64)
    component_NKL = np.asarray(outputs["component_logits"], dtype=np.float64)
    if component_NKL.ndim != 3 or mixing_NK.shape != component_NKL.shape[:2] or not np.isfinite(mixing_NK).all():
        raise CalibrationError(
            f"mixing logits {list(mixing_NK.shape)} and component logits {list(component_NKL.shape)} must be finite, of shapes "
            "[samples, components] and [samples, components, labels]"
        )
    _, targets_NL, known_NL = checked_logits(component_NKL.sum(axis=1), targets, known)
    return mixing_NK, component_NKL, targets_NL, known_NL


def marginal_logits(mixing_NK: Floats, component_NKL: Floats) -> Floats:
    """Return the logits [N, L] of the mixture's marginals, exact in their far tails."""
    mixing_NK1 = log_softmax(mixing_NK, axis=-1)[..., None]
    present_NL = logsumexp(mixing_NK1 + log_expit(component_NKL), axis=-2)
    absent_NL = logsumexp(mixing_NK1 + log_expit(-component_NKL), axis=-2)
    return np.asarray(present_NL - absent_NL)


def joint_nll(mixing_NK: Floats, component_NKL: Floats, targets_NL: Bools, known_NL: Bools) -> Floats:
    """Return the negative log-likelihood in nats of each sample's known labels [N]."""
    log_joint_NK, _ = _log_joint(mixing_NK, component_NKL, targets_NL, known_NL)
    return np.asarray(-logsumexp(log_joint_NK, axis=-1))


def _log_joint(mixing_NK: Floats, component_NKL: Floats, targets_NL: Bools, known_NL: Bools) -> tuple[Floats, Floats]:
    signed_NKL = np.where(targets_NL[:, None], component_NKL, -component_NKL)
    log_prob_NKL = np.where(known_NL[:, None], log_expit(signed_NKL), 0.0)
    log_mixing_NK = log_softmax(mixing_NK, axis=-1)
    return log_mixing_NK + log_prob_NKL.sum(axis=-1), log_mixing_NK


def _identity(mixing_NK: Floats, component_NKL: Floats, targets_NL: Bools, known_NL: Bools) -> MixtureCalibrator:
    return MixtureCalibrator("identity", 1.0, np.ones(1), np.zeros(1))


def _temperature(mixing_NK: Floats, component_NKL: Floats, targets_NL: Bools, known_NL: Bools) -> MixtureCalibrator:
    log_scale = platt.fit_log_scale(marginal_logits(mixing_NK, component_NKL), targets_NL, known_NL)

    def energy(parameters_2: Floats) -> tuple[float, Floats]:
        theta_12 = np.array([[parameters_2[1], 0.0]])
        nll, mixing_slope, slope_L2 = _nll_and_slopes(parameters_2[0], theta_12, mixing_NK, component_NKL, targets_NL, known_NL)
        mixing = parameters_2[0]
        return nll + 0.5 * mixing**2, np.array([mixing_slope + mixing, slope_L2[:, 0].sum()])

    mixing, log_scale = _minimise(energy, np.array([0.0, log_scale]))
    return MixtureCalibrator("temperature", float(np.exp(mixing)), np.exp([log_scale]), np.zeros(1))


def _shared_platt(mixing_NK: Floats, component_NKL: Floats, targets_NL: Bools, known_NL: Bools) -> MixtureCalibrator:
    theta_2 = platt.fit_shared(marginal_logits(mixing_NK, component_NKL), targets_NL, known_NL)

    def energy(parameters_3: Floats) -> tuple[float, Floats]:
        mixing, theta_12 = parameters_3[0], parameters_3[None, 1:]
        nll, mixing_slope, slope_L2 = _nll_and_slopes(mixing, theta_12, mixing_NK, component_NKL, targets_NL, known_NL)
        return nll + 0.5 * mixing**2, np.array([mixing_slope + mixing, *slope_L2.sum(axis=0)])

    found_3 = _minimise(energy, np.array([0.0, *theta_2]))
    return MixtureCalibrator("shared_platt", float(np.exp(found_3[0])), np.exp(found_3[1:2]), found_3[2:])


def _platt(mixing_NK: Floats, component_NKL: Floats, targets_NL: Bools, known_NL: Bools) -> MixtureCalibrator:
    theta_L2, prior = platt.fit_labels(marginal_logits(mixing_NK, component_NKL), targets_NL, known_NL)
    root_22 = np.linalg.cholesky(prior.covariance_22)  # whitening by the prior keeps rare labels from slowing the descent

    def theta(parameters: Floats) -> Floats:
        return np.asarray(prior.mean_2 + parameters[1:].reshape(-1, 2) @ root_22.T)

    def energy(parameters: Floats) -> tuple[float, Floats]:
        nll, mixing_slope, slope_L2 = _nll_and_slopes(
            parameters[0], theta(parameters), mixing_NK, component_NKL, targets_NL, known_NL
        )
        return nll + 0.5 * (parameters**2).sum(), np.append(mixing_slope, slope_L2 @ root_22) + parameters

    white_L2 = np.linalg.solve(root_22, (theta_L2 - prior.mean_2).T).T
    found = _minimise(energy, np.append(0.0, white_L2))
    found_L2 = theta(found)
    return MixtureCalibrator("platt", float(np.exp(found[0])), np.exp(found_L2[:, 0]), found_L2[:, 1])


def _minimise(energy: Callable[[Floats], tuple[float, Floats]], start: Floats) -> Floats:
    return np.asarray(
        scipy.optimize.minimize(energy, start, jac=True, method="L-BFGS-B", options={"ftol": 1e-11, "maxiter": 200}).x
    )


def _nll_and_slopes(
    log_mixing_scale: float, theta_L2: Floats, mixing_NK: Floats, component_NKL: Floats, targets_NL: Bools, known_NL: Bools
) -> tuple[float, float, Floats]:
    """Return the joint NLL over all samples and its slopes in log_mixing_scale and theta_L2, by responsibilities [N, K]."""
    nll, mixing_slope, slope_2L = 0.0, 0.0, np.zeros((2, component_NKL.shape[-1]))
    for rows in _chunks(component_NKL.shape):
        scaled_NK, logit_NKL = np.exp(log_mixing_scale) * mixing_NK[rows], np.exp(theta_L2[:, 0]) * component_NKL[rows]
        logit_NKL += theta_L2[:, 1]
        known, targets = known_NL[rows].astype(np.float64), targets_NL[rows].astype(np.float64)
        log_absent_NKL, marginal_NKL = _log_absent_and_marginal(logit_NKL)
        log_mixing_NK = log_softmax(scaled_NK, axis=-1)
        log_joint_NK = log_mixing_NK + np.einsum("nkl,nl->nk", logit_NKL, targets)
        log_joint_NK += np.einsum("nkl,nl->nk", log_absent_NKL, known)
        log_prob_N1 = logsumexp(log_joint_NK, axis=-1, keepdims=True)
        responsibility_NK = np.exp(log_joint_NK - log_prob_N1)
        marginal_NKL -= targets[:, None]
        marginal_NKL *= known[:, None]
        nll -= float(log_prob_N1.sum())
        mixing_slope += float(((np.exp(log_mixing_NK) - responsibility_NK) * scaled_NK).sum())
        slope_2L[1] += np.einsum("nkl,nk->l", marginal_NKL, responsibility_NK)
        marginal_NKL *= logit_NKL
        slope_2L[0] += np.einsum("nkl,nk->l", marginal_NKL, responsibility_NK)
    slope_2L[0] -= theta_L2[:, 1] * slope_2L[1]  # d logit / d log scale is the logit without its shift
    return nll, mixing_slope, slope_2L.T


def _log_absent_and_marginal(logit_NKL: Floats) -> tuple[Floats, Floats]:
    """Return log(1 - p) and p from logits by one exponential that cannot overflow."""
    small_NKL = np.exp(-np.abs(logit_NKL))
    log_absent_NKL = -np.maximum(logit_NKL, 0.0) - np.log1p(small_NKL)
    return log_absent_NKL, np.where(logit_NKL >= 0, 1.0, small_NKL) / (1.0 + small_NKL)


def _chunks(shape: tuple[int, ...]) -> Iterator[slice]:
    height = max(1, CHUNK_VALUES // (shape[1] * shape[2]))
    for start in range(0, shape[0], height):
        yield slice(start, start + height)


MIXTURE_FITS: dict[str, Callable[[Floats, Floats, Bools, Bools], MixtureCalibrator]] = {
    "identity": _identity,
    "temperature": _temperature,
    "shared_platt": _shared_platt,
    "platt": _platt,
}


def _checked_outputs(outputs: Mapping[str, ArrayLike], targets: ArrayLike, known: ArrayLike) -> tuple[Outputs, Bools, Bools]:
    mixing_NK, component_NKL, targets_NL, known_NL = checked_mixture(outputs, targets, known)
    return {"mixing_logits": mixing_NK, "component_logits": component_NKL}, targets_NL, known_NL


def _of_outputs(name: str) -> Fit:
    def fit(outputs: Outputs, targets_NL: Bools, known_NL: Bools) -> OutputsCalibrator:
        return MIXTURE_FITS[name](outputs["mixing_logits"], outputs["component_logits"], targets_NL, known_NL)

    return fit


def _nll(calibrator: OutputsCalibrator, outputs: Outputs, targets_NL: Bools, known_NL: Bools) -> Floats:
    calibrated = calibrator.apply_outputs(outputs)
    return joint_nll(calibrated["mixing_logits"], calibrated["component_logits"], targets_NL, known_NL)


def _rebuild(name: str, arrays: Outputs) -> OutputsCalibrator:
    choose(MIXTURE_FITS, name, "mixture calibrator", BundleError)
    return MixtureCalibrator.from_arrays(name, arrays)


CANDIDATES: Candidates = Candidates(
    fits={name: _of_outputs(name) for name in MIXTURE_FITS},
    check=_checked_outputs,
    nll=_nll,
    rebuild=_rebuild,
    min_samples={"identity": 0, "temperature": 10, "shared_platt": 10, "platt": 50},  # those of independent labels
)
