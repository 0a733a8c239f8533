"""Calibrators: fitted maps that make marginals honest, fitted on holdout only. N samples, L labels.

    identity      the logits as they are
    temperature   one scale for all labels (Guo et al., ICML 2017)
    shared_platt  one scale and one shift for all labels: what losses that favour positives (ASL, focal) need at least
    platt         a scale and a shift a label, rare labels drawn towards the others (`platt.py`); vector scaling with a prior
    isotonic      a rising curve on top of platt, rare labels drawn towards the pooled one (`isotonic.py`)

All but the last keep the ranking within each label, so AP stays as it is. Mixtures take the first four, applied to their
parameters (`mixture_calibration.py`). Independent labels may have a label prior beside the first four (`platt + coco`:
`prior.py`), which makes mixtures of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rayprob.arrays import Bools, Floats, Rows
from rayprob.errors import BundleError
from rayprob.probability.calibration import platt, prior
from rayprob.probability.calibration.affine import AffineCalibrator
from rayprob.probability.calibration.holdout import checked_logits, folds, require_outputs
from rayprob.probability.calibration.isotonic import IsotonicCalibrator, fit_isotonic
from rayprob.probability.calibration.mixture import MIXTURE_FITS, MixtureCalibrator, checked_mixture, joint_nll
from rayprob.probability.distributions.distribution import LabelDistribution
from rayprob.probability.distributions.mixture import LabelMixture
from rayprob.registry import choose

# What a candidate needs to be tried: few samples cannot tell candidates apart. Above that cross-validation decides, also on
# isotonic, which overfits few samples where a straight line would do (Niculescu-Mizil and Caruana, ICML 2005) and wins where
# none does.
NO_PRIORS: Mapping[str, LabelMixture] = MappingProxyType({})
MIN_SAMPLES = {"identity": 0, "temperature": 10, "shared_platt": 10, "platt": 50, "isotonic": 50}


class OutputsCalibrator(Protocol):
    """What a bundle keeps: maps a head's outputs to calibrated outputs, and these to distributions."""

    @property
    def name(self) -> str: ...
    def apply_outputs(self, outputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]: ...
    def as_distribution(self, outputs: Mapping[str, NDArray[Any]]) -> LabelDistribution: ...
    def to_arrays(self) -> dict[str, NDArray[Any]]: ...


class Calibrator(OutputsCalibrator, Protocol):
    """A calibrator of independent labels, which maps logits as well."""

    def apply(self, logits_NL: ArrayLike) -> Floats: ...


@dataclass(frozen=True)
class Choice:
    """The calibrator chosen and the evidence: cross-validated NLL per sample in nats of every candidate."""

    calibrator: OutputsCalibrator
    nll_by_name: dict[str, float]
    reason: str


def fit_calibrator(name: str, logits_NL: ArrayLike, targets_NL: ArrayLike, known_NL: ArrayLike) -> Calibrator:
    """Return the calibrator `name` of FITS fitted on holdout logits. Raises SpecError for an unknown name."""
    fit = choose(FITS, name, "calibrator")
    return fit(*checked_logits(logits_NL, targets_NL, known_NL))


def choose_calibrator(
    family: str,
    outputs: Mapping[str, ArrayLike],
    targets_NL: ArrayLike,
    known_NL: ArrayLike,
    *,
    candidates: Sequence[str] | None = None,
    priors: Mapping[str, LabelMixture] = NO_PRIORS,
    num_folds: int = 5,
    seed: int = 0,
) -> Choice:
    """Return the simplest candidate whose cross-validated NLL is within one standard error of the best, fitted on all rows.

    The NLL is that of a sample's known labels under the family: "bernoulli" with outputs "logits", or "mixture". The standard
    error is that of the paired difference over samples (Breiman et al. 1984, the one-standard-error rule). Candidates count as
    simple in the order of FITS, those with one of `priors` after all others; of several priors the one of least NLL counts. By
    default all are tried for which the holdout has MIN_SAMPLES.
    """
    problem = choose(FAMILIES, family, "family of distributions")(outputs, targets_NL, known_NL, priors)
    for name in candidates or ():
        choose(problem.fits, name, f"calibrator of a {family} distribution")
    names = [name for name in problem.fits if name in (candidates or problem.fits)]
    tried = [name for name in names if problem.num_samples >= MIN_SAMPLES[map_of(name)]]
    all_rows = np.arange(problem.num_samples)
    if len(tried) < 2:
        kept = (tried or names)[0]
        reason = f"{kept}: {problem.num_samples} samples with known labels leave no other candidate to compare with"
        return Choice(problem.fit(kept, all_rows), {}, reason)
    nll_by_name = {name: problem.held_out_nll(name, num_folds, seed) for name in tried}
    chosen, reason = _simplest_within_one_standard_error(nll_by_name)
    return Choice(problem.fit(chosen, all_rows), {name: float(nll_N.mean()) for name, nll_N in nll_by_name.items()}, reason)


def calibrator_from_arrays(family: str, name: str, arrays: Mapping[str, NDArray[Any]]) -> OutputsCalibrator:
    """Rebuild a stored calibrator. Raises BundleError for a name that this version does not know, or a missing array."""
    if family == "mixture":
        choose(MIXTURE_FITS, name, "mixture calibrator", BundleError)
        return MixtureCalibrator.from_arrays(name, arrays)
    choose(FITS, map_of(name), "calibrator", BundleError)
    if prior.WITH in name:
        return prior.PriorCalibrator.from_arrays(name, arrays)
    return IsotonicCalibrator.from_arrays(name, arrays) if name == "isotonic" else AffineCalibrator.from_arrays(name, arrays)


def map_of(name: str) -> str:
    """Return the map of logits in a calibrator's name: `platt` of `platt + coco`."""
    return name.partition(prior.WITH)[0]


@dataclass(frozen=True)
class _Problem:
    """One family's fits and scores over the rows of a holdout that state a label."""

    num_samples: int
    fits: Mapping[str, Callable[..., OutputsCalibrator]]
    fit: Callable[[str, Rows], OutputsCalibrator]
    nll: Callable[[OutputsCalibrator, Rows], Floats]

    def held_out_nll(self, name: str, num_folds: int, seed: int) -> Floats:
        nll_N = np.empty(self.num_samples)
        for fit_rows, judge_rows in folds(self.num_samples, num_folds, seed):
            nll_N[judge_rows] = self.nll(self.fit(name, fit_rows), judge_rows)
        return nll_N


def _bernoulli_problem(
    outputs: Mapping[str, ArrayLike], targets: ArrayLike, known: ArrayLike, priors: Mapping[str, LabelMixture]
) -> _Problem:
    require_outputs(outputs, "bernoulli", "logits")
    checked = checked_logits(outputs["logits"], targets, known)
    stated_N = checked[2].any(axis=1)
    logits_NL, targets_NL, known_NL = checked[0][stated_N], checked[1][stated_N], checked[2][stated_N]

    def fit(name: str, rows: Rows) -> OutputsCalibrator:
        return fits[name](logits_NL[rows], targets_NL[rows], known_NL[rows])

    def nll(calibrator: OutputsCalibrator, rows: Rows) -> Floats:
        calibrated = calibrator.apply_outputs({"logits": logits_NL[rows]})
        if prior.WITH in calibrator.name:
            return -calibrator.as_distribution(calibrated).log_prob(targets_NL[rows], known_NL[rows])
        calibrated_NL = calibrated["logits"]
        return np.asarray((platt.binary_nll(calibrated_NL, targets_NL[rows]) * known_NL[rows]).sum(axis=1))

    fits: dict[str, Callable[[Floats, Bools, Bools], OutputsCalibrator]] = {**FITS, **prior.fits_with(priors)}
    return _Problem(len(logits_NL), fits, fit, nll)


def _mixture_problem(
    outputs: Mapping[str, ArrayLike], targets: ArrayLike, known: ArrayLike, priors: Mapping[str, LabelMixture]
) -> _Problem:
    checked = checked_mixture(outputs, targets, known)
    stated_N = checked[3].any(axis=1)
    mixing_NK, component_NKL = checked[0][stated_N], checked[1][stated_N]
    targets_NL, known_NL = checked[2][stated_N], checked[3][stated_N]

    def fit(name: str, rows: Rows) -> OutputsCalibrator:
        return MIXTURE_FITS[name](mixing_NK[rows], component_NKL[rows], targets_NL[rows], known_NL[rows])

    def nll(calibrator: OutputsCalibrator, rows: Rows) -> Floats:
        raw = {"mixing_logits": mixing_NK[rows], "component_logits": component_NKL[rows]}
        calibrated = calibrator.apply_outputs(raw)
        return joint_nll(calibrated["mixing_logits"], calibrated["component_logits"], targets_NL[rows], known_NL[rows])

    return _Problem(len(mixing_NK), MIXTURE_FITS, fit, nll)


def _simplest_within_one_standard_error(nll_by_name: Mapping[str, Floats]) -> tuple[str, str]:
    best = min(nll_by_name, key=lambda name: float(nll_by_name[name].mean()))

    def is_close(name: str) -> bool:
        worse_N = nll_by_name[name] - nll_by_name[best]
        return bool(worse_N.mean() <= worse_N.std(ddof=1) / np.sqrt(len(worse_N)))

    chosen = _best_prior(next(name for name in nll_by_name if is_close(name)), nll_by_name)
    found, least = nll_by_name[chosen].mean(), nll_by_name[best].mean()
    return chosen, f"{chosen}: cross-validated NLL {found:.4f} nats a sample; the best, {best}, has {least:.4f}"


def _best_prior(name: str, nll_by_name: Mapping[str, Floats]) -> str:
    """Return the candidate with the same map of logits and the prior of least NLL; no prior is simpler than another."""
    if prior.WITH not in name:
        return name
    alike = [other for other in nll_by_name if map_of(other) == map_of(name) and prior.WITH in other]
    return min(alike, key=lambda other: float(nll_by_name[other].mean()))


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
FAMILIES: dict[str, Callable[[Mapping[str, ArrayLike], ArrayLike, ArrayLike, Mapping[str, LabelMixture]], _Problem]] = {
    "bernoulli": _bernoulli_problem,
    "mixture": _mixture_problem,
}
