"""Calibrators: maps, fitted on the holdout only, that make probabilities match observed frequencies. N samples, L labels.

Each family of distributions has its own: `independent.py` for independent labels, `mixture.py` for mixtures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rayprob.arrays import Bools, Floats, Rows
from rayprob.probability.calibration.candidates import NO_PRIORS, WITH, Fit, Outputs, OutputsCalibrator, map_of
from rayprob.probability.calibration.holdout import checked_logits, folds
from rayprob.probability.calibration.independent import FITS, Calibrator
from rayprob.probability.distributions.mixture import LabelMixture
from rayprob.probability.families import FAMILIES, Family, family_of
from rayprob.registry import choose


@dataclass(frozen=True)
class Choice:
    """The chosen calibrator, why it was chosen, and the cross-validated NLL of every candidate in nats per sample."""

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
    error is that of the paired difference over samples (Breiman et al. 1984, the one-standard-error rule). FITS lists
    candidates from simple to complex; those with one of `priors` come last, and of several priors the one with the lowest NLL
    counts. By default every candidate is tried for which the holdout has MIN_SAMPLES.
    """
    candidates_of = choose(FAMILIES, family, "family of distributions").candidates
    problem = _Problem.of(family, outputs, targets_NL, known_NL, priors)
    for name in candidates or ():
        choose(problem.fits, name, f"calibrator of a {family} distribution")
    names = [name for name in problem.fits if candidates is None or name in candidates]
    tried = [name for name in names if problem.num_samples >= candidates_of.min_samples[map_of(name)]]
    all_rows = np.arange(problem.num_samples)
    if len(tried) < 2:
        kept = (tried or names)[0]
        few = f"{problem.num_samples} samples with known labels are too few to compare it with another"
        reason = f"{kept}: {few if len(problem.fits) > 1 else f'the only calibrator of a {family} distribution'}"
        return Choice(problem.fit(kept, all_rows), {}, reason)
    nll_by_name = {name: problem.held_out_nll(name, num_folds, seed) for name in tried}
    chosen, reason = _simplest_within_one_standard_error(nll_by_name)
    return Choice(problem.fit(chosen, all_rows), {name: float(nll_N.mean()) for name, nll_N in nll_by_name.items()}, reason)


def calibrator_from_arrays(family: str, name: str, arrays: Mapping[str, NDArray[Any]]) -> OutputsCalibrator:
    """Rebuild a stored calibrator. Raises BundleError for a name that this version does not know, or a missing array."""
    return family_of(family).candidates.rebuild(name, arrays)


@dataclass(frozen=True)
class _Problem:
    """The holdout rows with a known label, and the fits to try on them."""

    family: Family
    fits: Mapping[str, Fit]
    outputs: Outputs
    targets_NL: Bools
    known_NL: Bools

    @classmethod
    def of(
        cls,
        family_name: str,
        outputs: Mapping[str, ArrayLike],
        targets: ArrayLike,
        known: ArrayLike,
        priors: Mapping[str, LabelMixture],
    ) -> "_Problem":
        family = family_of(family_name)
        candidates = family.candidates
        checked, targets_NL, known_NL = candidates.check(outputs, targets, known)
        with_priors = candidates.with_priors(priors) if candidates.with_priors else {}
        stated_N = np.flatnonzero(known_NL.any(axis=1))
        kept = family.rows(checked, stated_N)
        return cls(family, {**candidates.fits, **with_priors}, kept, targets_NL[stated_N], known_NL[stated_N])

    @property
    def num_samples(self) -> int:
        return len(self.known_NL)

    def fit(self, name: str, rows: Rows) -> OutputsCalibrator:
        return self.fits[name](self._outputs(rows), self.targets_NL[rows], self.known_NL[rows])

    def held_out_nll(self, name: str, num_folds: int, seed: int) -> Floats:
        nll_N = np.empty(self.num_samples)
        for fit_rows, judge_rows in folds(self.num_samples, num_folds, seed):
            calibrator = self.fit(name, fit_rows)
            truth = self.targets_NL[judge_rows], self.known_NL[judge_rows]
            nll_N[judge_rows] = self.family.candidates.nll(calibrator, self._outputs(judge_rows), *truth)
        return nll_N

    def _outputs(self, rows: Rows) -> Outputs:
        return self.family.rows(self.outputs, rows)


def _simplest_within_one_standard_error(nll_by_name: Mapping[str, Floats]) -> tuple[str, str]:
    best = min(nll_by_name, key=lambda name: float(nll_by_name[name].mean()))

    def is_close(name: str) -> bool:
        worse_N = nll_by_name[name] - nll_by_name[best]
        return bool(worse_N.mean() <= worse_N.std(ddof=1) / np.sqrt(len(worse_N)))

    chosen = _best_prior(next(name for name in nll_by_name if is_close(name)), nll_by_name)
    reason = f"{chosen}: {nll_by_name[chosen].mean():.4f} nats per image, cross-validated"
    return chosen, reason if chosen == best else f"{reason}; {best}, less simple, reaches {nll_by_name[best].mean():.4f}"


def _best_prior(name: str, nll_by_name: Mapping[str, Floats]) -> str:
    """Return the candidate with the same map of logits and the prior with the lowest NLL; priors count as equally simple."""
    if WITH not in name:
        return name
    alike = [other for other in nll_by_name if map_of(other) == map_of(name) and WITH in other]
    return min(alike, key=lambda other: float(nll_by_name[other].mean()))
