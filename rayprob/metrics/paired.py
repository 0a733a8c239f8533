"""Compares models on the same images: each number, its difference from the first model's, and whether that may be chance.

N images, L labels, D draws of images. Every model sees the same draws, so differences are paired (`bootstrap.py`). There are
two families of differences: the numbers of label sets and probabilities, and the AP of each label. P-values are adjusted
within a family (`multiple.py`), and each family gets half of the level: if all models are equal, at most one comparison in
twenty finds any difference.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from rayprob.arrays import AnyFloats, Bools, Floats
from rayprob.errors import MetricError
from rayprob.metrics.bootstrap import CONFIDENCE, DRAWS, DrawnCounts, Interval, Resampled, Statistic, bootstrap_each
from rayprob.metrics.drawn import average_precision_of, calibration_error_of, count_metric_of, mean_of, mean_over_drawn_labels
from rayprob.metrics.multiple import adjusted_p_values

FAMILIES = 2
LEAST_POSITIVES = 10  # of a label, and as many negatives; with fewer, the draws do not show how much its AP varies
LOWER_IS_BETTER = ("ECE", "NLL")


@dataclass(frozen=True, eq=False)
class ModelTables:
    """A model's predictions: scores for ranking, marginals, log P(label set) in nats, and label sets by name."""

    scores_NL: AnyFloats
    marginals_NL: AnyFloats
    log_prob_N: AnyFloats
    sets: Mapping[str, Bools] = field(default_factory=dict)


@dataclass(frozen=True)
class Difference(Interval):
    """A model's value minus the first one's, with its own 95 % interval; the p-value is adjusted for the whole comparison.

    `p_value` is None if a label has too few positives or negatives.
    """

    p_value: float | None

    @property
    def is_clear(self) -> bool:
        """Whether the difference is more than chance."""
        return self.p_value is not None and self.p_value <= 1 - CONFIDENCE


@dataclass(frozen=True)
class PairedRow:
    """A number by name, or the AP of a label: each model's value, and the differences of the second and later models."""

    name: str
    values: tuple[Interval, ...]
    differences: tuple[Difference, ...]
    positives: int | None = None  # of a label

    @property
    def is_better_lower(self) -> bool:
        """Whether lower values are better; never for a label's AP, whatever the label's name."""
        return self.positives is None and self.name in LOWER_IS_BETTER


@dataclass(frozen=True)
class PairedComparison:
    """All numbers of a comparison; `labels` are in column order, without labels that have no positive."""

    numbers: tuple[PairedRow, ...]
    labels: tuple[PairedRow, ...]
    num_images: int
    draws: int
    seed: int


def compare_models(
    models: Sequence[ModelTables],
    names: Sequence[str],
    targets_NL: Bools,
    known_NL: Bools,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> PairedComparison:
    """Compare models on the same images; `names` are the label names.

    Raises MetricError for fewer than two models, different names of label sets, fewer than one draw, and if no label has a
    known positive.
    """
    _check(models, targets_NL & known_NL)
    statistics = [_statistics(model, targets_NL, known_NL) for model in models]
    number_names = ["mAP", *statistics[0]]
    of_labels = [average_precision_of(model.scores_NL, targets_NL, known_NL) for model in models]
    drawn = _resampled(statistics, of_labels, len(targets_NL), draws=draws, seed=seed)
    positives_L, negatives_L = ((known_NL & (targets_NL == side)).sum(axis=0) for side in (True, False))
    is_tested_L = np.minimum(positives_L, negatives_L) >= LEAST_POSITIVES
    numbers = _rows([values[: len(number_names)] for values in drawn], np.ones(len(number_names), dtype=bool))
    labels = _rows([values[len(number_names) :] for values in drawn], is_tested_L)
    return PairedComparison(
        numbers=tuple(PairedRow(name, *row) for name, row in zip(number_names, numbers, strict=True)),
        labels=tuple(
            PairedRow(name, *row, positives=int(positives))
            for name, row, positives in zip(names, labels, positives_L, strict=True)
            if positives
        ),
        num_images=len(targets_NL),
        draws=draws,
        seed=seed,
    )


def _check(models: Sequence[ModelTables], present_NL: Bools) -> None:
    if len(models) < 2:
        raise MetricError(f"a comparison needs at least two models; got {len(models)}")
    if len({tuple(model.sets) for model in models}) > 1:
        listed = "; ".join(", ".join(model.sets) for model in models)
        raise MetricError(f"all models need label sets with the same names; got {listed}")
    if not present_NL.any():
        raise MetricError("no label has a known positive in these images; a comparison needs at least one")


def _statistics(model: ModelTables, targets_NL: Bools, known_NL: Bools) -> dict[str, Statistic]:
    """Return the numbers other than mAP by name, in the order of the page."""
    found = {
        f"{metric} {name}": count_metric_of(metric, sets_NL, targets_NL, known_NL)
        for name, sets_NL in model.sets.items()
        for metric in ("OF1", "CF1")
    }
    found["ECE"] = calibration_error_of(model.marginals_NL, targets_NL, known_NL)
    found["NLL"] = mean_of(-np.asarray(model.log_prob_N, dtype=np.float64))
    return found


def _resampled(
    statistics: Sequence[Mapping[str, Statistic]], of_labels: Sequence[Statistic], num_images: int, *, draws: int, seed: int
) -> list[list[Resampled]]:
    """Return each model's mAP, other numbers and AP per label, on all images and on each draw."""

    def values(counts_DN: DrawnCounts) -> Floats:
        found = []
        for named, ap_of in zip(statistics, of_labels, strict=True):
            ap_LD = ap_of(counts_DN)
            found += [mean_over_drawn_labels(ap_LD), *(statistic(counts_DN) for statistic in named.values()), *ap_LD]
        return np.stack(found, axis=1)

    drawn = bootstrap_each(values, num_images, draws=draws, seed=seed)
    per_model = len(drawn) // len(statistics)
    return [drawn[start : start + per_model] for start in range(0, len(drawn), per_model)]


def _rows(
    values: Sequence[Sequence[Resampled]], is_tested_M: Bools
) -> list[tuple[tuple[Interval, ...], tuple[Difference, ...]]]:
    """Return the intervals and differences of a family of M numbers, from the draws of each model."""
    differences = [[one - first for one, first in zip(row, values[0], strict=True)] for row in values[1:]]
    tested = [(k, m) for k in range(len(differences)) for m in np.flatnonzero(is_tested_M).tolist()]
    found = [differences[k][m] for k, m in tested]
    drawn_DM = np.stack([one.drawn_D for one in found], axis=1) if found else np.empty((0, 0))
    p_M = adjusted_p_values(np.array([one.value for one in found]), drawn_DM)
    p_values = {place: min(1.0, FAMILIES * float(p)) for place, p in zip(tested, p_M, strict=True)}
    rows = []
    for m in range(len(is_tested_M)):
        intervals = tuple(row[m].interval() for row in values)
        told = ((differences[k][m].interval(), p_values.get((k, m))) for k in range(len(differences)))
        rows.append((intervals, tuple(Difference(each.value, each.low, each.high, p) for each, p in told)))
    return rows
