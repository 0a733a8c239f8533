"""Thresholds on marginals: one for all labels or one per label, fitted on the holdout only. N samples, L labels.

A label is present where its marginal >= its threshold. Objectives are OF1, CF1 (harmonic mean of CP and CR) and mean_F1 (over
labels with positives), or a target precision. Per-label thresholds overfit rare labels, so each is drawn towards the threshold
for all on the logit scale, with weight smoothing / (positives + smoothing); a label without positives takes the threshold for
all. The smoothing is cross-validated, except for CF1: its best thresholds are extreme, for precision in some labels and for
recall in others, and any compromise was worse on held-out samples in simulations of 50 to 4,100 samples.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, logit

from rayprob.arrays import Bools, Floats, Ints, Rows
from rayprob.errors import BundleError, CalibrationError, SpecError
from rayprob.probability.calibration.holdout import checked_marginals, folds
from rayprob.probability.decisions.cuts import NEVER, OBJECTIVES, Cuts, Objective, best_shared_threshold
from rayprob.registry import choose

log = logging.getLogger(__name__)

Checked = tuple[Floats, Bools, Bools]  # marginals_NL, targets_NL, known_NL

MIN_POSITIVES = 5  # for a threshold of its own; a label with fewer takes the threshold for all
PRECISION_SMOOTHING = 10.0
FARTHEST = 1e-9  # thresholds are clipped to this distance from 0 and 1 before blending


@dataclass(frozen=True)
class Thresholds:
    """One threshold per label, how they were chosen, and the objective's value on the rows they were chosen on."""

    values_L: Floats
    objective: str
    smoothing: float  # inf for one threshold for all labels
    value: float
    num_samples: int
    notes: tuple[str, ...] = ()

    def decide(self, marginals_NL: ArrayLike) -> Bools:
        """Return which labels are present [N, L]: marginal >= threshold, rounded to the marginals' type."""
        marginals_NL = np.asarray(marginals_NL)
        if marginals_NL.shape[-1] != len(self.values_L):
            raise CalibrationError(
                f"thresholds of {len(self.values_L)} labels, marginals of {marginals_NL.shape[-1]}; use those of this model"
            )
        return np.asarray(marginals_NL >= self.values_L.astype(marginals_NL.dtype))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        smoothing = None if np.isinf(self.smoothing) else self.smoothing
        facts = {"objective": self.objective, "smoothing": smoothing, "value": self.value, "num_samples": self.num_samples}
        return {"values": self.values_L.tolist(), **facts, "notes": list(self.notes)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Thresholds":
        """Rebuild thresholds from `to_dict`. Raises BundleError if a part is missing."""
        try:
            smoothing = np.inf if value["smoothing"] is None else float(value["smoothing"])
            values_L = np.asarray(value["values"], dtype=np.float64)
            facts = str(value["objective"]), smoothing, float(value["value"]), int(value["num_samples"])
            return cls(values_L, *facts, tuple(value["notes"]))
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"stored thresholds cannot be read ({error!r}); write the bundle again") from error


def fit_global_threshold(
    marginals_NL: ArrayLike, targets_NL: ArrayLike, known_NL: ArrayLike, *, objective: str = "OF1"
) -> Thresholds:
    """Return the threshold for all labels that maximises the objective on these rows, exactly; the highest if several tie."""
    aim = choose(OBJECTIVES, objective, "threshold objective")
    cuts = _cuts(*checked_marginals(marginals_NL, targets_NL, known_NL))
    threshold, value = best_shared_threshold(cuts, aim)
    return Thresholds(np.full(len(cuts.positives_L), threshold), objective, np.inf, value, len(cuts.scores_NL))


def fit_label_thresholds(
    marginals_NL: ArrayLike,
    targets_NL: ArrayLike,
    known_NL: ArrayLike,
    *,
    objective: str = "OF1",
    smoothing: float | None = None,
    num_folds: int = 5,
    seed: int = 0,
) -> Thresholds:
    """Return one threshold per label.

    With smoothing 0 and a positive for every label, OF1 and mean_F1 are the maxima over all thresholds, and CF1 is the best
    that `cuts` finds. By default the smoothing is the one of `Objective.smoothings` with the highest cross-validated value, the
    largest if several tie.
    """
    aim = choose(OBJECTIVES, objective, "threshold objective")
    rows = checked_marginals(marginals_NL, targets_NL, known_NL)
    cuts = _cuts(*rows)
    if smoothing is None:
        smoothing = _cross_validated_smoothing(aim, rows, min(num_folds, len(rows[0])), seed)
    values_L = smoothed_thresholds(cuts, aim)(smoothing)
    value = aim.value(*_counts(values_L, *rows))
    return Thresholds(values_L, objective, smoothing, value, len(rows[0]))


def smoothed_thresholds(cuts: Cuts, aim: Objective) -> Callable[[float], Floats]:
    """Return the thresholds of `fit_label_thresholds` [L] as a function of the smoothing; all smoothings share one fit."""
    shared, _ = best_shared_threshold(cuts, aim)
    own_L = cuts.thresholds_at(aim.best_cuts(cuts))
    return lambda smoothing: _blend(own_L, shared, _own_weight(cuts.positives_L, smoothing))


def fit_global_precision(
    marginals_NL: ArrayLike, targets_NL: ArrayLike, known_NL: ArrayLike, *, precision: float
) -> Thresholds:
    """Return the lowest threshold for all labels whose overall precision reaches `precision` on these rows.

    Raises CalibrationError, with the highest precision found, if no threshold reaches it.
    """
    cuts = cuts_of(marginals_NL, targets_NL, known_NL)
    threshold, value = lowest_precise(cuts, precision)
    values_L = np.full(len(cuts.positives_L), threshold)
    return Thresholds(values_L, f"precision>={precision:g}", np.inf, value, len(cuts.scores_NL))


def fit_label_precision(marginals_NL: ArrayLike, targets_NL: ArrayLike, known_NL: ArrayLike, *, precision: float) -> Thresholds:
    """Return for each label the lowest threshold whose precision reaches `precision`, drawn towards the one for all.

    A label with fewer than MIN_POSITIVES positives takes the threshold for all; any other label that cannot reach the precision
    is never predicted, which `notes` and the log report. `value` is the overall precision. Raises CalibrationError if no
    threshold for all labels reaches the precision.
    """
    rows = checked_marginals(marginals_NL, targets_NL, known_NL)
    cuts = _cuts(*rows)
    values_L, is_out_of_reach_L = precise_thresholds(cuts, precision)
    true_positives_L, predicted_L, _ = _counts(values_L, *rows)
    value = float(true_positives_L.sum() / max(1, predicted_L.sum()))
    highest_L = np.where(cuts.is_cut_CL, cuts.precision_CL, 0.0).max(axis=0)
    notes = _out_of_reach_notes(is_out_of_reach_L, precision, highest_L)
    return Thresholds(values_L, f"precision>={precision:g}", PRECISION_SMOOTHING, value, len(rows[0]), notes)


def precise_thresholds(cuts: Cuts, precision: float) -> tuple[Floats, Bools]:
    """Return the thresholds of `fit_label_precision`, and the labels that are never predicted because they cannot reach it."""
    shared, _ = lowest_precise(cuts, precision)
    is_precise_CL = cuts.is_cut_CL & (cuts.precision_CL >= precision)
    cuts_L = np.where(is_precise_CL.any(axis=0), len(is_precise_CL) - 1 - np.argmax(is_precise_CL[::-1], axis=0), 0)
    weight_L = cuts.positives_L / (cuts.positives_L + PRECISION_SMOOTHING) * (cuts.positives_L >= MIN_POSITIVES)
    is_out_of_reach_L = (cuts_L == 0) & (weight_L > 0)
    blended_L = _blend(np.where(weight_L > 0, cuts.thresholds_at(cuts_L), shared), shared, weight_L)
    return np.where(is_out_of_reach_L, NEVER, blended_L), is_out_of_reach_L


def cuts_of(marginals_NL: ArrayLike, targets_NL: ArrayLike, known_NL: ArrayLike) -> Cuts:
    """Return the cuts of the rows to fit thresholds on. Raises CalibrationError like the fits."""
    return _cuts(*checked_marginals(marginals_NL, targets_NL, known_NL))


def _cuts(marginals_NL: Floats, targets_NL: Bools, known_NL: Bools) -> Cuts:
    if not targets_NL.any():
        raise CalibrationError(
            f"{len(targets_NL)} samples without one positive; thresholds need positives, so fit on more samples"
        )
    return Cuts.of(marginals_NL, targets_NL, known_NL)


def _cross_validated_smoothing(aim: Objective, rows: Checked, num_folds: int, seed: int) -> float:
    if len(aim.smoothings) == 1 or num_folds < 2:
        return aim.smoothings[-1]
    counts_S3L = np.zeros((len(aim.smoothings), 3, rows[0].shape[1]), dtype=np.int64)
    for fit_rows, judge_rows in folds(len(rows[0]), num_folds, seed):
        thresholds = smoothed_thresholds(Cuts.of(*_at(rows, fit_rows)), aim)
        for place, smoothing in enumerate(aim.smoothings):
            counts_S3L[place] += _counts(thresholds(smoothing), *_at(rows, judge_rows))
    scores = {smoothing: aim.value(*counts_3L) for smoothing, counts_3L in zip(aim.smoothings, counts_S3L, strict=True)}
    best = max(scores, key=lambda smoothing: (scores[smoothing], smoothing))
    found = ", ".join(f"{smoothing:g}: {score:.4f}" for smoothing, score in scores.items())
    log.info("thresholds: smoothing %g of cross-validated {%s}", best, found)
    return best


def _at(rows: Checked, index: Rows) -> Checked:
    return rows[0][index], rows[1][index], rows[2][index]


def _own_weight(positives_L: Ints, smoothing: float) -> Floats:
    if np.isinf(smoothing):
        return np.zeros(len(positives_L))
    return np.where(positives_L > 0, positives_L / np.maximum(positives_L + smoothing, 1), 0.0)


def _blend(own_L: Floats, shared: float, own_weight_L: Floats) -> Floats:
    own_logit_L, shared_logit = (logit(np.clip(value, FARTHEST, 1.0 - FARTHEST)) for value in (own_L, shared))
    blended_L = expit(own_weight_L * own_logit_L + (1.0 - own_weight_L) * shared_logit)
    return np.select([own_weight_L == 1.0, own_weight_L == 0.0], [own_L, np.full_like(own_L, shared)], blended_L)


def _counts(values_L: Floats, marginals_NL: Floats, targets_NL: Bools, known_NL: Bools) -> tuple[Ints, Ints, Ints]:
    predicted_NL = (marginals_NL >= values_L) & known_NL
    per_label = ((predicted_NL & targets_NL).sum(axis=0), predicted_NL.sum(axis=0), targets_NL.sum(axis=0))
    return per_label[0], per_label[1], per_label[2]


def _checked_precision(precision: float) -> None:
    if not 0 < precision <= 1:
        raise SpecError(f"precision {precision:g} is outside (0, 1]; write 90 % as 0.9")


def lowest_precise(cuts: Cuts, precision: float) -> tuple[float, float]:
    """Return the lowest threshold for all labels that reaches a precision, and its precision. Raises like the fits."""
    _checked_precision(precision)
    thresholds_T, true_positives_T, predicted_T = cuts.pooled
    precision_T = true_positives_T / predicted_T
    reached_R = np.flatnonzero(precision_T >= precision)
    if len(reached_R):
        return float(thresholds_T[reached_R[-1]]), float(precision_T[reached_R[-1]])
    best = int(np.argmax(precision_T))
    raise CalibrationError(
        f"no threshold reaches precision {precision:g} on these {len(cuts.scores_NL)} samples; the highest is "
        f"{precision_T[best]:.4f} at threshold {thresholds_T[best]:.4g}, so ask for no more than that"
    )


def _out_of_reach_notes(is_out_of_reach_L: Bools, precision: float, highest_L: Floats) -> tuple[str, ...]:
    columns = np.flatnonzero(is_out_of_reach_L)
    notes = tuple(
        f"label column {column} reaches precision {highest_L[column]:.3f} at most, not {precision:g}: never predicted"
        for column in columns
    )
    for note in notes:
        log.info(note)
    return notes
