"""The modules that export the probabilities of a bundle: one for each calibrator of the built-in families."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rayprob.errors import ModelError
from rayprob.probability.calibration.affine import AffineCalibrator
from rayprob.probability.calibration.candidates import OutputsCalibrator
from rayprob.probability.calibration.isotonic import IsotonicCalibrator
from rayprob.probability.calibration.mixture import MixtureCalibrator
from rayprob.probability.calibration.prior import PriorCalibrator
from rayprob.probability.graphs.independent import AffineProbabilities, IsotonicProbabilities
from rayprob.probability.graphs.mixture import MixtureProbabilities
from rayprob.probability.graphs.prior import PriorProbabilities
from rayprob.probability.graphs.probabilities import Probabilities

Modules = Mapping[type[Any], type[Probabilities]]
OF_LOGITS: Modules = {
    AffineCalibrator: AffineProbabilities,
    IsotonicCalibrator: IsotonicProbabilities,
    PriorCalibrator: PriorProbabilities,
}
OF_MIXTURES: Modules = {MixtureCalibrator: MixtureProbabilities}


def independent_labels(calibrator: OutputsCalibrator | None) -> Probabilities:
    """Return the module that maps "logits" to the marginals, or with a label prior to the parameters of the mixture.

    Raises ModelError for a calibrator without one.
    """
    return _module(OF_LOGITS, calibrator or AffineCalibrator("identity", np.ones(1), np.zeros(1)))


def mixtures(calibrator: OutputsCalibrator | None) -> Probabilities:
    """Return the module that maps a mixture's outputs to marginals, mixing weights and component probabilities.

    Raises ModelError for a calibrator without one.
    """
    return _module(OF_MIXTURES, calibrator or MixtureCalibrator("identity", 1.0, np.ones(1), np.zeros(1)))


def _module(modules: Modules, calibrator: OutputsCalibrator) -> Probabilities:
    if type(calibrator) not in modules:
        raise ModelError(
            f"calibrator {calibrator.name!r} has no graph; calibrate with --prior none and one of identity, temperature, "
            "shared_platt, platt"
        )
    return modules[type(calibrator)](calibrator)
