"""Notes for users on what calibration did with label priors."""

from collections.abc import Iterator, Mapping

from rayprob.calibrate.crossfit import Priors
from rayprob.calibrate.screen import NO_STRENGTH
from rayprob.probability.calibration.calibrators import Choice
from rayprob.probability.calibration.candidates import WITH
from rayprob.probability.calibration.prior import PriorCalibrator


def prior_notes(choice: Choice, priors: Priors) -> list[str]:
    """Return which prior the calibrator uses, its strength and labels; or which priors were tried and left out, and why."""
    calibrator = choice.calibrator
    if isinstance(calibrator, PriorCalibrator):
        notes = list(_taken(calibrator, choice, priors))
    else:
        notes = list(_left_out(choice.nll_by_name, priors))
    if priors.out_of_reach:
        notes.append(f"the run's own label sets were not tried as a label prior: {priors.out_of_reach}")
    return notes


def _taken(calibrator: PriorCalibrator, choice: Choice, priors: Priors) -> Iterator[str]:
    name, strength = calibrator.prior_name, f"{calibrator.strength:.2f}"
    if calibrator.strength < NO_STRENGTH:
        yield f"the label prior {name} has strength {strength}: it does not help on holdout and changes next to nothing"
    else:
        yield f"the label prior {name} has strength {strength} (0: the classifier alone, 1: the whole prior)"
    if name in priors.matching:
        yield f"the label prior {name} {priors.matching[name]}"
    without = _best_by_prior(choice.nll_by_name).get("")
    if without is not None and not priors.is_asked:
        yield (
            f"auto chose the label prior {name}: {choice.nll_by_name[calibrator.name]:.3f} nats per image of holdout, "
            f"cross-validated, against {without:.3f} without one; --prior none leaves it out"
        )


def _left_out(nll_by_name: Mapping[str, float], priors: Priors) -> Iterator[str]:
    if priors.weak:
        found = ", ".join(f"{name} {strength:.2f}" for name, strength in priors.weak.items())
        yield f"label priors that do not help on holdout, with their strengths: {found}"
    best = _best_by_prior(nll_by_name)
    tried = [f"{name} {best[name]:.3f}" for name in priors.mixtures if name in best]
    if tried:
        yield (
            f"no label prior: {best['']:.3f} nats per image of holdout without one, cross-validated; with one, "
            f"{', '.join(tried)}: not clearly better"
        )


def _best_by_prior(nll_by_name: Mapping[str, float]) -> dict[str, float]:
    """Return the lowest NLL with each prior; "" stands for no prior."""
    best: dict[str, float] = {}
    for name, nll in nll_by_name.items():
        prior = name.partition(WITH)[2]
        best[prior] = min(nll, best.get(prior, nll))
    return best
