"""Every decision that thresholds can make on given rows, and the best of them. N samples, L labels, C = N + 1 cuts.

Cut c of a label predicts its c highest known marginals. An objective is a function of sums over labels: `contribute` returns a
label's share [..., D] of the sums at given counts, and `combine` turns sums into the value. The best threshold for all labels
then takes one sort, and the best threshold per label comes from `best_cuts`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy  # loads scipy.optimize on first use; every training process imports this module

from rayprob.arrays import Bools, Floats, Ints

NEVER = 2.0  # a threshold that no marginal reaches


@dataclass(frozen=True)
class Cuts:
    """Counts at every cut of every label, and the marginals that they separate."""

    scores_NL: Floats  # decreasing; unknown ones are -1 and come last
    true_positives_CL: Ints
    is_cut_CL: Bools  # false between equal marginals, and among unknown ones
    positives_L: Ints

    @classmethod
    def of(cls, marginals_NL: Floats, targets_NL: Bools, known_NL: Bools) -> "Cuts":
        """Sort the marginals of each label; targets must be false where they are not known."""
        scores_NL = np.where(known_NL, marginals_NL, -1.0)
        order_NL = np.argsort(-scores_NL, axis=0, kind="stable")
        scores_NL = np.take_along_axis(scores_NL, order_NL, axis=0)
        hits_NL = np.take_along_axis(targets_NL, order_NL, axis=0)
        is_cut_CL = np.ones((len(scores_NL) + 1, scores_NL.shape[1]), dtype=bool)
        is_cut_CL[1:-1] = scores_NL[:-1] > scores_NL[1:]
        is_cut_CL[1:] &= scores_NL >= 0
        true_positives_CL = np.zeros(is_cut_CL.shape, dtype=np.int64)
        np.cumsum(hits_NL, axis=0, out=true_positives_CL[1:])
        return cls(scores_NL, true_positives_CL, is_cut_CL, np.asarray(targets_NL.sum(axis=0)))

    @property
    def predicted_C1(self) -> Ints:
        """How many samples each cut predicts, the same for every label."""
        return np.arange(len(self.is_cut_CL))[:, None]

    @cached_property
    def precision_CL(self) -> Floats:
        """Return the share of the predicted samples that are right."""
        return np.asarray(self.true_positives_CL / np.maximum(self.predicted_C1, 1))

    @cached_property
    def pooled(self) -> tuple[Floats, Ints, Ints]:
        """Return the distinct thresholds T of all labels, decreasing, with true positives and number predicted at each."""
        is_known_NL = self.scores_NL >= 0
        scores_M, hits_M = self.scores_NL[is_known_NL], np.diff(self.true_positives_CL, axis=0)[is_known_NL]
        order_M = np.argsort(-scores_M, kind="stable")
        scores_M = scores_M[order_M]
        ends_T = np.flatnonzero(np.append(scores_M[:-1] > scores_M[1:], True))
        left_out_T = np.append(scores_M[ends_T[1:]], 0.0)
        return between(scores_M[ends_T], left_out_T), np.cumsum(hits_M[order_M])[ends_T], ends_T + 1

    def counts_at(self, cuts_L: Ints) -> tuple[Ints, Ints, Ints]:
        """Return true positives, predicted and positives of each label [L] at its cut."""
        return np.take_along_axis(self.true_positives_CL, cuts_L[None], axis=0)[0], cuts_L, self.positives_L

    def thresholds_at(self, cuts_L: Ints) -> Floats:
        """Return the threshold of each label midway between the last marginal predicted and the next that is not."""
        edges_CL = np.pad(np.maximum(self.scores_NL, 0.0), ((1, 1), (0, 0)), constant_values=((1.0, 0.0), (0.0, 0.0)))
        predicted_L = np.take_along_axis(edges_CL, cuts_L[None], axis=0)[0]
        left_out_L = np.take_along_axis(edges_CL, cuts_L[None] + 1, axis=0)[0]
        return np.where(cuts_L == 0, _above(left_out_L), between(predicted_L, left_out_L))


@dataclass(frozen=True)
class Objective:
    """What thresholds are chosen for; larger is better."""

    contribute: Callable[[Ints, Ints, Ints], Floats]  # (true positives, predicted, positives) [..., L] -> [..., L, D]
    combine: Callable[[Floats, Ints], Floats]  # (sums [..., D], positives [..., L]) -> [...]
    best_cuts: Callable[[Cuts], Ints]
    smoothings: tuple[float, ...]  # to try: the weight of the threshold for all, in positives; inf uses it alone

    def value(self, true_positives_L: Ints, predicted_L: Ints, positives_L: Ints) -> float:
        """Return the objective at the counts of each label."""
        return float(self.values(np.stack([true_positives_L, predicted_L, positives_L])))

    def values(self, counts_3L: Ints) -> Floats:
        """Return the objective [...] at counts [..., 3, L]: true positives, predicted and positives of each label."""
        true_positives_L, predicted_L, positives_L = np.moveaxis(counts_3L, -2, 0)
        sums_D = self.contribute(true_positives_L, predicted_L, positives_L).sum(axis=-2)
        return np.asarray(self.combine(sums_D, positives_L))


def between(upper: Floats, lower: Floats) -> Floats:
    """Return the middle of marginals upper > lower, or `upper` if the middle rounds to `lower` in float32."""
    middle = 0.5 * (upper + lower)
    return np.where(middle.astype(np.float32) > lower, middle, upper)


def best_shared_threshold(cuts: Cuts, objective: Objective) -> tuple[float, float]:
    """Return the threshold for all labels with the highest value, and that value; the highest one if several tie. Exact."""
    thresholds_T, values_T = shared_curve(cuts, objective)
    best = int(np.argmax(values_T))
    if values_T[best] <= 0:
        return NEVER, 0.0
    return float(thresholds_T[best]), float(values_T[best])


def shared_curve(cuts: Cuts, objective: Objective) -> tuple[Floats, Floats]:
    """Return every distinct threshold for all labels, decreasing [T], and its value; one sort finds them all."""
    shares_CLD = objective.contribute(cuts.true_positives_CL, cuts.predicted_C1, cuts.positives_L)
    is_known_NL = cuts.scores_NL >= 0
    scores_M, gains_MD = cuts.scores_NL[is_known_NL], np.diff(shares_CLD, axis=0)[is_known_NL]
    order_M = np.argsort(-scores_M, kind="stable")
    scores_M = scores_M[order_M]
    values_M = objective.combine(np.cumsum(gains_MD[order_M], axis=0) + shares_CLD[0].sum(axis=0), cuts.positives_L)
    ends_T = np.flatnonzero(np.append(scores_M[:-1] > scores_M[1:], True))
    left_out_T = np.append(scores_M[ends_T[1:]], 0.0)
    return between(scores_M[ends_T], left_out_T), values_M[ends_T]


def _above(highest_L: Floats) -> Floats:
    return np.where(highest_L < 1.0, 0.5 * (1.0 + highest_L), NEVER)


def _argmax_cuts(cuts: Cuts, gains_CL: Floats) -> Ints:
    return np.asarray(np.argmax(np.where(cuts.is_cut_CL, gains_CL, -np.inf), axis=0))


def _mean_f1_shares(true_positives: Ints, predicted: Ints, positives_L: Ints) -> Floats:
    f1 = 2.0 * true_positives / np.maximum(predicted + positives_L, 1)
    return np.asarray(f1 * (positives_L > 0) / _num_counted(positives_L))[..., None]


def _num_counted(positives_L: Ints) -> Ints:
    """Return the number of labels with positives [..., 1], at least 1."""
    return np.asarray(np.maximum(np.count_nonzero(positives_L, axis=-1, keepdims=True), 1))


def _mean_f1_cuts(cuts: Cuts) -> Ints:
    return _argmax_cuts(cuts, _mean_f1_shares(cuts.true_positives_CL, cuts.predicted_C1, cuts.positives_L)[..., 0])


def _of1_shares(true_positives: Ints, predicted: Ints, positives_L: Ints) -> Floats:
    return np.stack(np.broadcast_arrays(true_positives, predicted), axis=-1).astype(np.float64)


def _of1(sums: Floats, positives_L: Ints) -> Floats:
    return np.asarray(2.0 * sums[..., 0] / np.maximum(sums[..., 1] + positives_L.sum(axis=-1), 1))


def _of1_cuts(cuts: Cuts) -> Ints:
    """Return the cuts of the highest OF1 = 2 TP / (P + predicted), a ratio of sums over labels. Exact.

    Dinkelbach, "On nonlinear fractional programming" (1967): for a guess F, every label maximises 2 TP_l - F predicted_l
    independently; the OF1 of those cuts is the next guess, and rises until it is the maximum.
    """
    value = 0.0
    while True:
        cuts_L = _argmax_cuts(cuts, 2.0 * cuts.true_positives_CL - value * cuts.predicted_C1)
        true_positives_L, predicted_L, positives_L = cuts.counts_at(cuts_L)
        risen = 2.0 * float(true_positives_L.sum()) / max(1.0, float(predicted_L.sum() + positives_L.sum()))
        if risen <= value + 1e-12:
            return cuts_L
        value = risen


def _cf1_shares(true_positives: Ints, predicted: Ints, positives_L: Ints) -> Floats:
    counted_L = (positives_L > 0) / _num_counted(positives_L)
    precision = true_positives / np.maximum(predicted, 1) * counted_L
    recall = true_positives / np.maximum(positives_L, 1) * counted_L
    return np.stack([precision, recall], axis=-1)


def _cf1(sums: Floats, positives_L: Ints) -> Floats:
    total = sums[..., 0] + sums[..., 1]
    return np.asarray(2.0 * sums[..., 0] * sums[..., 1] / np.where(total > 0, total, 1.0))


def _cf1_cuts(cuts: Cuts) -> Ints:
    """Return the cuts with the highest CF1 = 2 CP CR / (CP + CR) found by a hull search and then coordinate ascent over labels.

    CF1 is the least of 2 (w^2 CP + (1 - w)^2 CR) over w in [0, 1]. For a given w the labels are independent, and their best
    cuts bound every CF1 from above; the bound is convex in w. Its minimum is the highest CF1 up to a gap that shrinks with the
    number of labels (Shapley and Folkman), and the ascent closes most of it.
    """
    shares_CL2 = _cf1_shares(cuts.true_positives_CL, cuts.predicted_C1, cuts.positives_L)
    columns = np.arange(len(cuts.positives_L))
    best: tuple[float, Ints] = (-1.0, np.zeros(len(columns), dtype=np.int64))

    def bound(weight: float) -> float:
        nonlocal best
        cuts_L = _argmax_cuts(cuts, weight**2 * shares_CL2[..., 0] + (1.0 - weight) ** 2 * shares_CL2[..., 1])
        cp, cr = shares_CL2[cuts_L, columns].sum(axis=0)
        value = float(_cf1(np.array([cp, cr]), cuts.positives_L))
        if value > best[0]:
            best = value, cuts_L
        return float(weight**2 * cp + (1.0 - weight) ** 2 * cr)

    scipy.optimize.minimize_scalar(bound, bounds=(0.0, 1.0), method="bounded", options={"xatol": 1e-5})
    return _ascend(cuts, shares_CL2, best[1])


def _ascend(cuts: Cuts, shares_CL2: Floats, cuts_L: Ints) -> Ints:
    """Return cuts at which no change of a single label raises CF1."""
    cuts_L = cuts_L.copy()
    sums_2 = shares_CL2[cuts_L, np.arange(len(cuts_L))].sum(axis=0)
    improved = True
    while improved:
        improved = False
        for label in np.flatnonzero(cuts.positives_L):
            others_2 = sums_2 - shares_CL2[cuts_L[label], label]
            values_C = np.where(cuts.is_cut_CL[:, label], _cf1(others_2 + shares_CL2[:, label], cuts.positives_L), -1.0)
            cut = int(np.argmax(values_C))
            if values_C[cut] > values_C[cuts_L[label]] + 1e-12:
                cuts_L[label], sums_2, improved = cut, others_2 + shares_CL2[cut, label], True
    return cuts_L


SMOOTHINGS = (0.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, np.inf)
OBJECTIVES: dict[str, Objective] = {
    "OF1": Objective(_of1_shares, _of1, _of1_cuts, SMOOTHINGS),
    "CF1": Objective(_cf1_shares, _cf1, _cf1_cuts, (0.0,)),
    "mean_F1": Objective(_mean_f1_shares, lambda sums, positives_L: sums[..., 0], _mean_f1_cuts, SMOOTHINGS),
}
