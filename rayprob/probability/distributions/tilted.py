"""Independent labels under a label prior: a mixture whose components differ from an image's logits by fixed offsets.

B images, L labels, K components. Weights, marginals and the probability of evidence come from `label_groups`. Other answers are
computed for a chunk of images at a time, from the labels in question, so no array [B, K, L] of all images is ever built.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_expit, logsumexp

from rayprob.arrays import Bools, Floats, Ints
from rayprob.probability.distributions.arithmetic import log_odds_of
from rayprob.probability.distributions.bernoulli import present_and_absent
from rayprob.probability.distributions.distribution import BernoulliDistribution, LabelDistribution, MixtureDistribution
from rayprob.probability.distributions.evidence import Evidence
from rayprob.probability.priors import label_groups
from rayprob.probability.priors.prior import LabelPrior


class TiltedDistribution(LabelDistribution):
    """Independent labels under a prior: component logits logits_BL + strength_B1 odds_KL, and their mixing weights.

    The weights are those of `LabelPrior.log_weights`, also given evidence: a known label has a logit of plus or minus infinity.
    """

    family = "mixture"

    def __init__(
        self, prior: LabelPrior, logits_BL: ArrayLike, strength_B1: ArrayLike, log_weight_BK: Floats | None = None
    ) -> None:
        """`log_weight_BK` is the result of `prior.log_weights`, if already computed. Raises ModelError for nan."""
        self.prior = prior
        self.logits_BL = np.asarray(BernoulliDistribution(logits_BL).logits_BL, dtype=np.float64)
        self.strength_B1 = np.broadcast_to(np.asarray(strength_B1, dtype=np.float64), (len(self.logits_BL), 1))
        is_new = log_weight_BK is None
        self._log_weight_BK = prior.log_weights(self.logits_BL, self.strength_B1) if is_new else np.asarray(log_weight_BK)

    @cached_property
    def _log_total_B1(self) -> Floats:
        return np.asarray(logsumexp(self._log_weight_BK, axis=1, keepdims=True))

    @cached_property
    def log_mixing_BK(self) -> Floats:
        return np.asarray(self._log_weight_BK - self._log_total_B1)

    @property
    def component_logits_BKL(self) -> NDArray[Any]:
        return self.logits_BL[:, None] + self.strength_B1[:, None] * self.prior.odds_KL

    def logits_of(self, columns: Sequence[int]) -> NDArray[Any]:
        return self.logits_BL[:, None, columns] + self.strength_B1[:, None] * self.prior.odds_KL[:, columns]

    def logits_at(self, columns_BC: Ints) -> NDArray[Any]:
        logits_BC = np.take_along_axis(self.logits_BL, columns_BC, axis=1)
        return np.asarray(logits_BC[:, None] + self.strength_B1[:, None] * self.prior.odds_KL.T[columns_BC].transpose(0, 2, 1))

    @property
    def num_labels(self) -> int:
        return int(self.logits_BL.shape[1])

    def __len__(self) -> int:
        return len(self.logits_BL)

    def __getitem__(self, rows: slice | NDArray[Any] | list[int]) -> "TiltedDistribution":
        return TiltedDistribution(self.prior, self.logits_BL[rows], self.strength_B1[rows], self._log_weight_BK[rows])

    def rebuilt(self, log_mixing_BK: Floats, component_logits_BKL: NDArray[Any]) -> MixtureDistribution:
        """Return a mixture with other parameters, whose components need not differ by fixed offsets."""
        return MixtureDistribution(log_mixing_BK, component_logits_BKL)

    def marginals(self) -> Floats:
        return np.minimum(self._sides()[0], 1.0)

    def marginal_logits(self) -> Floats:
        def components(rows_E: Ints, columns_E: Ints) -> tuple[Floats, Floats]:
            return self.log_mixing_BK[rows_E], self[rows_E].logits_at(columns_E[:, None])[:, :, 0]

        return log_odds_of(*self._sides(), components)

    def condition(self, evidence: Evidence | Mapping[int, bool]) -> "TiltedDistribution":
        evidence, _ = self._given(evidence)
        logits_BL = evidence.made_certain(self.logits_BL)
        return TiltedDistribution(self.prior, logits_BL, self.strength_B1)

    @property
    def rules_out_sets(self) -> bool:
        return not np.isfinite(self.logits_BL).all()

    def joint_log_prob(self, evidence: Evidence) -> Floats:
        values_BL, known_BL = self._stated(evidence)
        alone_B1 = log_expit(np.where(values_BL, self.logits_BL, -self.logits_BL)).sum(axis=1, keepdims=True, where=known_BL)
        logits_BL = evidence.made_certain(self.logits_BL)
        return np.asarray(self.prior.log_weights(logits_BL, self.strength_B1) + alone_B1 - self._log_total_B1)

    def log_bounds(self, state_BL: Bools) -> Floats:
        """Return slightly larger bounds than other distributions, without an array over images, components and labels."""
        bound_BL = np.empty_like(self.logits_BL)
        for rows_b, groups in self.prior.by_strength(self.logits_BL, self.strength_B1):
            if groups is None:
                bound_BL[rows_b] = super(TiltedDistribution, self[rows_b]).log_bounds(state_BL[rows_b])
                continue
            log_peak_bK = self.prior.log_base(self.strength_B1[rows_b]) + groups.log_peaks(self.logits_BL[rows_b])
            log_peak_bK -= self._log_total_B1[rows_b]
            bound_BL[rows_b] = groups.log_bounds(log_peak_bK, self.logits_BL[rows_b], state_BL[rows_b])
        return bound_BL

    def weighed_by_count(self, t_Q: Floats) -> tuple[Floats, Floats]:
        log_mean_QB, marginals_QBL = np.empty((len(t_Q), len(self))), np.empty((len(t_Q), *self.logits_BL.shape))
        present_BL, absent_BL = present_and_absent(self.logits_BL)
        for q, t in enumerate(t_Q):
            raised = TiltedDistribution(self.prior, self.logits_BL + np.log(t), self.strength_B1)
            alone_B = np.log(absent_BL + t * present_BL).sum(axis=1)
            log_mean_QB[q] = (raised._log_total_B1 - self._log_total_B1)[:, 0] + alone_B
            marginals_QBL[q] = raised.marginals()
        return log_mean_QB, marginals_QBL

    def query_bytes(self, num_columns: int) -> int:
        return 64 * self.num_components * max(num_columns, 1)

    @property
    def _search_bytes(self) -> int:
        return 64 * self.num_components + 16 * self.num_labels

    def _sides(self) -> tuple[Floats, Floats]:
        """Return P(label present) and P(label absent) [B, L]."""
        sides_2BL: Floats = np.empty((2, *self.logits_BL.shape))
        for rows_b, groups in self.prior.by_strength(self.logits_BL, self.strength_B1):
            weight_bK = np.exp(self.log_mixing_BK[rows_b])
            if groups is None:
                components_bKL = present_and_absent(self[rows_b].component_logits_BKL)
                sides_2BL[:, rows_b] = np.einsum("bk,sbkl->sbl", weight_bK, components_bKL)
            else:
                sides_2BL[:, rows_b] = groups.present_and_absent(label_groups.states(self.logits_BL[rows_b]), weight_bK)
        return sides_2BL[0], sides_2BL[1]
