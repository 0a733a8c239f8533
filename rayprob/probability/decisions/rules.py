"""Named rules that turn marginals, or a whole distribution, into label sets. N samples, L labels.

    0.5                   labels whose marginal reaches a number, the same for all labels
    global_OF1            labels whose marginal reaches the fitted threshold of that name; one for all labels,
    label_CF1             or one per label
    global_precision_0.9  likewise, for a target precision
    recall@0.1            the set that misses an expected share of at most 0.1 of an image's labels, by risk control
    best_F1               the set with the largest expected F1
    top_set               the most probable set

The last two need no fit: they are computed from the distribution.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from rayprob.arrays import Bools, Floats
from rayprob.errors import CalibrationError, QueryError
from rayprob.probability.decisions.conformal import RiskControl, fit_risk_control
from rayprob.probability.decisions.thresholds import (
    Thresholds,
    fit_global_precision,
    fit_global_threshold,
    fit_label_precision,
    fit_label_thresholds,
)
from rayprob.probability.distributions.distribution import LabelDistribution
from rayprob.registry import unknown

RECALL = "recall@"  # followed by an alpha
NUMBER = re.compile(r"0?\.\d+|[01](\.0*)?")


@dataclass(frozen=True)
class Rules:
    """Thresholds by name, and guarantees by their alpha as text ("0.1")."""

    thresholds: Mapping[str, Thresholds] = field(default_factory=dict)
    guarantees: Mapping[str, RiskControl] = field(default_factory=dict)

    @property
    def fitted(self) -> tuple[str, ...]:
        """The names of the rules that were fitted."""
        return (*self.thresholds, *(f"{RECALL}{alpha}" for alpha in self.guarantees))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all rules; any number from 0 to 1 is a rule as well."""
        return (*self.fitted, *JOINT_RULES)

    def label_sets(self, distribution: LabelDistribution, rule: str) -> Bools:
        """Return the label sets [N, L] that a rule chooses. Raises QueryError for an unknown rule, with the known ones."""
        if rule in JOINT_RULES:
            return JOINT_RULES[rule](distribution)
        return self._decision(rule)(distribution.marginals())

    def require(self, rule: str) -> None:
        """Raise QueryError for an unknown rule, with the known ones."""
        if rule not in JOINT_RULES:
            self._decision(rule)

    def decide(self, marginals_NL: Floats, rule: str) -> Bools:
        """Return the label sets [N, L] of a rule that needs marginals only. Raises QueryError as `label_sets`."""
        return self._decision(rule)(marginals_NL)

    def _decision(self, rule: str) -> Callable[[Floats], Bools]:
        if rule in self.thresholds:
            return self.thresholds[rule].decide
        if rule.startswith(RECALL) and rule.removeprefix(RECALL) in self.guarantees:
            return self.guarantees[rule.removeprefix(RECALL)].decide
        if NUMBER.fullmatch(rule):
            return lambda marginals_NL: np.asarray(marginals_NL >= float(rule))
        calibrate = "" if self.thresholds else "; `rayprob calibrate RUN` fits thresholds and guarantees"
        raise QueryError(f"{unknown(rule, self.names, 'rule for label sets')}, or a threshold from 0 to 1{calibrate}")


@dataclass(frozen=True)
class FittedRules:
    """The fitted rules, and the reason for each that could not be fitted."""

    rules: Rules
    impossible: dict[str, str]


def fit_rules(
    marginals_NL: Floats,
    targets_NL: Bools,
    known_NL: Bools,
    *,
    alphas: Sequence[float],
    precision: float | None = None,
    objectives: Sequence[str] = ("OF1", "CF1"),
    smoothing: float | None = None,
    known_rate: float | None = None,
) -> FittedRules:
    """Fit thresholds for the objectives and an optional target precision, and the guarantees that the samples allow.

    Without `smoothing`, the smoothing of per-label thresholds is cross-validated. Guarantees cover labels stated present; with
    `known_rate`, the rate at which present labels are stated at random, they cover all labels (see `conformal`).
    """
    rows = marginals_NL, targets_NL, known_NL
    thresholds, guarantees, impossible = {}, {}, {}
    for name, fit in (_objective_fits(rows, objectives, smoothing) | _precision_fits(rows, precision)).items():
        try:
            thresholds[name] = fit()
        except CalibrationError as error:
            impossible[name] = str(error)
    for alpha in alphas:
        try:
            guarantees[f"{alpha:g}"] = fit_risk_control(*rows, alpha, known_rate=known_rate)
        except CalibrationError as error:
            impossible[f"{RECALL}{alpha:g}"] = str(error)
    return FittedRules(Rules(thresholds, guarantees), impossible)


Fits = dict[str, Callable[[], Thresholds]]


def _objective_fits(rows: tuple[Floats, Bools, Bools], objectives: Sequence[str], smoothing: float | None) -> Fits:
    fits: Fits = {}
    for objective in objectives:
        fits[f"global_{objective}"] = partial(fit_global_threshold, *rows, objective=objective)
        fits[f"label_{objective}"] = partial(fit_label_thresholds, *rows, objective=objective, smoothing=smoothing)
    return fits


def _precision_fits(rows: tuple[Floats, Bools, Bools], precision: float | None) -> Fits:
    if precision is None:
        return {}
    return {
        f"global_precision_{precision:g}": partial(fit_global_precision, *rows, precision=precision),
        f"label_precision_{precision:g}": partial(fit_label_precision, *rows, precision=precision),
    }


JOINT_RULES: dict[str, Callable[[LabelDistribution], NDArray[np.bool_]]] = {
    "best_F1": lambda distribution: distribution.best_f1_sets().sets_BL,
    "top_set": lambda distribution: np.asarray(distribution.top_sets(1).sets_BTL[:, 0]),
}
