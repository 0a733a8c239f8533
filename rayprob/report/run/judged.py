"""Predictions as the page judges them: distributions before and after calibration, and label sets. N samples, L labels."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayprob.arrays import Bools, Floats
from rayprob.metrics.counting import best_single_threshold
from rayprob.probability.decisions.rules import Rules
from rayprob.probability.distributions.distribution import LabelDistribution
from rayprob.probability.families import Family, family_of
from rayprob.report.run.files import RunFiles
from rayprob.runs.predictions import Predictions


@dataclass(frozen=True, eq=False)
class Judged:
    """One split: the annotations, the predictions, and how label sets are chosen from them."""

    predictions: Predictions
    before: LabelDistribution
    after: LabelDistribution | None  # None if no calibrator changes anything
    rules: Rules
    tuned_threshold: float  # one for all labels, on `best`
    tuned_on: str  # the split it was chosen on

    @classmethod
    def of(cls, files: RunFiles) -> "Judged":
        """Judge the predictions of a run's folder; the threshold comes from holdout if it has predictions."""
        predictions, bundle = files.predictions, files.bundle
        is_calibrated = bundle is not None and bundle.calibrator is not None and bundle.calibrator.name != "identity"
        after = bundle.distribution(predictions.outputs) if bundle and is_calibrated else None
        rules = Rules(bundle.thresholds, bundle.guarantees) if bundle else Rules()
        source = files.holdout if files.holdout is not None else predictions
        tuned_on = files.chosen_on if files.holdout is not None else files.split
        if bundle and "global_OF1" in bundle.thresholds:
            threshold = float(bundle.thresholds["global_OF1"].values_L[0])
        else:
            threshold = _best_threshold(bundle.distribution(source.outputs) if after and bundle else None, source)
        return cls(predictions, predictions.distribution(), after, rules, threshold, tuned_on)

    @property
    def family(self) -> Family:
        """The kind of distribution that the head makes."""
        return family_of(self.predictions.family)

    @property
    def is_joint(self) -> bool:
        """Whether labels may depend on each other in the distributions that the page uses: a label prior makes them."""
        return family_of(self.best.family).is_joint

    @property
    def best(self) -> LabelDistribution:
        """The distributions the page uses: calibrated if there is a calibrator."""
        return self.before if self.after is None else self.after

    @property
    def names(self) -> tuple[str, ...]:
        """Label names in column order."""
        return self.predictions.label_space.names

    @property
    def targets_NL(self) -> Bools:
        """Which labels are present."""
        return self.predictions.targets_NL

    @property
    def known_NL(self) -> Bools:
        """Which labels are annotated, as present or absent."""
        return self.predictions.known_NL

    @cached_property
    def raw_marginals_NL(self) -> Floats:
        """Marginals before calibration."""
        return self.before.marginals()

    @cached_property
    def marginals_NL(self) -> Floats:
        """Marginals of `best`."""
        return self.raw_marginals_NL if self.after is None else self.after.marginals()

    @cached_property
    def scores_NL(self) -> NDArray[Any]:
        """Scores that rank as the uncalibrated marginals do, and never saturate."""
        return self.before.ranking_scores()

    @cached_property
    def best_scores_NL(self) -> NDArray[Any]:
        """Scores that rank as `marginals_NL` do, and never saturate; log-odds."""
        return self.scores_NL if self.after is None else self.after.ranking_scores()

    @property
    def rule(self) -> str:
        """The rule by which the page shows label sets."""
        return "label_OF1" if "label_OF1" in self.rules.thresholds else f"{self.tuned_threshold:.3f}"

    @cached_property
    def sets_NL(self) -> Bools:
        """The label sets that the page shows."""
        if "label_OF1" in self.rules.thresholds:
            return self.rules.decide(self.marginals_NL, "label_OF1")
        return np.asarray(self.marginals_NL >= self.tuned_threshold)

    @cached_property
    def nll_N(self) -> Floats:
        """Negative log-likelihood in nats of each sample's known labels."""
        return np.asarray(-self.best.log_prob(self.targets_NL, self.known_NL))

    @cached_property
    def positives_L(self) -> NDArray[np.int64]:
        """Known positives of each label in this split."""
        return np.asarray((self.targets_NL & self.known_NL).sum(axis=0), dtype=np.int64)

    @cached_property
    def by_frequency(self) -> NDArray[np.int64]:
        """Label columns, most frequent first."""
        return np.argsort(-self.positives_L, kind="stable")


def _best_threshold(distribution: LabelDistribution | None, source: Predictions) -> float:
    distribution = source.distribution() if distribution is None else distribution
    if not (source.targets_NL & source.known_NL).any():
        return 0.5
    best = best_single_threshold(distribution.marginals(), source.targets_NL, source.known_NL, objective="OF1")
    return best.threshold
