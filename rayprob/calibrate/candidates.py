"""Candidate rules for label sets, each judged by cross-validation. N samples, L labels, C candidates, F folds, T cuts.

A candidate is one calibrator, one policy and one value of its parameter:

    global            one threshold for all labels; the parameter is the threshold; all that differ in a decision are tried
    label_OF1 ...     one threshold per label, fitted for that objective; the parameter is the smoothing
    global_precision  the lowest global threshold that reaches a precision; the parameter is the precision
    label_precision   the same with one threshold per label
    recall            the threshold that misses a share of at most alpha of the labels present; the parameter is alpha
    best_F1           the set with the largest expected F1; no parameter
    top_k             the k most probable labels; the parameter is k

Calibrator and thresholds are fitted on the folds that are not judged. A candidate's value is computed from the summed counts of
all judged folds. The best of many such values is optimistic, so a family (the candidates of one calibrator and policy) is
compared by its nested value: each fold is judged with the parameter that is best on the other folds. Counts are [..., 3, L]:
true positives, predicted, positives.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from rayprob.arrays import Bools, Floats, Ints, Rows
from rayprob.calibrate.crossfit import CalibrateSpec, calibrated_by_parts, fit_named, folds_of
from rayprob.calibrate.search_spec import ThresholdSearchSpec
from rayprob.errors import CalibrationError
from rayprob.metrics.counting import top_k
from rayprob.probability.calibration.candidates import OutputsCalibrator
from rayprob.probability.decisions.conformal import fit_risk_control
from rayprob.probability.decisions.cuts import OBJECTIVES, Cuts, Objective, shared_curve
from rayprob.probability.decisions.rules import JOINT_RULES
from rayprob.probability.decisions.thresholds import (
    cuts_of,
    fit_global_threshold,
    lowest_precise,
    precise_thresholds,
    smoothed_thresholds,
)
from rayprob.probability.distributions.distribution import LabelDistribution
from rayprob.runs.predictions import Predictions

GLOBAL, BEST_F1 = "global", "best_F1"


@dataclass(frozen=True)
class Fold:
    """One fold under one calibrator: the rows that thresholds are fitted on, the rows to judge, and their predictions."""

    fitted_on: tuple[Floats, Bools, Bools]  # marginals, targets, known
    judged: Predictions
    judged_rows: Rows
    calibrator: OutputsCalibrator

    @cached_property
    def distribution(self) -> LabelDistribution:
        """Distributions of the judged rows, from a calibrator that has not seen them."""
        return self.calibrator.as_distribution(self.calibrator.apply_outputs(self.judged.outputs))

    @cached_property
    def marginals_NL(self) -> Floats:
        """Marginals of the judged rows."""
        return self.distribution.marginals()

    @cached_property
    def cuts(self) -> Cuts:
        """All cuts of the rows to fit on, sorted once."""
        return cuts_of(*self.fitted_on)


# What each candidate of a policy predicts for a fold's judged rows [N, L], or why it cannot be fitted on the other rows.
Policy = Callable[[Fold], Iterator[Bools | CalibrationError]]


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

    def best(self, objective: str) -> int:
        """Return the index of the candidate with the highest cross-validated value, the first if several are equal."""
        return int(np.argmax(self.values[objective]))


def fold_up(holdout: Predictions, method: str, spec: CalibrateSpec) -> list[Fold]:
    """Return the folds of a holdout under a calibrator, which is refitted for each."""
    found = []
    for fit_rows, judged_rows in folds_of(holdout, spec):
        rows = holdout.rows(fit_rows)
        calibrator, behind = fit_named(rows, method, spec)
        fitted_on = behind.marginals(), rows.targets_NL, rows.known_NL
        found.append(Fold(fitted_on, holdout.rows(judged_rows), judged_rows, calibrator))
    return found


def candidates_of(holdout: Predictions, method: str, spec: ThresholdSearchSpec) -> Iterator[RuleCandidates]:
    """Yield the candidates of every policy under a calibrator."""
    folds = fold_up(holdout, method, folding(spec))
    if GLOBAL in spec.policies:
        yield global_candidates(holdout, folds)
    for name, parameters, policy in policies_of(spec, len(holdout.label_space)):
        yield fitted_candidates(name, parameters, policy, folds)


def folding(spec: ThresholdSearchSpec) -> CalibrateSpec:
    """Return the search's folds as a calibration spec."""
    return CalibrateSpec(num_folds=spec.folds, seed=spec.seed)


def global_candidates(holdout: Predictions, folds: Sequence[Fold]) -> RuleCandidates:
    """Return the family of all global thresholds, on marginals from calibrators that have not seen them."""
    crossed = calibrated_by_parts(holdout, [(fold.calibrator, fold.judged_rows) for fold in folds])
    rows = crossed.marginals(), holdout.targets_NL & holdout.known_NL, holdout.known_NL
    cuts = Cuts.of(*rows)
    curves = {name: shared_curve(cuts, aim) for name, aim in OBJECTIVES.items()}
    thresholds_T = next(iter(curves.values()))[0]
    nested = {name: _nested_threshold(rows, folds, name) for name in OBJECTIVES}
    return RuleCandidates(
        folds[0].calibrator.name, GLOBAL, thresholds_T, {name: curve[1] for name, curve in curves.items()}, nested
    )


def _nested_threshold(rows: tuple[Floats, Bools, Bools], folds: Sequence[Fold], objective: str) -> float:
    counts_3L = np.zeros((3, rows[0].shape[1]), dtype=np.int64)
    for fold in folds:
        others = tuple(np.delete(values_NL, fold.judged_rows, axis=0) for values_NL in rows)
        threshold_L = fit_global_threshold(*others, objective=objective).values_L
        counts_3L += counted(rows[0][fold.judged_rows] >= threshold_L, fold.judged)
    return OBJECTIVES[objective].value(*counts_3L)


def fitted_candidates(name: str, parameters: Sequence[float], policy: Policy, folds: Sequence[Fold]) -> RuleCandidates:
    """Return the family of a policy; candidates that cannot be fitted on some fold are left out, with the reason."""
    faults: dict[int, str] = {}
    counts_FC3L = np.zeros((len(folds), len(parameters), 3, len(folds[0].judged.label_space)), dtype=np.int64)
    for counts_C3L, fold in zip(counts_FC3L, folds, strict=True):
        for place, sets in enumerate(policy(fold)):
            if isinstance(sets, CalibrationError):
                faults[place] = str(sets)
            else:
                counts_C3L[place] = counted(sets, fold.judged)
    kept = [place for place in range(len(parameters)) if place not in faults]
    counts_FC3L = counts_FC3L[:, kept]
    values = {objective: _values(counts_FC3L.sum(axis=0), aim) for objective, aim in OBJECTIVES.items()}
    nested = {objective: _nested(counts_FC3L, aim) for objective, aim in OBJECTIVES.items()} if kept else {}
    parameters_C = np.asarray(parameters, dtype=np.float64)[kept]
    return RuleCandidates(folds[0].calibrator.name, name, parameters_C, values, nested, tuple(faults.values()))


def counted(sets_NL: Bools, truth: Predictions) -> Ints:
    """Return the counts of label sets [3, L]: true positives, predicted and positives, of known labels."""
    present_NL = truth.targets_NL & truth.known_NL
    return np.stack([table.sum(axis=0) for table in (sets_NL & present_NL, sets_NL & truth.known_NL, present_NL)])


def _values(counts_C3L: Ints, aim: Objective) -> Floats:
    positives_L = counts_C3L[:1, 2].sum(axis=0)  # the same for all candidates
    sums_CD = aim.contribute(counts_C3L[:, 0], counts_C3L[:, 1], positives_L).sum(axis=-2)
    return np.asarray(aim.combine(sums_CD, positives_L))


def _nested(counts_FC3L: Ints, aim: Objective) -> float:
    """Return the value if each fold uses the candidate that is best on the other folds."""
    whole_C3L = counts_FC3L.sum(axis=0)
    best_F = [int(np.argmax(_values(whole_C3L - counts_C3L, aim))) for counts_C3L in counts_FC3L]
    return aim.value(*counts_FC3L[np.arange(len(best_F)), best_F].sum(axis=0))


# ---- policies


def policies_of(spec: ThresholdSearchSpec, num_labels: int) -> Iterator[tuple[str, Sequence[float], Policy]]:
    """Yield the requested policies except GLOBAL: name, parameters of the candidates, and what they predict."""
    precisions, levels = spec.precisions, spec.conformal_levels
    sizes = [k for k in spec.top_k if k <= num_labels]
    known: dict[str, list[tuple[str, Sequence[float], Policy]]] = {
        "label": [(f"label_{aim}", spec.smoothings, partial(_by_label, aim, spec.smoothings)) for aim in spec.objectives],
        "precision": [
            ("global_precision", precisions, _each(precisions, lambda fold, p: lowest_precise(fold.cuts, p)[0])),
            ("label_precision", precisions, _each(precisions, lambda fold, p: precise_thresholds(fold.cuts, p)[0])),
        ],
        "recall": [("recall", levels, _each(levels, lambda fold, alpha: fit_risk_control(*fold.fitted_on, alpha).threshold))],
        BEST_F1: [(BEST_F1, (np.nan,), lambda fold: iter([JOINT_RULES[BEST_F1](fold.distribution)]))],
        "top_k": [("top_k", sizes, partial(_top_k, sizes))],
    }
    for name in spec.policies:
        yield from known.get(name, ())


def _each(parameters: Iterable[float], fit: Callable[[Fold, float], Floats | float]) -> Policy:
    def predicted(fold: Fold) -> Iterator[Bools | CalibrationError]:
        for parameter in parameters:
            try:
                yield fold.marginals_NL >= fit(fold, parameter)
            except CalibrationError as error:
                yield error

    return predicted


def _by_label(objective: str, smoothings: Sequence[float], fold: Fold) -> Iterator[Bools]:
    for thresholds_L in smoothed_thresholds(fold.cuts, objective=objective, smoothings=smoothings):
        yield fold.marginals_NL >= thresholds_L


def _top_k(sizes: Sequence[int], fold: Fold) -> Iterator[Bools]:
    scores_NL = fold.distribution.ranking_scores()
    return (top_k(scores_NL, k) for k in sizes)
