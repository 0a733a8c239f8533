"""The winners of a threshold search, and their gains over two references on val. N samples, L labels, D draws of images."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from rayprob.arrays import Bools, Floats
from rayprob.calibrate.candidates import RuleCandidates, best_of, counts_of, global_policy, policies_of
from rayprob.calibrate.crossfit import NONE, CalibrateSpec, Fold
from rayprob.calibrate.search_spec import ThresholdSearchSpec
from rayprob.metrics.bootstrap import DrawnCounts, Interval, bootstrap_each
from rayprob.metrics.drawn import label_counts_of
from rayprob.probability.decisions.cuts import OBJECTIVES
from rayprob.probability.decisions.thresholds import fit_global_threshold
from rayprob.runs.predictions import Predictions


@dataclass(frozen=True, kw_only=True)
class Gain(Interval):
    """The difference of a metric, with its 95 % percentile interval when the images are drawn again (paired bootstrap)."""

    metric: str
    over: str


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


def references_of(objective: str, holdout: Predictions, optimum: RuleCandidates, val: Predictions | None) -> list[Reference]:
    """Return the references for an objective: 0.5, and the global optimum."""
    marginals_NL = holdout.distribution().marginals()
    best_L = fit_global_threshold(marginals_NL, holdout.targets_NL, holdout.known_NL, objective=objective).values_L
    at_half = set_values(marginals_NL >= 0.5, holdout)[objective]
    found = (("0.5", 0.5, at_half), ("global optimum", float(best_L[0]), optimum.nested[objective]))
    on_val = {threshold: set_values(raw_sets(val, threshold), val) for _, threshold, _ in found} if val else {}
    return [Reference(name, objective, threshold, value, on_val.get(threshold)) for name, threshold, value in found]


def raw_sets(predictions: Predictions, threshold: float) -> Bools:
    """Return the label sets of one threshold on uncalibrated marginals."""
    return predictions.distribution().marginals() >= threshold


def winner_of(
    spec: ThresholdSearchSpec,
    objective: str,
    families: Sequence[RuleCandidates],
    references: Sequence[Reference],
    holdout: Predictions,
    val: Predictions | None,
) -> Winner:
    """Return the winner for an objective; of families with equal values, the first: the simpler calibrator and policy."""
    family = best_of(families, objective)
    parameter = float(family.parameters_C[np.argmax(family.values[objective])])
    policy = next(one for one in (global_policy(objective), *policies_of(spec)) if one.name == family.policy)
    command = f"rayprob calibrate {spec.run} --method {family.calibrator} --prior {NONE}{policy.options.format(parameter)}"
    values: dict[str, float] | None = None
    gained: tuple[Gain, ...] = ()
    if val:
        # Fitted as the command does: not on the search's folds.
        whole = Fold.of(holdout, val, np.arange(len(val)), family.calibrator, CalibrateSpec())
        sets_NL = policy.sets(whole)(parameter)
        others = {one.name: raw_sets(val, one.threshold) for one in references}
        metrics = tuple(dict.fromkeys(("OF1", "CF1", objective)))
        values = set_values(sets_NL, val)
        gained = gains(sets_NL, others, val, metrics=metrics, draws=spec.bootstrap, seed=spec.seed)
    return Winner(
        objective,
        family.calibrator,
        family.policy,
        None if np.isnan(parameter) else parameter,
        nested=family.nested[objective],
        cross_validated=float(family.values[objective].max()),
        rule=policy.rule and policy.rule.format(parameter),
        command=command if policy.rule else None,
        val=values,
        gains=gained,
    )


def set_values(sets_NL: Bools, truth: Predictions) -> dict[str, float]:
    """Return each objective's value of label sets."""
    counts_3L = counts_of(sets_NL, truth)
    return {name: float(objective.values(counts_3L)) for name, objective in OBJECTIVES.items()}


def gains(
    winner_NL: Bools, others: Mapping[str, Bools], truth: Predictions, *, metrics: Sequence[str], draws: int, seed: int
) -> tuple[Gain, ...]:
    """Return the gain of a rule's sets over those of each other rule, per metric; all rules share the same draws of images."""
    tables = [label_counts_of(sets_NL, truth.targets_NL, truth.known_NL) for sets_NL in (winner_NL, *others.values())]

    def differences(counts_DN: DrawnCounts) -> Floats:
        won_D3L, *lost = (table(counts_DN) for table in tables)
        aims = [OBJECTIVES[metric] for metric in metrics]
        return np.stack([aim.values(won_D3L) - aim.values(lost_D3L) for lost_D3L in lost for aim in aims], axis=1)

    found = bootstrap_each(differences, len(truth), draws=draws, seed=seed)
    names = [(metric, over) for over in others for metric in metrics]
    return tuple(
        Gain(metric=metric, over=over, **asdict(one.interval())) for (metric, over), one in zip(names, found, strict=True)
    )
