"""Label sets with a probability each, and independent labels for all others. B images, S sets, L labels, K = S + 1 components.

    p(y|x) = sum_s pi_s(x) [y = set s] + pi_rest(x) prod_l Bernoulli(y_l; p_l(x))

This is a mixture of K components of which all but the last are label sets that every image shares, so each answer is a product
of the weights [B, S] with a table of the sets, plus that of the remainder. No array of images, sets and labels is built, except
for pairs of labels, whose answers are larger than it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr, log_expit, log_softmax, logsumexp

from rayprob.arrays import Bools, Floats, Ints
from rayprob.errors import ModelError
from rayprob.probability.distributions import information, topsets
from rayprob.probability.distributions.arithmetic import NUMBERS, Arithmetic, log_odds_of
from rayprob.probability.distributions.bernoulli import present_and_absent
from rayprob.probability.distributions.components import Components
from rayprob.probability.distributions.distribution import (
    BernoulliDistribution,
    LabelDistribution,
    MixtureDistribution,
    finite_or_certain,
    outputs_named,
)
from rayprob.probability.distributions.evidence import Evidence
from rayprob.probability.distributions.set_table import SetTable


class PowersetDistribution(LabelDistribution):
    """Log weights log_mixing_BK of the sets and, last, of the remainder; the table of sets; and the remainder's logits_BL."""

    family = "powerset"

    def __init__(self, log_mixing_BK: Floats, table: SetTable, logits_BL: NDArray[Any]) -> None:
        """`log_mixing_BK` is normalised, and the sets of the table differ from one another."""
        self._log_mixing_BK, self.table = log_mixing_BK, table
        self.rest = BernoulliDistribution(np.asarray(logits_BL, dtype=np.float64))

    @classmethod
    def of_outputs(cls, outputs: Mapping[str, Any]) -> "PowersetDistribution":
        """Return the distributions that a head's outputs describe. Raises ModelError if one is missing, misshapen or nan.

        `sets` has a label where its value is above 0.5; the weights of sets that are equal are added.
        """
        set_logits, rest_logit, logits, sets = outputs_named(
            ("set_logits", "rest_logit", "logits", "sets"), outputs, cls.family
        )
        mixing_BK = finite_or_certain(np.concatenate([set_logits, rest_logit], axis=1), 2, "set and rest logits [B, S + 1]")
        _require_fit(mixing_BK, sets, logits)
        return cls(*_distinct(log_softmax(mixing_BK.astype(np.float64), axis=1), SetTable(sets > 0.5)), logits)

    @property
    def log_mixing_BK(self) -> Floats:
        return self._log_mixing_BK

    @property
    def logits_BL(self) -> Floats:
        """The remainder's logits."""
        return np.asarray(self.rest.logits_BL)

    @property
    def component_logits_BKL(self) -> NDArray[Any]:
        return self.logits_of(range(self.num_labels))

    def __len__(self) -> int:
        return len(self.logits_BL)

    def __getitem__(self, rows: slice | NDArray[Any] | list[int]) -> "PowersetDistribution":
        return PowersetDistribution(self.log_mixing_BK[rows], self.table, self.logits_BL[rows])

    @property
    def num_labels(self) -> int:
        return int(self.table.sets_SL.shape[1])

    def logits_of(self, columns: Sequence[int]) -> NDArray[Any]:
        logits_SC = _certain(self.table.sets_SL[:, columns])
        logits_BSC = np.broadcast_to(logits_SC, (len(self), *logits_SC.shape))
        return np.concatenate([logits_BSC, self.logits_BL[:, None, columns]], axis=1)

    def logits_at(self, columns_BC: Ints) -> NDArray[Any]:
        logits_BSC = _certain(self.table.sets_SL.T[columns_BC].transpose(0, 2, 1))
        return np.concatenate([logits_BSC, np.take_along_axis(self.logits_BL, columns_BC, axis=1)[:, None]], axis=1)

    def rebuilt(self, log_mixing_BK: Floats, component_logits_BKL: NDArray[Any]) -> MixtureDistribution:
        """Return a mixture with other parameters, whose components need not be label sets."""
        return MixtureDistribution(log_mixing_BK, component_logits_BKL)

    # ---- probabilities

    def marginals(self) -> Floats:
        parts = [self[rows]._sides()[0] for rows in self.chunks(self._search_bytes)]
        return np.minimum(np.concatenate(parts), 1.0)

    def marginal_logits(self) -> Floats:
        sides = [self[rows]._sides() for rows in self.chunks(self._search_bytes)]
        present_BL, absent_BL = (np.concatenate(side) for side in zip(*sides, strict=True))

        def log_odds(rows: slice) -> Floats:
            part = self[rows]
            return log_odds_of(present_BL[rows], absent_BL[rows], part._at)

        most_certain = int(np.isinf(self.logits_BL).sum(axis=1).max(initial=0))  # labels of an image, each summed over K again
        return np.concatenate([log_odds(rows) for rows in self.chunks(64 * self.num_components * (1 + most_certain))])

    def joint_log_prob(self, evidence: Evidence) -> Floats:
        values_BL, known_BL = self._stated(evidence)
        log_BK = self.log_mixing_BK.copy()
        for rows in self.chunks(self._search_bytes):
            values_bL, known_bL, logits_bL = values_BL[rows], known_BL[rows], self.logits_BL[rows]
            log_BK[rows, :-1][~self.table.agree(values_bL, known_bL)] = -np.inf
            log_BK[rows, -1] += log_expit(np.where(values_bL, logits_bL, -logits_bL)).sum(axis=1, where=known_bL)
        return log_BK

    def condition(self, evidence: Evidence | Mapping[int, bool]) -> "PowersetDistribution":
        evidence, log_mixing_BK = self._given(evidence)
        return PowersetDistribution(log_mixing_BK, self.table, evidence.made_certain(self.logits_BL))

    @property
    def rules_out_sets(self) -> bool:
        return not np.isfinite(self.logits_BL).all()

    def count_distribution(self) -> Floats:
        sizes_SN = (self.table.size_S[:, None] == np.arange(self.num_labels + 1)).astype(np.float64)
        weight_BK = np.exp(self.log_mixing_BK)
        return np.asarray(weight_BK[:, :-1] @ sizes_SN + weight_BK[:, -1:] * self.rest.count_distribution())

    def weighed_by_count(self, t_Q: Floats) -> tuple[Floats, Floats]:
        log_rest_QB, rest_QBL = self.rest.weighed_by_count(t_Q)
        log_mean_QB = np.empty_like(log_rest_QB)
        for q, t in enumerate(t_Q):
            log_BK = self.log_mixing_BK + np.append(np.log(t) * self.table.size_S, 0.0)
            log_BK[:, -1] += log_rest_QB[q]
            log_mean_QB[q] = logsumexp(log_BK, axis=1)
            weight_BK = np.exp(log_BK - log_mean_QB[q, :, None])
            rest_QBL[q] = weight_BK[:, :-1] @ self.table.present_SL + weight_BK[:, -1:] * rest_QBL[q]
        return log_mean_QB, rest_QBL

    def components(self, columns: Iterable[int], arithmetic: Arithmetic = NUMBERS) -> Iterator[Components]:
        """Yield the sets, whose labels are the same for all images, and the remainder."""
        chosen = sorted(columns)
        for log_weight_BK, logits_BKC in (
            (self.log_mixing_BK[:, :-1], _certain(self.table.sets_SL[None, :, chosen])),
            (self.log_mixing_BK[:, -1:], self.logits_BL[:, None, chosen]),
        ):
            yield Components.of(log_weight_BK, chosen, logits_BKC, arithmetic)

    # ---- label sets

    def top_sets(self, k: int) -> topsets.TopSets:
        """Return the k most probable label sets of each image, best first, exactly (up to ties within rounding).

        A set that is not listed has only the remainder's probability. So it is among the k best only if it is among the
        remainder's k best, which are compared with the k best of the listed sets.
        """
        return topsets.joined([self[rows]._top_sets(k, rows.start) for rows in self.chunks(self._search_bytes)])

    def sample(self, num_sets: int, seed: int) -> Bools:
        random = np.random.default_rng(seed)
        parts = [self[rows]._drawn(num_sets, random) for rows in self.chunks(num_sets * self.num_components)]
        return np.concatenate(parts, axis=1)

    def entropy(self, *, num_samples: int = 256, seed: int = 0) -> information.Estimate:
        """Return the entropy of each joint distribution in nats, exactly: the standard errors are 0.

        With r(y) the remainder's part of p(y), and R its weight, the sum of -r log r over all label sets is that of R plus R
        times the entropy of independent labels; on the listed sets, -r log r is replaced by -p log p.
        """
        entropy_B = np.concatenate([self[rows]._entropy() for rows in self.chunks(4 * self._search_bytes)])
        return information.Estimate(entropy_B, np.zeros_like(entropy_B))

    # ---- inside

    def query_bytes(self, num_columns: int) -> int:
        return 32 * self.num_components + 64 * num_columns

    @property
    def _search_bytes(self) -> int:
        return 32 * self.num_components + 64 * self.num_labels

    def _at(self, rows_E: Ints, columns_E: Ints) -> tuple[Floats, Floats]:
        """Return the log weights and logits [E, K] of some images and labels."""
        return self.log_mixing_BK[rows_E], self[rows_E].logits_at(columns_E[:, None])[:, :, 0]

    def _sides(self) -> tuple[Floats, Floats]:
        """Return P(label present) and P(label absent) [B, L]."""
        weight_BK = np.exp(self.log_mixing_BK)
        present_BL, absent_BL = present_and_absent(self.logits_BL)
        in_set_SL = self.table.present_SL
        return (
            weight_BK[:, :-1] @ in_set_SL + weight_BK[:, -1:] * present_BL,
            weight_BK[:, :-1] @ (1 - in_set_SL) + weight_BK[:, -1:] * absent_BL,
        )

    def _entropy(self) -> Floats:
        log_set_BS, log_rest_BS = self._log_prob_of_sets()
        rest_B = np.exp(self.log_mixing_BK[:, -1])
        entropy_B = entr(rest_B) + rest_B * self.rest.entropy().value_B
        return np.asarray(entropy_B + (entr(np.exp(log_set_BS)) - entr(np.exp(log_rest_BS))).sum(axis=1))

    def _log_prob_of_sets(self) -> tuple[Floats, Floats]:
        """Return the log probability of each set [B, S], and the remainder's part of it."""
        log_rest_BS = self.log_mixing_BK[:, -1:] + self.table.log_prob(self.logits_BL)
        return np.logaddexp(self.log_mixing_BK[:, :-1], log_rest_BS), log_rest_BS

    def _top_sets(self, k: int, first_image: int) -> topsets.TopSets:
        rest = topsets.top_sets(self.rest, k, first_image)
        size, everything = rest.log_prob_BT.shape[1], np.ones((1, self.num_labels), dtype=bool)
        log_set_BS, _ = self._log_prob_of_sets()
        best_BT = np.argsort(-log_set_BS, axis=1, kind="stable")[:, :size]
        log_rest_BT = self.log_mixing_BK[:, -1:] + rest.log_prob_BT
        for place in range(size):  # listed sets compete by all of their probability, and only once
            log_rest_BT[self.table.agree(rest.sets_BTL[:, place], everything).any(axis=1), place] = np.nan
        sets_BTL = np.concatenate([self.table.sets_SL[best_BT], rest.sets_BTL], axis=1)
        log_BT = np.concatenate([np.take_along_axis(log_set_BS, best_BT, axis=1), log_rest_BT], axis=1)
        order_BT = np.argsort(-log_BT, axis=1, kind="stable")[:, :size]  # nan comes last
        return topsets.TopSets(
            np.take_along_axis(sets_BTL, order_BT[:, :, None], axis=1), np.take_along_axis(log_BT, order_BT, axis=1)
        )

    def _drawn(self, num_sets: int, random: np.random.Generator) -> Bools:
        component_DB = information.draw_components(self.log_mixing_BK, num_sets, random)
        rest_DBL = random.random((num_sets, *self.logits_BL.shape)) < present_and_absent(self.logits_BL)[0]
        is_rest_DB1 = (component_DB == len(self.table))[:, :, None]
        if not len(self.table):
            return np.asarray(rest_DBL)
        return np.where(is_rest_DB1, rest_DBL, self.table.sets_SL[np.minimum(component_DB, len(self.table) - 1)])


def _certain(present: Bools) -> Floats:
    return np.where(present, np.inf, -np.inf)


def _distinct(log_mixing_BK: Floats, table: SetTable) -> tuple[Floats, SetTable]:
    """Return the weights of the distinct sets, those of equal sets added, and the distinct sets."""
    distinct, row_S = table.distinct()
    if distinct is table:
        return log_mixing_BK, table
    order_S = np.argsort(row_S, kind="stable")
    starts_U = np.searchsorted(row_S[order_S], np.arange(len(distinct)))
    log_set_BU = np.logaddexp.reduceat(log_mixing_BK[:, order_S], starts_U, axis=1)
    return np.concatenate([log_set_BU, log_mixing_BK[:, -1:]], axis=1), distinct


def _require_fit(mixing_BK: ArrayLike, sets_SL: ArrayLike, logits_BL: ArrayLike) -> None:
    mixing, sets, logits = np.shape(mixing_BK), np.shape(sets_SL), np.shape(logits_BL)
    if len(sets) != 2 or len(logits) != 2 or mixing != (logits[0], sets[0] + 1) or sets[1] != logits[1]:
        raise ModelError(
            f"set and rest logits {mixing}, sets {sets} and logits {logits} do not fit; a powerset needs [B, S + 1], [S, L] "
            "and [B, L]"
        )
