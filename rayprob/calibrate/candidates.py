"""Candidates for label sets, each judged by cross-validation. N samples, L labels, C candidates, F folds, T cuts.

A candidate is one calibrator, one policy and one value of its parameter:

    global            one threshold for all labels; the parameter is the threshold, every one that decides differently is tried
    label_OF1 ...     a threshold a label, fitted for that objective; the parameter is the smoothing
    global_precision  the lowest threshold for all that reaches a precision; the parameter is the precision
    label_precision   likewise, a threshold a label
    recall            the threshold that misses a share of at most alpha of the labels present; the parameter is alpha
    best_F1           the set of the largest expected F1; no parameter
    top_k             the k most probable labels; the parameter is k

Whatever is fitted, calibrator, thresholds, the shared threshold that others are drawn to, is fitted on the folds that are not
judged. A candidate's value is that of the counts of all judged folds together. The best of many such values flatters, so a
family (the candidates of a calibrator and policy) is compared by its nested value: for each fold, the parameter that is best
on the other folds.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from rayprob.calibrate.crossfit import CalibrateSpec, calibrated_by_parts, fit_named, folds_of
from rayprob.errors import CalibrationError
from rayprob.metrics.counting import top_k
from rayprob.probability.calibration.candidates import OutputsCalibrator
from rayprob.probability.calibration.holdout import Bools, Floats, Rows
from rayprob.probability.decisions.conformal import fit_risk_control
from rayprob.probability.decisions.cuts import OBJECTIVES, Objective, Sweep, shared_curve
from rayprob.probability.decisions.rules import JOINT_RULES
from rayprob.probability.decisions.thresholds import (
    fit_global_threshold,
    lowest_precise,
    precise_thresholds,
    smoothed_thresholds,
    sweep_of,
)
from rayprob.probability.distributions.distribution import LabelDistribution
from rayprob.runs.predictions import Predictions

Counts = NDArray[np.int64]

GLOBAL, BEST_F1 = "global", "best_F1"
CHUNK_DECISIONS = 2**23  # decisions [candidates, samples, labels] held at a time


@dataclass(frozen=True)
class Fold:
    """One fold under one calibrator: rows to fit thresholds on, with their marginals, and rows to judge."""

    fit: Predictions
    fit_marginals_NL: Floats
    judged: Predictions
    judged_rows: Rows
    calibrator: OutputsCalibrator

    @property
    def distribution(self) -> LabelDistribution:
        """Distributions of the judged rows, by a calibrator that has not seen them."""
        return self.calibrator.as_distribution(self.calibrator.apply_outputs(self.judged.outputs))

    @property
    def fit_checked(self) -> tuple[Floats, Bools, Bools]:
        """What a threshold is fitted on."""
        return self.fit_marginals_NL, self.fit.targets_NL, self.fit.known_NL

    @cached_property
    def sweep(self) -> Sweep:
        """All cuts of it, sorted once for all thresholds."""
        return sweep_of(*self.fit_checked)


@dataclass(frozen=True)
class Judged:
    """How often candidates are right on judged rows: counts [..., C, L], and positives [..., L]."""

    true_positives_CL: Counts
    predicted_CL: Counts
    positives_L: Counts

    def values(self, aim: Objective) -> Floats:
        """Return the objective of every candidate [C]."""
        sums_CD = aim.contribute(self.true_positives_CL, self.predicted_CL, self.positives_L).sum(axis=-2)
        return np.asarray(aim.combine(sums_CD, self.positives_L))


@dataclass(frozen=True)
class Family:
    """The candidates of one calibrator and policy: parameters and cross-validated values [C], and the nested values.

    Where no candidate is left there are no values.
    """

    calibrator: str
    policy: str
    parameters_C: Floats  # nan for a policy without a parameter
    values: Mapping[str, Floats]
    nested: Mapping[str, float]
    left_out: tuple[str, ...] = ()  # why parameters are not among the candidates

    def best(self, objective: str) -> int:
        """Return the place of the candidate with the highest cross-validated value, the first of equals."""
        return int(np.argmax(self.values[objective]))


def fold_up(holdout: Predictions, method: str, spec: CalibrateSpec) -> list[Fold]:
    """Return the folds of a holdout under a calibrator, fitted anew for each."""
    parts = []
    for fit_rows, judged_rows in folds_of(holdout, spec):
        fit = holdout.rows(fit_rows)
        calibrator, behind = fit_named(fit, method, spec)
        parts.append(Fold(fit, behind.marginals(), holdout.rows(judged_rows), judged_rows, calibrator))
    return parts


def global_family(holdout: Predictions, parts: Sequence[Fold]) -> Family:
    """Return the family of every threshold for all labels, on marginals by calibrators that have not seen them."""
    crossed = calibrated_by_parts(holdout, [(part.calibrator, part.judged_rows) for part in parts])
    rows = crossed.marginals(), holdout.targets_NL & holdout.known_NL, holdout.known_NL
    curves = {name: shared_curve(Sweep.of(*rows), aim) for name, aim in OBJECTIVES.items()}
    thresholds_T = next(iter(curves.values()))[0]
    nested = {name: _nested_threshold(rows, parts, name) for name in OBJECTIVES}
    calibrator = parts[0].calibrator.name
    return Family(calibrator, GLOBAL, thresholds_T, {name: values_T for name, (_, values_T) in curves.items()}, nested)


def _nested_threshold(rows: tuple[Floats, Bools, Bools], parts: Sequence[Fold], objective: str) -> float:
    judged = []
    for part in parts:
        others = tuple(np.delete(values_NL, part.judged_rows, axis=0) for values_NL in rows)
        threshold_1L = fit_global_threshold(*others, objective=objective).values_L[None]
        judged.append(judge_thresholds(threshold_1L, rows[0][part.judged_rows], part.judged))
    return float(_together(judged).values(OBJECTIVES[objective])[0])


def fitted_families(parts: Sequence[Fold], policies: Mapping[str, "Policy"]) -> Iterator[Family]:
    """Yield the families of `policies`; candidates that a fold cannot carry are left out, with the reason."""
    marginals = [part.distribution.marginals() for part in parts]
    for name, policy in policies.items():
        judged_F: list[Judged] = []
        faults: dict[int, str] = {}
        for part, marginals_NL in zip(parts, marginals, strict=True):
            sets = policy.decide(part, marginals_NL)
            judged_F.append(sets.judged)
            faults |= sets.faults
        kept = [place for place in range(len(policy.parameters)) if place not in faults]
        yield _family(parts[0].calibrator.name, name, policy, judged_F, kept, tuple(faults.values()))


def _family(
    calibrator: str, name: str, policy: "Policy", judged_F: Sequence[Judged], kept: list[int], left_out: tuple[str, ...]
) -> Family:
    judged_F = [Judged(one.true_positives_CL[kept], one.predicted_CL[kept], one.positives_L) for one in judged_F]
    whole = _together(judged_F)
    parameters_C = np.asarray(policy.parameters, dtype=np.float64)[kept]
    values = {objective: whole.values(aim) for objective, aim in OBJECTIVES.items()}
    nested = {objective: _nested(judged_F, aim) for objective, aim in OBJECTIVES.items()} if kept else {}
    return Family(calibrator, name, parameters_C, values, nested, left_out)


def _together(judged_F: Sequence[Judged]) -> Judged:
    names = ("true_positives_CL", "predicted_CL", "positives_L")
    return Judged(*(np.sum([getattr(one, name) for one in judged_F], axis=0) for name in names))


def _nested(judged_F: Sequence[Judged], aim: Objective) -> float:
    """Return the value when each fold takes the candidate that is best on the others."""
    chosen = []
    for place, one in enumerate(judged_F):
        best = int(np.argmax(_together([*judged_F[:place], *judged_F[place + 1 :]]).values(aim)))
        chosen.append(Judged(one.true_positives_CL[best, None], one.predicted_CL[best, None], one.positives_L))
    return float(_together(chosen).values(aim)[0])


# ---- policies


@dataclass(frozen=True)
class Decided:
    """What the candidates of a policy decide on the judged rows of a fold, and why some (by place) could not."""

    judged: Judged
    faults: dict[int, str]


@dataclass(frozen=True)
class Policy:
    """The parameters to try, and what they decide on the judged rows of a fold, given their marginals."""

    parameters: tuple[float, ...]
    decide: Callable[[Fold, Floats], Decided]


def judge_thresholds(thresholds_CL: Floats, marginals_NL: Floats, truth: Predictions) -> Judged:
    """Return the counts of label sets by thresholds [C, L] or [C, 1]."""
    step = max(1, CHUNK_DECISIONS // marginals_NL.size)
    blocks = [thresholds_CL[start : start + step] for start in range(0, len(thresholds_CL), step)]
    return judge_sets((marginals_NL >= block_CL[:, None] for block_CL in blocks), truth)


def judge_sets(blocks_CNL: Iterator[Bools], truth: Predictions) -> Judged:
    """Return the counts of label sets, which come in blocks of candidates."""
    present_NL = truth.targets_NL & truth.known_NL
    counts = [((sets_CNL & present_NL).sum(axis=1), (sets_CNL & truth.known_NL).sum(axis=1)) for sets_CNL in blocks_CNL]
    true_positives_CL, predicted_CL = (np.concatenate(part) for part in zip(*counts, strict=True))
    return Judged(true_positives_CL, predicted_CL, present_NL.sum(axis=0))


def policies_of(
    names: Sequence[str],
    *,
    objectives: Sequence[str],
    smoothings: tuple[float, ...],
    precisions: tuple[float, ...],
    levels: tuple[float, ...],
    top_k_sizes: tuple[int, ...],
) -> dict[str, Policy]:
    """Return the policies with a fit in each fold, or without a threshold, by name: all of `names` but GLOBAL."""
    known = {
        "label": {f"label_{aim}": Policy(smoothings, partial(_by_label, aim, smoothings)) for aim in objectives},
        "precision": {
            "global_precision": Policy(precisions, partial(_one_by_one, precisions, _global_precise)),
            "label_precision": Policy(precisions, partial(_one_by_one, precisions, _label_precise)),
        },
        "recall": {"recall": Policy(levels, partial(_one_by_one, levels, _risk_controlled))},
        BEST_F1: {BEST_F1: Policy((np.nan,), _best_f1)},
        "top_k": {"top_k": Policy(tuple(map(float, top_k_sizes)), partial(_top_k, top_k_sizes))},
    }
    return {policy: value for name in names if name != GLOBAL for policy, value in known[name].items()}


def _by_label(objective: str, smoothings: Sequence[float], fold: Fold, marginals_NL: Floats) -> Decided:
    thresholds_CL = smoothed_thresholds(fold.sweep, objective=objective, smoothings=smoothings)
    return Decided(judge_thresholds(thresholds_CL, marginals_NL, fold.judged), {})


def _one_by_one(parameters: Sequence[float], fit: Callable[[Fold, float], Floats], fold: Fold, marginals_NL: Floats) -> Decided:
    thresholds_CL = np.ones((len(parameters), marginals_NL.shape[1]))
    faults = {}
    for place, parameter in enumerate(parameters):
        try:
            thresholds_CL[place] = fit(fold, parameter)
        except CalibrationError as error:
            faults[place] = str(error)
    return Decided(judge_thresholds(thresholds_CL, marginals_NL, fold.judged), faults)


def _global_precise(fold: Fold, precision: float) -> Floats:
    return np.asarray(lowest_precise(fold.sweep, precision)[0])


def _label_precise(fold: Fold, precision: float) -> Floats:
    return precise_thresholds(fold.sweep, precision)[0]


def _risk_controlled(fold: Fold, alpha: float) -> Floats:
    return np.asarray(fit_risk_control(*fold.fit_checked, alpha).threshold)


def _best_f1(fold: Fold, marginals_NL: Floats) -> Decided:
    sets_NL = JOINT_RULES[BEST_F1](fold.distribution)
    return Decided(judge_sets(iter([sets_NL[None]]), fold.judged), {})


def _top_k(sizes: Sequence[int], fold: Fold, marginals_NL: Floats) -> Decided:
    scores_NL = fold.distribution.ranking_scores()
    return Decided(judge_sets((top_k(scores_NL, k)[None] for k in sizes), fold.judged), {})
