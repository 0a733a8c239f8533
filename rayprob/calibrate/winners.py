"""The winners of a threshold search: which candidates, how `rayprob calibrate` fits them, and their values on val."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rayprob.arrays import Bools, Floats
from rayprob.calibrate.candidates import BEST_F1, GLOBAL, RuleCandidates
from rayprob.calibrate.crossfit import NONE, CalibrateSpec, fit_named, rules_behind
from rayprob.calibrate.gains import Gain, gains, set_values
from rayprob.calibrate.search_spec import ThresholdSearchSpec
from rayprob.metrics.counting import top_k
from rayprob.probability.decisions.rules import RECALL
from rayprob.probability.decisions.thresholds import fit_global_threshold
from rayprob.runs.predictions import Predictions
from rayprob.text import counted


@dataclass(frozen=True)
class Winner:
    """The candidate chosen for an objective, how `rayprob calibrate` fits it, and its values on val."""

    objective: str
    calibrator: str
    policy: str
    parameter: float | None
    nested: float  # cross-validated, with the parameter chosen on the other folds
    cross_validated: float  # of the candidate itself: the highest of its family, so optimistic
    rule: str | None  # None if bundles have no such rule
    command: str | None
    val: dict[str, float] | None
    gains: tuple[Gain, ...]


@dataclass(frozen=True)
class Reference:
    """A reference to beat, for one objective: its values on holdout (nested for the optimum) and on val."""

    name: str
    objective: str
    threshold: float
    holdout: float
    val: dict[str, float] | None


def references_of(
    objective: str, holdout: Predictions, optimum: RuleCandidates, val: Predictions | None
) -> Iterator[Reference]:
    """Yield the references: 0.5 and the global optimum."""
    marginals_NL = raw_marginals(holdout)
    fitted = fit_global_threshold(marginals_NL, holdout.targets_NL, holdout.known_NL, objective=objective)
    at_half = set_values(marginals_NL >= 0.5, holdout)[objective]
    for name, threshold, value in (
        ("0.5", 0.5, at_half),
        ("global optimum", float(fitted.values_L[0]), optimum.nested[objective]),
    ):
        on_val = set_values(raw_marginals(val) >= threshold, val) if val else None
        yield Reference(name, objective, threshold, value, on_val)


def raw_marginals(predictions: Predictions) -> Floats:
    """Return the uncalibrated marginals of the network [N, L]."""
    return predictions.distribution().marginals()


def winner_of(
    spec: ThresholdSearchSpec,
    objective: str,
    holdout: Predictions,
    families: Sequence[RuleCandidates],
    val: Predictions | None,
    references: Sequence[Reference],
) -> Winner:
    """Return the winner for an objective; of families with equal values, the first: the simpler calibrator and policy."""
    family = max((family for family in families if family.nested), key=lambda family: family.nested[objective])
    parameter = float(family.parameters_C[family.best(objective)])
    chosen, rule = as_calibrated(family, parameter, objective)
    reported: dict[str, float] | None = None
    gained: tuple[Gain, ...] = ()
    if val:
        sets_NL, raw_NL = decide(holdout, chosen, rule, val, size=parameter), raw_marginals(val)
        others = {one.name: raw_NL >= one.threshold for one in references if one.objective == objective}
        metrics = tuple(dict.fromkeys(("OF1", "CF1", objective)))
        reported = set_values(sets_NL, val)
        gained = gains(sets_NL, others, val, metrics=metrics, draws=spec.bootstrap, seed=spec.seed)
    return Winner(
        objective,
        family.calibrator,
        family.policy,
        None if np.isnan(parameter) else parameter,
        nested=family.nested[objective],
        cross_validated=float(family.values[objective].max()),
        rule=rule,
        command=command(spec.run, chosen) if rule else None,
        val=reported,
        gains=gained,
    )


def as_calibrated(family: RuleCandidates, parameter: float, objective: str) -> tuple[CalibrateSpec, str | None]:
    """Return how `rayprob calibrate` fits a candidate, and the name of its rule in a bundle; None if bundles have no such rule.

    The global threshold is refitted, to the same objective on all of holdout: it is the best cut of its family up to the
    difference between fits on parts of holdout and the fit on all of it.
    """

    def made(rule: str | None, **changes: Any) -> tuple[CalibrateSpec, str | None]:
        aims = tuple(dict.fromkeys(("OF1", "CF1", *changes.pop("objectives", ()))))
        # The search tries no priors.
        return CalibrateSpec(method=family.calibrator, prior=NONE, objectives=aims, **changes), rule

    policy = family.policy
    match policy.split("_", 1):
        case ["global"]:
            return made(f"global_{objective}", objectives=(objective,))
        case ["global" | "label", "precision"]:
            return made(f"{policy}_{parameter:g}", precision=parameter)
        case ["label", aim]:
            return made(policy, objectives=(aim,), smoothing=parameter)
        case ["recall"]:
            return made(f"{RECALL}{parameter:g}", alphas=(parameter,))
    return made(policy if policy == BEST_F1 else None)


def decide(holdout: Predictions, spec: CalibrateSpec, rule: str | None, judged: Predictions, *, size: float) -> Bools:
    """Return the label sets of a bundle calibrated by `spec`; without a rule, the `size` most probable labels."""
    calibrator, behind = fit_named(holdout, spec.method, spec)
    distribution = calibrator.as_distribution(calibrator.apply_outputs(judged.outputs))
    if rule is None:
        return top_k(distribution.ranking_scores(), int(size))
    return rules_behind(holdout, behind, spec).rules.label_sets(distribution, rule)


def command(folder: str, spec: CalibrateSpec) -> str:
    """Return the command that stores a winner in the run's bundle."""
    options = [("--method", spec.method), ("--prior", spec.prior), *(("--objective", aim) for aim in spec.objectives[2:])]
    options += [("--smoothing", f"{spec.smoothing:g}")] if spec.smoothing is not None else []
    options += [("--precision", f"{spec.precision:g}")] if spec.precision is not None else []
    options += [("--alpha", f"{alpha:g}") for alpha in spec.alphas] if spec.alphas != CalibrateSpec().alphas else []
    return " ".join(["rayprob calibrate", folder, *(word for option in options for word in option)])


def notes_on(
    spec: ThresholdSearchSpec, holdout: Predictions, families: Sequence[RuleCandidates], winners: Sequence[Winner]
) -> Iterator[str]:
    """Yield notes on the search for its user: what lost and why, what could not be tried, which gains may be chance."""
    for objective in spec.objectives:
        yield from _labels_against_global(objective, holdout, [family for family in families if family.nested])
    for policy in dict.fromkeys(family.policy for family in families):
        if why := [reason for family in families if family.policy == policy for reason in family.left_out]:
            yield f"{policy}: {counted(len(why), 'candidate')} left out, such as: {why[0]}"
    for winner in winners:
        yield from _unclear(winner)


def _labels_against_global(objective: str, holdout: Predictions, families: Sequence[RuleCandidates]) -> Iterator[str]:
    by_label = max((one.nested[objective] for one in families if one.policy.startswith("label_")), default=None)
    for_all = max((one.nested[objective] for one in families if one.policy == GLOBAL), default=None)
    if by_label is not None and for_all is not None and by_label <= for_all:
        positives_L = (holdout.targets_NL & holdout.known_NL).sum(axis=0)
        yield (
            f"{objective}: one threshold per label does not beat a global one, {by_label:.4f} against {for_all:.4f} "
            f"cross-validated: {len(holdout):,} images have {np.median(positives_L):g} positives of the median label and none "
            f"of {np.count_nonzero(positives_L == 0)} labels; a larger holdout may change this"
        )


def _unclear(winner: Winner) -> Iterator[str]:
    if winner.rule is None:
        remedy = "leave it out of thresholds.policies to search only rules that bundles have"
        yield f"{winner.objective}: bundles have no rule {winner.policy}; {remedy}"
    for gain in winner.gains:
        if gain.metric == winner.objective and gain.low < gain.high and gain.low <= 0 <= gain.high:
            yield (
                f"{winner.objective}: the gain over {gain.over} on val, {gain.value:+.4f}, may be chance: the interval over "
                f"images is [{gain.low:+.4f}, {gain.high:+.4f}]"
            )
