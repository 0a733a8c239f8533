"""One split before and after calibration: how well its marginals are calibrated, and how good each rule's label sets are."""

from collections.abc import Mapping
from dataclasses import dataclass

from rayprob.arrays import Bools, Floats
from rayprob.metrics.counting import CountMetrics, count_metrics
from rayprob.metrics.reliability import Honesty, honesty
from rayprob.probability.decisions.conformal import mean_missed_share
from rayprob.probability.decisions.rules import JOINT_RULES, Rules
from rayprob.probability.decisions.thresholds import fit_global_threshold, fit_label_thresholds
from rayprob.probability.distributions.distribution import LabelDistribution
from rayprob.runs.predictions import Predictions


@dataclass(frozen=True)
class SetNumbers(CountMetrics):
    """The quality of label sets, as fractions of one.

    A guarantee bounds `missed_share`: the share of labels stated present that are missed, over images with one.
    """

    missed_share: float
    labels_per_image: float


@dataclass(frozen=True)
class Comparison:
    """One split before and after calibration. `sets` is by rule; `oracles` use thresholds fitted on this very split."""

    split: str
    num_samples: int
    before: Honesty
    after: Honesty
    before_at_half: SetNumbers
    sets: dict[str, SetNumbers]
    oracles: dict[str, SetNumbers]


def compare(predictions: Predictions, after: LabelDistribution, sets: Mapping[str, Bools]) -> Comparison:
    """Return the numbers of raw predictions, of their calibrated distributions, and of label sets by rule.

    The rules that read the distribution itself are added to `sets`.
    """
    before = predictions.distribution()
    marginals_NL, joint = after.marginals(), {rule: decide(after) for rule, decide in JOINT_RULES.items()}
    return Comparison(
        split=str(predictions.facts.get("split", "unnamed")),
        num_samples=len(predictions),
        before=_honesty(before, predictions),
        after=_honesty(after, predictions),
        before_at_half=set_numbers(Rules().label_sets(before, "0.5"), predictions),
        sets={rule: set_numbers(sets_NL, predictions) for rule, sets_NL in {**sets, **joint}.items()},
        oracles={rule: set_numbers(sets_NL, predictions) for rule, sets_NL in oracle_sets(marginals_NL, predictions).items()},
    )


def _honesty(distribution: LabelDistribution, truth: Predictions) -> Honesty:
    log_prob_N = distribution.log_prob(truth.targets_NL, truth.known_NL)
    return honesty(distribution.marginals(), log_prob_N, truth.targets_NL, truth.known_NL)


def set_numbers(sets_NL: Bools, truth: Predictions) -> SetNumbers:
    """Return precision, recall and F1 of label sets, the missed share of labels stated present, and the mean set size."""
    missed = mean_missed_share(sets_NL, truth.targets_NL, truth.known_NL)
    counts = count_metrics(sets_NL, truth.targets_NL, truth.known_NL).to_dict()
    return SetNumbers(**counts, missed_share=missed, labels_per_image=float(sets_NL.sum(axis=1).mean()))


def oracle_sets(marginals_NL: Floats, truth: Predictions) -> dict[str, Bools]:
    """Return the label sets of the thresholds fitted to these very targets: an upper bound for thresholds fitted elsewhere."""
    rows = marginals_NL, truth.targets_NL, truth.known_NL
    sets = {}
    for objective in ("OF1", "CF1"):
        sets[f"global_{objective}"] = fit_global_threshold(*rows, objective=objective).decide(marginals_NL)
        sets[f"label_{objective}"] = fit_label_thresholds(*rows, objective=objective, smoothing=0).decide(marginals_NL)
    return sets
