"""Calibrators of independent labels, which map logits. N samples, L labels.

    identity      the logits unchanged
    temperature   one scale for all labels (Guo et al., ICML 2017)
    shared_platt  one scale and one shift for all labels: the least that losses which favour positives (ASL, focal) need
    platt         a scale and a shift per label, rare labels drawn towards the others (`platt.py`); vector scaling with a prior
    isotonic      an increasing curve on top of platt, rare labels drawn towards the pooled one (`isotonic.py`)

All but the last keep the ranking within each label, so AP does not change. The first four can be combined with a label prior
(`platt + coco`: `prior.py`), which gives mixtures.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from rayprob.arrays import Bools, Floats
from rayprob.errors import BundleError
from rayprob.probability.calibration import platt, prior
from rayprob.probability.calibration.affine import AffineCalibrator
from rayprob.probability.calibration.candidates import WITH, Candidates, Fit, Outputs, OutputsCalibrator, joint_nll, map_of
from rayprob.probability.calibration.holdout import checked_logits, require_outputs
from rayprob.probability.calibration.isotonic import IsotonicCalibrator, fit_isotonic
from rayprob.probability.distributions.mixture import LabelMixture
from rayprob.registry import choose

# Samples from which a candidate is tried: fewer cannot distinguish candidates. Above that, cross-validation decides, also on
# isotonic, which overfits few samples where a straight line is enough (Niculescu-Mizil and Caruana, ICML 2005) and wins where
# it is not.
MIN_SAMPLES = {"identity": 0, "temperature": 10, "shared_platt": 10, "platt": 50, "isotonic": 50}


class Calibrator(OutputsCalibrator, Protocol):
    """A calibrator of independent labels, which maps logits as well."""

    def apply(self, logits_NL: ArrayLike) -> Floats: ...


FitLogits = Callable[[Floats, Bools, Bools], OutputsCalibrator]


def _of_logits(fit: FitLogits, outputs: Outputs, targets_NL: Bools, known_NL: Bools) -> OutputsCalibrator:
    return fit(outputs["logits"], targets_NL, known_NL)


def _check(outputs: Mapping[str, ArrayLike], targets: ArrayLike, known: ArrayLike) -> tuple[Outputs, Bools, Bools]:
    require_outputs(outputs, "bernoulli", "logits")
    logits_NL, targets_NL, known_NL = checked_logits(outputs["logits"], targets, known)
    return {"logits": logits_NL}, targets_NL, known_NL


def _nll(calibrator: OutputsCalibrator, outputs: Outputs, targets_NL: Bools, known_NL: Bools) -> Floats:
    if calibrator.family != AffineCalibrator.family:  # a label prior makes the labels depend on each other
        return joint_nll(calibrator, outputs, targets_NL, known_NL)
    calibrated_NL = calibrator.apply_outputs(outputs)["logits"]
    return np.asarray((platt.binary_nll(calibrated_NL, targets_NL) * known_NL).sum(axis=1))


def _rebuild(name: str, arrays: Outputs) -> OutputsCalibrator:
    choose(FITS, map_of(name), "calibrator", BundleError)
    if WITH in name:
        return prior.PriorCalibrator.from_arrays(name, arrays)
    return IsotonicCalibrator.from_arrays(name, arrays) if name == "isotonic" else AffineCalibrator.from_arrays(name, arrays)


def _with_priors(priors: Mapping[str, LabelMixture]) -> dict[str, Fit]:
    return {name: partial(_of_logits, fit) for name, fit in prior.fits_with(priors).items()}


def _identity(logits_NL: Floats, targets_NL: Bools, known_NL: Bools) -> Calibrator:
    return AffineCalibrator("identity", np.ones(1), np.zeros(1))


def _temperature(logits_NL: Floats, targets_NL: Bools, known_NL: Bools) -> Calibrator:
    return AffineCalibrator("temperature", np.exp([platt.fit_log_scale(logits_NL, targets_NL, known_NL)]), np.zeros(1))


def _shared_platt(logits_NL: Floats, targets_NL: Bools, known_NL: Bools) -> Calibrator:
    theta_2 = platt.fit_shared(logits_NL, targets_NL, known_NL)
    return AffineCalibrator("shared_platt", np.exp(theta_2[:1]), theta_2[1:])


def _platt(logits_NL: Floats, targets_NL: Bools, known_NL: Bools) -> Calibrator:
    theta_L2, _ = platt.fit_labels(logits_NL, targets_NL, known_NL)
    return AffineCalibrator("platt", np.exp(theta_L2[:, 0]), theta_L2[:, 1])


FITS: dict[str, Callable[[Floats, Bools, Bools], Calibrator]] = {
    "identity": _identity,
    "temperature": _temperature,
    "shared_platt": _shared_platt,
    "platt": _platt,
    "isotonic": fit_isotonic,
}
CANDIDATES: Candidates = Candidates(
    fits={name: partial(_of_logits, fit) for name, fit in FITS.items()},
    check=_check,
    nll=_nll,
    rebuild=_rebuild,
    min_samples=MIN_SAMPLES,
    keep_order=frozenset(("identity", "temperature", "shared_platt")),
    with_priors=_with_priors,
)
