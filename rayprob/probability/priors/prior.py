"""A label prior: how probable label sets are before the image is seen, combined with a classifier's output for the image.

For the classifier's marginals p_l(x), a mixture (pi_k, p_kl) fitted to label sets without images, its marginals p_l, and a
strength s of at least 0:

    p(y | x)  is proportional to  prod_l p_l(x)^y_l (1 - p_l(x))^(1 - y_l)
                                  * sum_k pi_k prod_l [ (p_kl / p_l)^y_l ((1 - p_kl) / (1 - p_l))^(1 - y_l) ]^s

With s = 1 this is Bayes' rule for a classifier that treats labels as independent; with s = 0 it is the classifier alone.
The result is a mixture. Component k has the logits u_l(x) + s odds_kl, where u_l(x) are those of the classifier and
odds_kl = logit p_kl - logit p_l, and the weight

    pi_k prod_l [ (1 - p_l(x)) ((1 - p_kl) / (1 - p_l))^s + p_l(x) (p_kl / p_l)^s ]

divided by the sum of these over k. N samples, L labels, K components; logits_NL are the u_l(x), strength_N1 one s per sample.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from scipy.special import log_expit, logsumexp

from rayprob.arrays import Bools, Floats, Ints
from rayprob.probability.distributions.mixture import LabelMixture
from rayprob.probability.priors import label_groups
from rayprob.probability.priors.label_groups import LabelGroups

STRENGTHS_KEPT = 4
CHUNK_VALUES = 250_000  # component logits processed at a time: 2 MB per array, which stays in the cache


@dataclass(frozen=True, eq=False)
class Slopes:
    """The negative log-likelihood [N] of each sample's known labels, and its slopes in logits_NL and in the strength [N]."""

    nll_N: Floats
    logits_NL: Floats
    strength_N: Floats


@dataclass(frozen=True, eq=False)
class LabelPrior:
    """What a mixture over label sets adds to a classifier's logits: log_mixing_K, odds_KL and absent_K.

    absent_K is sum_l log (1 - p_kl) / (1 - p_l). A label that the prior does not know has odds 0, so it
    stays independent of the others.
    """

    log_mixing_K: Floats
    odds_KL: Floats
    absent_K: Floats
    _groups: dict[float, LabelGroups] = field(default_factory=dict)  # by strength

    @classmethod
    def of(cls, mixture: LabelMixture) -> "LabelPrior":
        """Return the prior of a mixture over the classifier's labels, in the same order."""
        p_KL, p_L = mixture.probabilities_KL, mixture.marginals_L
        absent_KL = np.log1p(-p_KL) - np.log1p(-p_L)
        return cls(np.log(mixture.mixing_weights_K), np.log(p_KL) - np.log(p_L) - absent_KL, absent_KL.sum(axis=1))

    def log_weights(self, logits_NL: Floats, strength_N1: Floats) -> Floats:
        """Return the logarithms [N, K] of pi_k times the product over labels, as above: unnormalised mixing weights.

        A logit of plus or minus infinity is a label known for certain, whose factor is the prior's alone: the sum of the
        weights is then the probability of the known labels, divided by that under the classifier.
        """
        log_NK: Floats = np.empty((len(logits_NL), len(self.log_mixing_K)))
        for rows_n, groups in self.by_strength(logits_NL, strength_N1):
            if groups is None:
                log_NK[rows_n] = self._log_products(logits_NL[rows_n], strength_N1[rows_n])
            else:
                log_NK[rows_n] = groups.log_products(label_groups.states(logits_NL[rows_n]))
        return log_NK + self.log_base(strength_N1)

    def by_strength(self, logits_NL: Floats, strength_N1: Floats) -> Iterator[tuple[Ints, LabelGroups | None]]:
        """Yield rows of images of one strength with its label groups, or with None if their logits are too large for groups."""
        steep_N = label_groups.is_steep(logits_NL)
        for strength in np.unique(strength_N1):
            groups, here_N = self._groups_of(float(strength)), strength_N1[:, 0] == strength
            fit_N = here_N & ~steep_N & (not groups.is_steep)
            for rows, kept in ((np.flatnonzero(fit_N), groups), (np.flatnonzero(here_N & ~fit_N), None)):
                step = label_groups.IMAGES_AT_ONCE if kept else max(1, CHUNK_VALUES // self.odds_KL.size)
                yield from ((rows[start : start + step], kept) for start in range(0, len(rows), step))

    def slopes(self, logits_NL: Floats, strength_N1: Floats, targets_NL: Bools, known_NL: Bools) -> Slopes:
        """Return the negative log-likelihood of the known labels and its slopes."""
        arrays = logits_NL, strength_N1, (targets_NL & known_NL).astype(np.float64), (~known_NL).astype(np.float64)
        parts = [self._slopes(*(array[rows] for array in arrays)) for rows in self._chunks(len(logits_NL))]
        return Slopes(*(np.concatenate(values) for values in zip(*parts, strict=True)))

    def _groups_of(self, strength: float) -> LabelGroups:
        if strength not in self._groups:
            if len(self._groups) == STRENGTHS_KEPT:
                self._groups.pop(next(iter(self._groups)))
            self._groups[strength] = LabelGroups.of(strength * self.odds_KL)
        return self._groups[strength]

    def _log_products(self, logits_NL: Floats, strength_N1: Floats) -> Floats:
        """Return what `LabelGroups.log_products` does for a few images, by one logarithm for each component and label."""
        present_N1L = log_expit(logits_NL)[:, None] + strength_N1[:, None] * self.odds_KL
        return np.asarray(np.logaddexp(log_expit(-logits_NL)[:, None], present_N1L).sum(axis=2))

    def log_base(self, strength_N1: Floats) -> Floats:
        """Return the logarithms [N, K] of pi_k times the prior's own factors where every label is absent."""
        return np.asarray(self.log_mixing_K + strength_N1 * self.absent_K)

    def _slopes(self, logits: Floats, strength: Floats, targets: Floats, unknown: Floats) -> tuple[Floats, Floats, Floats]:
        """Return what `slopes` does for a few samples: log Z - log (Z of the label sets that agree with what is known)."""
        tilted_NKL = logits[:, None] + strength[:, None] * self.odds_KL
        softplus_NKL, present_NKL = _softplus_and_present(tilted_NKL)
        stated_NK = targets @ self.odds_KL.T
        log_all_NK = self.log_base(strength) + softplus_NKL.sum(axis=2)
        log_agree_NK = self.log_base(strength) + strength * stated_NK + (targets * logits).sum(axis=1, keepdims=True)
        is_partial = bool(unknown.any())
        if is_partial:
            log_agree_NK = log_agree_NK + np.einsum("nl,nkl->nk", unknown, softplus_NKL)
        log_all_N1, log_agree_N1 = (logsumexp(log_NK, axis=1, keepdims=True) for log_NK in (log_all_NK, log_agree_NK))
        all_NK, agree_NK = np.exp(log_all_NK - log_all_N1), np.exp(log_agree_NK - log_agree_N1)
        by_logit_NL = np.einsum("nk,nkl->nl", all_NK, present_NKL) - targets
        by_strength_NK = all_NK * (self.absent_K + np.einsum("nkl,kl->nk", present_NKL, self.odds_KL))
        by_strength_NK -= agree_NK * (self.absent_K + stated_NK)
        if is_partial:
            by_logit_NL -= unknown * np.einsum("nk,nkl->nl", agree_NK, present_NKL)
            by_strength_NK -= agree_NK * np.einsum("nl,nkl,kl->nk", unknown, present_NKL, self.odds_KL, optimize=True)
        return (log_all_N1 - log_agree_N1)[:, 0], by_logit_NL, by_strength_NK.sum(axis=1)

    def _chunks(self, num_samples: int) -> Iterator[slice]:
        step = max(1, CHUNK_VALUES // self.odds_KL.size)
        yield from (slice(start, start + step) for start in range(0, max(num_samples, 1), step))


def _softplus_and_present(logits: Floats) -> tuple[Floats, Floats]:
    """Return log(1 + exp(logit)) and the sigmoid by one exponential that cannot overflow."""
    small = np.exp(-np.abs(logits))
    softplus = np.maximum(logits, 0.0) + np.log1p(small)
    return softplus, np.where(logits >= 0, 1.0, small) / (1.0 + small)
