"""Mixtures of Chow-Liu trees, as a label prior over a classifier's logits. N samples, L labels, T trees.

Meila and Jordan, "Learning with mixtures of trees" (JMLR 2000): p(y) = sum_t weight_t tree_t(y), fitted by EM, in which
each tree is the Chow-Liu tree of label sets weighted by its responsibilities. Over a classifier with the probabilities p_l(x),

    p(y|x)  proportional to  prod_l p_l(x)^y_l (1 - p_l(x))^(1 - y_l) * sum_t weight_t (tree_t(y) / prod_l p(y_l))^s

with the mixture's own marginals p(y_l) and a strength s. Each term is a tree again: message passing is exact.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax, logsumexp, softmax

from rayprob.arrays import Bools, Floats
from rayprob.probability.distributions.mixture import fit_label_mixture
from rayprob.probability.priors.chow_liu import ChowLiuTree

ROUNDS, LEAST_GAIN_NATS = 50, 1e-4


@dataclass(frozen=True, eq=False)
class MixtureOfTrees:
    """Trees and the logarithms of their weights, which sum to 1."""

    trees: list[ChowLiuTree]
    log_weight_T: Floats

    @classmethod
    def fit(cls, targets_NL: Bools, number: int, seed: int = 0) -> "MixtureOfTrees":
        """Return the trees that EM finds from the components of a label mixture, until a round gains almost nothing."""
        start = fit_label_mixture(targets_NL, num_components=number, seed=seed)
        share_NT = start.responsibilities(targets_NL)
        last = -np.inf
        for _ in range(ROUNDS):
            found = cls(
                [ChowLiuTree.fit(targets_NL, weights_N=share_N) for share_N in share_NT.T], np.log(share_NT.mean(axis=0))
            )
            log_NT = found.log_joint(targets_NL)
            mean = float(logsumexp(log_NT, axis=1).mean())
            if mean - last < LEAST_GAIN_NATS:
                break
            last, share_NT = mean, softmax(log_NT, axis=1)
        return found

    def log_joint(self, targets_NL: Bools) -> Floats:
        """Return log(weight_t tree_t(y)) [N, T] of whole label sets."""
        return np.stack([tree.log_prob(targets_NL) for tree in self.trees], axis=1) + self.log_weight_T

    def over(self, logits_NL: Floats, strength: float) -> "TreesOverLogits":
        """Return the distributions that the trees with a strength make of a classifier's logits."""
        marginals_TL = np.stack([tree.marginals_L for tree in self.trees])
        return TreesOverLogits(self, marginals_TL, np.exp(self.log_weight_T) @ marginals_TL, logits_NL, strength)


@dataclass(frozen=True, eq=False)
class TreesOverLogits:
    """A distribution over label sets for each sample."""

    mixture: MixtureOfTrees
    marginals_TL: Floats
    marginals_L: Floats
    logits_NL: Floats
    strength: float

    def nll(self, targets_NL: Bools, known_NL: Bools) -> Floats:
        """Return the negative log-likelihood [N] in nats of the known labels."""
        log_all_NT, log_agree_NT = np.empty((2, len(targets_NL), len(self.mixture.trees)))
        for place in range(len(self.mixture.trees)):
            nodes_NL2 = self._nodes(place)
            log_all_NT[:, place], _ = self._passed(place, nodes_NL2)
            nodes_NL2[..., 0][targets_NL & known_NL] = -np.inf
            nodes_NL2[..., 1][~targets_NL & known_NL] = -np.inf
            log_agree_NT[:, place], _ = self._passed(place, nodes_NL2)
        totals = (logsumexp(log_NT + self.mixture.log_weight_T, axis=1) for log_NT in (log_all_NT, log_agree_NT))
        return np.asarray(next(totals) - next(totals))

    def log_odds(self) -> Floats:
        """Return the log-odds of the marginals [N, L]."""
        found = [self._passed(place, self._nodes(place)) for place in range(len(self.mixture.trees))]
        log_all_NT = np.stack([log_all_N for log_all_N, _ in found], axis=1)
        log_share_TN = log_softmax(log_all_NT + self.mixture.log_weight_T, axis=1).T
        log_states_TNL2 = log_share_TN[..., None, None] + np.stack([log_softmax(belief_NL2, axis=2) for _, belief_NL2 in found])
        log_states_NL2 = logsumexp(log_states_TNL2, axis=0)
        return np.asarray(log_states_NL2[..., 1] - log_states_NL2[..., 0])

    def _nodes(self, place: int) -> Floats:
        own_L, all_L = self.marginals_TL[place], self.marginals_L
        absent_L = self.strength * (np.log1p(-own_L) - np.log1p(-all_L))
        present_L = self.strength * (np.log(own_L) - np.log(all_L))
        return np.stack([np.broadcast_to(absent_L, self.logits_NL.shape), self.logits_NL + present_L], axis=2)

    def _passed(self, place: int, nodes_NL2: Floats) -> tuple[Floats, Floats]:
        """Return the log normaliser [N] and unnormalised log marginals [N, L, 2], by messages to the root and back."""
        tree = self.mixture.trees[place]
        edge = {label: self.strength * _log_ratio(tree.joint_LL22[tree.parent_L[label], label]) for label in tree.order_L[1:]}
        belief_NL2, message = nodes_NL2.copy(), {}
        for label in tree.order_L[:0:-1]:
            message[label] = logsumexp(belief_NL2[:, label, None, :] + edge[label], axis=2)
            belief_NL2[:, tree.parent_L[label]] += message[label]
        log_all_N = np.asarray(logsumexp(belief_NL2[:, tree.order_L[0]], axis=1))
        if not np.isneginf(nodes_NL2).any():
            for label in tree.order_L[1:]:
                without_N2 = belief_NL2[:, tree.parent_L[label]] - message[label]
                belief_NL2[:, label] += logsumexp(without_N2[:, :, None] + edge[label], axis=1)
        return log_all_N, belief_NL2


def _log_ratio(joint_22: Floats) -> Floats:
    return np.asarray(np.log(joint_22 / (joint_22.sum(axis=1, keepdims=True) * joint_22.sum(axis=0))))
