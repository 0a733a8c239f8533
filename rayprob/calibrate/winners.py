"""The winners of a threshold search: who they are, how `rayprob calibrate` makes them, and what they are worth on val."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from rayprob.calibrate.candidates import BEST_F1, GLOBAL, Family
from rayprob.calibrate.crossfit import CalibrateSpec, fit_named, rules_behind
from rayprob.calibrate.gains import Gain, gains, set_values
from rayprob.calibrate.search_report import Reference, Winner
from rayprob.calibrate.search_spec import SearchSpec
from rayprob.metrics.counting import top_k
from rayprob.probability.calibration.holdout import Bools, Floats
from rayprob.probability.decisions.rules import RECALL
from rayprob.probability.decisions.thresholds import fit_global_threshold
from rayprob.runs.predictions import Predictions

HALF, OPTIMUM = "0.5", "global optimum"


def references_of(objective: str, holdout: Predictions, optimum: Family, val: Predictions | None) -> Iterator[Reference]:
    """Yield 0.5 and the global optimum."""
    marginals_NL = raw_marginals(holdout)
    fitted = fit_global_threshold(marginals_NL, holdout.targets_NL, holdout.known_NL, objective=objective)
    at_half = set_values(marginals_NL >= 0.5, holdout)[objective]
    for name, threshold, value in ((HALF, 0.5, at_half), (OPTIMUM, float(fitted.values_L[0]), optimum.nested[objective])):
        on_val = set_values(raw_marginals(val) >= threshold, val) if val else None
        yield Reference(name, objective, threshold, value, on_val)


def raw_marginals(predictions: Predictions) -> Floats:
    """Return marginals as the network says them [N, L]."""
    return predictions.distribution().marginals()


def winner_of(
    spec: SearchSpec,
    objective: str,
    holdout: Predictions,
    families: Sequence[Family],
    val: Predictions | None,
    references: Sequence[Reference],
) -> Winner:
    """Return the winner for an objective; of families with equal values, the first: the simpler calibrator and policy."""
    family = max((family for family in families if family.nested), key=lambda family: family.nested[objective])
    parameter = float(family.parameters_C[family.best(objective)])
    changes, rule = as_calibrated(family.policy, parameter, objective)
    chosen = CalibrateSpec(method=family.calibrator, **changes)
    reported: dict[str, float] | None = None
    gained: tuple[Gain, ...] = ()
    if val:
        sets_NL = decide(holdout, chosen, rule, val, size=parameter)
        raw_NL = raw_marginals(val)
        others = {one.name: raw_NL >= one.threshold for one in references if one.objective == objective}
        metrics = tuple(dict.fromkeys(("OF1", "CF1", objective)))
        reported = set_values(sets_NL, val)
        gained = gains(sets_NL, others, val, metrics=metrics, draws=spec.bootstrap, seed=spec.seed)
    return Winner(
        objective=objective,
        calibrator=family.calibrator,
        policy=family.policy,
        parameter=None if np.isnan(parameter) else parameter,
        nested=family.nested[objective],
        cross_validated=float(family.values[objective].max()),
        rule=rule,
        command=command(spec.run, chosen) if rule else None,
        val=reported,
        gains=gained,
    )


def as_calibrated(policy: str, parameter: float, objective: str) -> tuple[dict[str, Any], str | None]:
    """Return the keys of CalibrateSpec that make a candidate, and the name of its rule in a bundle.

    The threshold for all is fitted again, to the same objective on all of holdout: it is the best cut of its family but for
    what fits on parts of holdout differ from the fit on all of it.
    """
    kind, _, aim = policy.partition("_")
    if policy == GLOBAL:
        return {"objectives": _with(objective)}, f"global_{objective}"
    if policy in ("global_precision", "label_precision"):
        return {"precision": parameter}, f"{policy}_{parameter:g}"
    if kind == "label":
        return {"objectives": _with(aim), "smoothing": parameter}, policy
    if policy == "recall":
        return {"alphas": (parameter,)}, f"{RECALL}{parameter:g}"
    return {}, policy if policy == BEST_F1 else None


def _with(objective: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(("OF1", "CF1", objective)))


def decide(holdout: Predictions, spec: CalibrateSpec, rule: str | None, judged: Predictions, *, size: float) -> Bools:
    """Return the label sets of a bundle that is calibrated by `spec`; without a rule, the `size` most probable labels."""
    calibrator, behind = fit_named(holdout, spec.method, spec)
    distribution = calibrator.as_distribution(calibrator.apply_outputs(judged.outputs))
    if rule is None:
        return top_k(distribution.ranking_scores(), int(size))
    return rules_behind(holdout, behind, spec).rules.label_sets(distribution, rule)


def command(folder: str, spec: CalibrateSpec) -> str:
    """Return the command that puts a winner into the run's bundle."""
    default = CalibrateSpec()
    options = ["--method", spec.method]
    options += [part for objective in spec.objectives[2:] for part in ("--objective", objective)]
    options += ["--smoothing", f"{spec.smoothing:g}"] if spec.smoothing is not None else []
    options += ["--precision", f"{spec.precision:g}"] if spec.precision is not None else []
    options += [part for alpha in spec.alphas for part in ("--alpha", f"{alpha:g}")] if spec.alphas != default.alphas else []
    return " ".join(["rayprob calibrate", folder, *options])


def notes_on(spec: SearchSpec, holdout: Predictions, families: Sequence[Family], winners: Sequence[Winner]) -> Iterator[str]:
    """Yield what a person should know of the search: what lost and why, what could not be tried, what proves nothing."""
    for objective in spec.objectives:
        yield from _labels_against_global(objective, holdout, families)
    yield from _left_out(families)
    for winner in winners:
        yield from _unclear(winner)


def _labels_against_global(objective: str, holdout: Predictions, families: Sequence[Family]) -> Iterator[str]:
    judged = [family for family in families if family.nested]
    by_label = [family.nested[objective] for family in judged if family.policy.startswith("label_")]
    for_all = [family.nested[objective] for family in judged if family.policy == GLOBAL]
    if by_label and for_all and max(by_label) <= max(for_all):
        positives_L = (holdout.targets_NL & holdout.known_NL).sum(axis=0)
        yield (
            f"{objective}: a threshold a label does not beat one for all, {max(by_label):.4f} against {max(for_all):.4f} "
            f"cross-validated: {len(holdout):,} images hold {np.median(positives_L):g} positives of the median label, and none "
            f"of {np.count_nonzero(positives_L == 0)} labels; a larger holdout may turn this round"
        )


def _left_out(families: Sequence[Family]) -> Iterator[str]:
    reasons: dict[str, list[str]] = {}
    for family in families:
        reasons.setdefault(family.policy, []).extend(family.left_out)
    for policy, why in reasons.items():
        if why:
            yield f"{policy}: {len(why)} candidate(s) left out, such as: {why[0]}"


def _unclear(winner: Winner) -> Iterator[str]:
    if winner.rule is None:
        remedy = "leave it out of thresholds.policies to get one that it has"
        yield f"{winner.objective}: a bundle has no rule {winner.policy}; {remedy}"
    for gain in winner.gains:
        if gain.metric == winner.objective and gain.low < gain.high and not gain.is_clear:
            yield (
                f"{winner.objective}: its gain over {gain.over} on val, {gain.value:+.4f}, may be chance: the interval over "
                f"images goes from {gain.low:+.4f} to {gain.high:+.4f}"
            )
