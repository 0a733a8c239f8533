"""Calibration of independent labels together with a label prior. N samples, L labels, K components.

A calibrator computes u_l = scale_l * logit_l + shift_l from the classifier's logits, and applies a label prior with one
strength (`priors/prior.py`). All parameters are fitted jointly, by the exact likelihood of the known labels: a classifier that
has learned which labels co-occur needs a weaker prior, and smaller logits with it. The strength has a normal prior around 0, so
that a holdout too small to determine it leaves the classifier unchanged; the labels' (log scale, shift) have the prior that
`platt.fit_labels` finds.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar

import numpy as np
import scipy  # loads scipy.optimize on first use; every training process imports this module
from numpy.typing import NDArray

from rayprob.arrays import Bools, Floats
from rayprob.errors import BundleError, CalibrationError
from rayprob.probability.calibration import platt
from rayprob.probability.calibration.affine import AffineCalibrator
from rayprob.probability.calibration.candidates import WITH
from rayprob.probability.distributions.mixture import LabelMixture
from rayprob.probability.distributions.tilted import TiltedDistribution
from rayprob.probability.priors.prior import LabelPrior

STRENGTH_SD = 0.5
MOST_STRENGTH = 2.0
START = 0.3
Energy = Callable[[Floats], tuple[float, Floats]]


@dataclass(frozen=True)
class PriorCalibrator:
    """A scale and a shift of logits, followed by a label prior of some strength. Its distributions are mixtures."""

    affine: AffineCalibrator
    strength: float
    prior_name: str
    mixture: LabelMixture  # over the classifier's labels, in their order
    family: ClassVar[str] = "mixture"

    @property
    def name(self) -> str:
        """The names of the map of logits and of the prior, such as `platt + coco`."""
        return f"{self.affine.name}{WITH}{self.prior_name}"

    @cached_property
    def prior(self) -> LabelPrior:
        """The mixture as a prior."""
        return LabelPrior.of(self.mixture)

    def apply_outputs(self, outputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return calibrated outputs "logits" [N, L], in their input dtype, and the prior's "strength" [N, 1] for each image."""
        logits_NL = self.affine.apply_outputs(outputs)["logits"]
        if (num_labels := self.mixture.probabilities_KL.shape[1]) != logits_NL.shape[1]:
            raise CalibrationError(
                f"calibrator {self.name!r} has a prior over {num_labels} labels, but the logits have {logits_NL.shape[1]}; "
                "use the calibrator of this model"
            )
        return {"logits": logits_NL, "strength": np.full((len(logits_NL), 1), self.strength)}

    def as_distribution(self, outputs: Mapping[str, NDArray[Any]]) -> TiltedDistribution:
        """Return the distributions of calibrated outputs under the prior."""
        return TiltedDistribution(self.prior, outputs["logits"], outputs["strength"])

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return plain arrays, for safetensors."""
        return {**self.affine.to_arrays(), "strength": np.array([self.strength]), **self.mixture.to_arrays()}

    @classmethod
    def from_arrays(cls, name: str, arrays: Mapping[str, NDArray[Any]]) -> "PriorCalibrator":
        """Rebuild a calibrator from its name and `to_arrays`. Raises BundleError, and ModelError for an invalid mixture."""
        affine, _, prior_name = name.partition(WITH)
        if "strength" not in arrays:
            raise BundleError(f"calibrator {name!r} lacks array 'strength'; found {', '.join(arrays)}; write the bundle again")
        strength = float(np.ravel(arrays["strength"])[:1].sum())
        if not 0 <= strength <= MOST_STRENGTH:
            raise BundleError(
                f"calibrator {name!r} has a prior of strength {strength:g}, which must be between 0 and {MOST_STRENGTH:g}; "
                "write the bundle again"
            )
        return cls(AffineCalibrator.from_arrays(affine, arrays), strength, prior_name, LabelMixture.from_arrays(arrays))


def fits_with(priors: Mapping[str, LabelMixture]) -> dict[str, Callable[[Floats, Bools, Bools], "PriorCalibrator"]]:
    """Return the fit of each map of logits combined with each prior, by the name of the calibrator."""
    return {
        f"{affine}{WITH}{name}": partial(fit_prior_calibrator, affine, name, mixture)
        for name, mixture in priors.items()
        for affine in FITS
    }


def fit_prior_calibrator(
    affine_name: str, prior_name: str, mixture: LabelMixture, logits_NL: Floats, targets_NL: Bools, known_NL: Bools
) -> PriorCalibrator:
    """Return a calibrator: the map of logits called `affine_name` and the strength, fitted jointly to the known labels."""
    fit = _Fit(LabelPrior.of(mixture), logits_NL, targets_NL, known_NL)
    theta_L2, strength = FITS[affine_name](fit)
    affine = AffineCalibrator(affine_name, np.exp(theta_L2[:, 0]), theta_L2[:, 1])
    return PriorCalibrator(affine, strength, prior_name, mixture)


@dataclass(frozen=True)
class _Fit:
    """The energy of each label's (log scale, shift) and the strength: negative log-likelihood plus the strength's own prior."""

    prior: LabelPrior
    logits_NL: Floats
    targets_NL: Bools
    known_NL: Bools

    def energy(self, theta_L2: Floats, strength: float) -> tuple[float, Floats, float]:
        """Return the energy and its slopes in theta_L2 and the strength; theta may be one row for all labels."""
        scaled_NL = np.exp(theta_L2[:, 0]) * self.logits_NL
        strength_N1 = np.full((len(scaled_NL), 1), strength)
        slopes = self.prior.slopes(scaled_NL + theta_L2[:, 1], strength_N1, self.targets_NL, self.known_NL)
        by_label_L2 = np.stack([(slopes.logits_NL * scaled_NL).sum(axis=0), slopes.logits_NL.sum(axis=0)], axis=1)
        by_theta = by_label_L2 if len(theta_L2) > 1 else by_label_L2.sum(axis=0, keepdims=True)
        shrinks = strength / STRENGTH_SD**2
        return float(slopes.nll_N.sum()) + 0.5 * strength * shrinks, by_theta, float(slopes.strength_N.sum()) + shrinks


def _identity(fit: _Fit) -> tuple[Floats, float]:
    def energy(parameters_1: Floats) -> tuple[float, Floats]:
        value, _, by_strength = fit.energy(np.zeros((1, 2)), parameters_1[0])
        return value, np.array([by_strength])

    return np.zeros((1, 2)), float(_minimised(energy, [START], [])[0])


def _temperature(fit: _Fit) -> tuple[Floats, float]:
    def energy(parameters_2: Floats) -> tuple[float, Floats]:
        value, by_theta_12, by_strength = fit.energy(np.array([[parameters_2[1], 0.0]]), parameters_2[0])
        return value, np.array([by_strength, by_theta_12[0, 0]])

    log_scale = platt.fit_log_scale(fit.logits_NL, fit.targets_NL, fit.known_NL)
    found_2 = _minimised(energy, [START, log_scale], [(-platt.MAX_LOG_SCALE, platt.MAX_LOG_SCALE)])
    return np.array([[found_2[1], 0.0]]), float(found_2[0])


def _shared_platt(fit: _Fit) -> tuple[Floats, float]:
    def energy(parameters_3: Floats) -> tuple[float, Floats]:
        value, by_theta_12, by_strength = fit.energy(parameters_3[None, 1:], parameters_3[0])
        return value, np.array([by_strength, *by_theta_12[0]])

    theta_2 = platt.fit_shared(fit.logits_NL, fit.targets_NL, fit.known_NL)
    limits = [(-platt.MAX_LOG_SCALE, platt.MAX_LOG_SCALE), (-platt.MAX_SHIFT, platt.MAX_SHIFT)]
    found_3 = _minimised(energy, [START, *theta_2], limits)
    return found_3[None, 1:], float(found_3[0])


def _platt(fit: _Fit) -> tuple[Floats, float]:
    theta_L2, labels = platt.fit_labels(fit.logits_NL, fit.targets_NL, fit.known_NL)
    root_22 = np.linalg.cholesky(labels.covariance_22)  # whitening by the prior keeps rare labels from slowing the descent

    def theta(parameters: Floats) -> Floats:
        return np.asarray(labels.mean_2 + parameters[1:].reshape(-1, 2) @ root_22.T)

    def energy(parameters: Floats) -> tuple[float, Floats]:
        value, by_theta_L2, by_strength = fit.energy(theta(parameters), parameters[0])
        white = parameters[1:]
        return value + 0.5 * (white**2).sum(), np.append(by_strength, (by_theta_L2 @ root_22).ravel() + white)

    white_L2 = np.linalg.solve(root_22, (theta_L2 - labels.mean_2).T).T
    found = _minimised(energy, [START, *white_L2.ravel()], [(None, None)] * white_L2.size)
    return theta(found), float(found[0])


def _minimised(energy: Energy, start: list[float], bounds: list[Any]) -> Floats:
    limits = [(0.0, MOST_STRENGTH), *bounds]
    settings = {"ftol": 1e-10, "maxiter": 100}
    found = scipy.optimize.minimize(energy, np.array(start), jac=True, bounds=limits, method="L-BFGS-B", options=settings)
    return np.asarray(found.x)


FITS: dict[str, Callable[[_Fit], tuple[Floats, float]]] = {
    "identity": _identity,
    "temperature": _temperature,
    "shared_platt": _shared_platt,
    "platt": _platt,
}
