"""Which label priors are worth cross-validating: those that get a strength on the calibrator that a run has without one."""

from dataclasses import replace

from rayprob.calibrate.crossfit import CalibrateSpec, Priors, fit_calibrator
from rayprob.probability.calibration.prior import fit_prior_calibrator
from rayprob.runs.predictions import Predictions

NO_STRENGTH = 0.05  # below it a prior changes next to nothing


def worth_trying(holdout: Predictions, spec: CalibrateSpec, priors: Priors) -> Priors:
    """Return the priors without those of a strength below NO_STRENGTH; one that was asked for is always kept.

    To fit one strength takes seconds where cross-validating scale, shift and strength together takes minutes: 4,000 holdout
    images of 80 labels and 100 components are 6 s and 4 minutes on one core.
    """
    if priors.is_asked or not priors.mixtures:
        return priors
    without = fit_calibrator(holdout, spec.method, spec).calibrator
    logits_NL = without.apply_outputs(holdout.outputs)["logits"].astype(float)
    rows = logits_NL, holdout.targets_NL & holdout.known_NL, holdout.known_NL
    strengths = {name: fit_prior_calibrator("identity", name, one, *rows).strength for name, one in priors.mixtures.items()}
    kept = {name: one for name, one in priors.mixtures.items() if strengths[name] >= NO_STRENGTH}
    return replace(priors, mixtures=kept, weak={name: found for name, found in strengths.items() if name not in kept})
