"""The best tree of pairwise dependences between labels (Chow and Liu, IEEE Trans. Inf. Theory 1968). N samples, L labels.

A baseline for label mixtures: it knows how pairs of labels co-occur, and nothing beyond.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

from rayprob.arrays import Bools, Floats

SMOOTHING = 0.5  # pseudo-samples of each pair of values
TIE = 1e-12  # a weight of 0 would mean no edge, but labels without any information on others must be in the tree too


@dataclass(frozen=True, eq=False)
class ChowLiuTree:
    """p(label set) = P(root) prod P(label | its parent): the labels are ordered with parents first."""

    order_L: NDArray[np.int64]
    parent_L: NDArray[np.int64]
    joint_LL22: Floats

    @classmethod
    def fit(cls, targets_NL: Bools, known_NL: Bools | None = None, weights_N: Floats | None = None) -> "ChowLiuTree":
        """Return the tree of the largest likelihood: a spanning tree of the largest mutual information.

        Of partly known samples, a pair is counted where both of its labels are known. By default each sample counts once.
        """
        joint_LL22 = _pairs(targets_NL, np.ones_like(targets_NL) if known_NL is None else known_NL, weights_N)
        first_LL2, second_LL2 = joint_LL22.sum(axis=3), joint_LL22.sum(axis=2)
        apart_LL22 = first_LL2[..., :, None] * second_LL2[..., None, :]
        information_LL = (joint_LL22 * np.log(joint_LL22 / apart_LL22)).sum(axis=(2, 3))
        np.fill_diagonal(information_LL, 0)
        tree_LL = minimum_spanning_tree(-information_LL - TIE)
        order_L, parent_L = breadth_first_order(tree_LL + tree_LL.T, 0, directed=False)
        return cls(order_L.astype(np.int64), parent_L.astype(np.int64), joint_LL22)

    @property
    def marginals_L(self) -> Floats:
        """P(label present) of each label."""
        labels = np.arange(len(self.order_L))
        return np.asarray(self.joint_LL22[labels, labels].sum(axis=2)[:, 1])

    def log_prob(self, targets_NL: Bools) -> Floats:
        """Return log p [N] of whole label sets, in nats."""
        values_NL = targets_NL.astype(np.int64)
        root = self.order_L[0]
        total_N = np.log(self.joint_LL22[root, root].sum(axis=1)[values_NL[:, root]])
        for label in self.order_L[1:]:
            joint_22 = self.joint_LL22[self.parent_L[label], label]
            conditional_22 = joint_22 / joint_22.sum(axis=1, keepdims=True)
            total_N += np.log(conditional_22[values_NL[:, self.parent_L[label]], values_NL[:, label]])
        return np.asarray(total_N)


def _pairs(targets_NL: Bools, known_NL: Bools, weights_N: Floats | None) -> Floats:
    """Return the smoothed P(label i = a, label j = b) [L, L, 2, 2]."""
    states = [(~targets_NL & known_NL).astype(np.float64), (targets_NL & known_NL).astype(np.float64)]
    weighted = states if weights_N is None else [state * weights_N[:, None] for state in states]
    counts_LL22 = np.stack([np.stack([a.T @ b for b in weighted], axis=-1) for a in states], axis=-2) + SMOOTHING / 2
    return np.asarray(counts_LL22 / counts_LL22.sum(axis=(2, 3), keepdims=True))
