"""Candidate rules for label sets, each judged by cross-validation. N samples, L labels, C candidates, F folds, T cuts.

A candidate is a calibrator, a policy (`ThresholdSearchSpec.policies` lists them) and a value of the policy's parameter.
Calibrator and thresholds are fitted on the folds that are not judged; a candidate's value is computed from the summed counts of
all judged folds. The best of many such values is optimistic, so a family (the candidates of one calibrator and policy) is
compared by its nested value: each fold is judged with the parameter that is best on the other folds.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from rayprob.arrays import Bools, Floats, Ints
from rayprob.calibrate.crossfit import CalibrateSpec, Fold, calibrated_by_parts, calibrators_of
from rayprob.calibrate.search_spec import ThresholdSearchSpec
from rayprob.errors import CalibrationError, MetricError
from rayprob.metrics.counting import count, label_sets, top_k
from rayprob.probability.decisions import thresholds
from rayprob.probability.decisions.conformal import fit_risk_control
from rayprob.probability.decisions.cuts import OBJECTIVES, Cuts, Objective, shared_curve
from rayprob.probability.decisions.rules import JOINT_RULES, RECALL
from rayprob.runs.predictions import Predictions

GLOBAL = "global"

Sets = Callable[[float], Bools]  # from a parameter to label sets; raises CalibrationError or MetricError if it is out of reach


@dataclass(frozen=True)
class Policy:
    """A kind of rule, and what `rayprob calibrate` calls it; {} in `rule` and `options` stands for the parameter.

    `sets(fold)` fits what all parameters share, and decides on the rows to judge.
    """

    name: str
    parameters: Sequence[float]
    sets: Callable[[Fold], Sets]
    rule: str | None  # None if bundles have no such rule
    options: str = ""


@dataclass(frozen=True)
class RuleCandidates:
    """The candidates of one calibrator and policy: parameters and cross-validated values [C], and the nested values.

    There are no values if no candidate is left.
    """

    calibrator: str
    policy: str
    parameters_C: Floats  # nan for a policy without a parameter
    values: Mapping[str, Floats]
    nested: Mapping[str, float]
    left_out: tuple[str, ...] = ()  # why some parameters are not among the candidates


def best_of(families: Iterable[RuleCandidates], objective: str) -> RuleCandidates:
    """Return the family with the highest nested value, the first if several are equal."""
    return max((family for family in families if family.nested), key=lambda family: family.nested[objective])


def global_candidates(holdout: Predictions, folds: Sequence[Fold]) -> RuleCandidates:
    """Return every global threshold as a candidate, on marginals from calibrators that have not seen them."""
    crossed_NL = calibrated_by_parts(holdout, calibrators_of(folds)).marginals()
    present_NL = holdout.targets_NL & holdout.known_NL
    cuts = Cuts.of(crossed_NL, present_NL, holdout.known_NL)
    curves = {name: shared_curve(cuts, objective) for name, objective in OBJECTIVES.items()}
    others = [np.delete(np.arange(len(holdout)), fold.judged_rows) for fold in folds]
    again = [
        replace(fold, fitted_on=(crossed_NL[rows], present_NL[rows], holdout.known_NL[rows]))
        for fold, rows in zip(folds, others, strict=True)
    ]
    return RuleCandidates(
        folds[0].calibrator.name,
        GLOBAL,
        parameters_C=curves["OF1"][0],  # the same for every objective
        values={name: values_T for name, (_, values_T) in curves.items()},
        nested={name: judge(global_policy(name), again).nested[name] for name in OBJECTIVES},
    )


def judge(policy: Policy, folds: Sequence[Fold]) -> RuleCandidates:
    """Return the candidates of a policy; those that cannot be fitted on some fold are left out, with the reason."""
    faults: dict[int, str] = {}
    counts_FC3L = np.zeros((len(folds), len(policy.parameters), 3, len(folds[0].judged.label_space)), dtype=np.int64)
    for counts_C3L, fold in zip(counts_FC3L, folds, strict=True):
        sets = policy.sets(fold)
        for place, parameter in enumerate(policy.parameters):
            try:
                counts_C3L[place] = counts_of(sets(parameter), fold.judged)
            except (CalibrationError, MetricError) as error:
                faults[place] = str(error)
    kept = [place for place in range(len(policy.parameters)) if place not in faults]
    counts_FC3L = counts_FC3L[:, kept]
    return RuleCandidates(
        folds[0].calibrator.name,
        policy.name,
        parameters_C=np.asarray(policy.parameters, dtype=np.float64)[kept],
        values={name: objective.values(counts_FC3L.sum(axis=0)) for name, objective in OBJECTIVES.items()},
        nested={name: _nested(counts_FC3L, objective) for name, objective in OBJECTIVES.items()} if kept else {},
        left_out=tuple(faults.values()),
    )


def counts_of(sets_NL: Bools, truth: Predictions) -> Ints:
    """Return the counts of label sets [3, L]: true positives, predicted and positives, of known labels."""
    found = count(sets_NL, truth.targets_NL, truth.known_NL)
    return np.stack([found.true_positives_L, found.predicted_L, found.positives_L])


def _nested(counts_FC3L: Ints, objective: Objective) -> float:
    """Return the value if each fold uses the candidate that is best on the other folds."""
    best_F = objective.values(counts_FC3L.sum(axis=0) - counts_FC3L).argmax(axis=1)
    return float(objective.values(counts_FC3L[np.arange(len(best_F)), best_F].sum(axis=0)))


def policies_of(spec: ThresholdSearchSpec) -> Iterator[Policy]:
    """Yield the requested policies, except GLOBAL."""
    precise = _above(lambda fold: lambda precision: thresholds.lowest_precise(fold.cuts, precision)[0])
    precise_L = _above(lambda fold: lambda precision: thresholds.precise_thresholds(fold.cuts, precision)[0])
    recalling = _above(lambda fold: lambda alpha: fit_risk_control(*fold.fitted_on, alpha).threshold)
    known = {
        "label": [_label_policy(objective, spec.smoothings) for objective in spec.objectives],
        "precision": [
            Policy("global_precision", spec.precisions, precise, "global_precision_{:g}", " --precision {:g}"),
            Policy("label_precision", spec.precisions, precise_L, "label_precision_{:g}", " --precision {:g}"),
        ],
        "recall": [Policy("recall", spec.conformal_levels, recalling, f"{RECALL}{{:g}}", " --alpha {:g}")],
        "best_F1": [Policy("best_F1", (np.nan,), lambda fold: lambda _: JOINT_RULES["best_F1"](fold.distribution), "best_F1")],
        "top_k": [Policy("top_k", spec.top_k, lambda fold: lambda k: top_k(fold.scores_NL, int(k)), None)],
    }
    for name in spec.policies:
        yield from known.get(name, ())


def global_policy(objective: str) -> Policy:
    """Return the policy of the one threshold that is best for an objective on the rows to fit on."""

    def best(fold: Fold) -> Callable[[float], ArrayLike]:
        values_L = thresholds.fit_global_threshold(*fold.fitted_on, objective=objective).values_L
        return lambda _: values_L

    return Policy(GLOBAL, (np.nan,), _above(best), f"global_{objective}", _asking_for(objective))


def _label_policy(objective: str, smoothings: Sequence[float]) -> Policy:
    sets = _above(lambda fold: thresholds.smoothed_thresholds(fold.cuts, OBJECTIVES[objective]))
    return Policy(f"label_{objective}", smoothings, sets, f"label_{objective}", _asking_for(objective) + " --smoothing {:g}")


def _above(fit: Callable[[Fold], Callable[[float], ArrayLike]]) -> Callable[[Fold], Sets]:
    def sets(fold: Fold) -> Sets:
        thresholds_of = fit(fold)
        return lambda parameter: label_sets(fold.marginals_NL, thresholds_of(parameter))

    return sets


def _asking_for(objective: str) -> str:
    """Return the option for thresholds of an objective, unless `rayprob calibrate` fits them anyway."""
    return "" if objective in CalibrateSpec().objectives else f" --objective {objective}"
