"""The label set with the largest expected F1. B images, L labels, K components, M sizes of sets, Q nodes; n labels are present.

General F-measure maximiser of Dembczynski, Waegeman, Cheng & Huellermeier (NIPS 2011): with F1 = 2 |predicted and true| /
(|predicted| + |true|), a set of size m scores the sum over its labels i of

    E[y_i 2 / (n + m)] = 2 * integral from 0 to 1 of t^(m - 1) E[y_i t^n] dt,

so the best set of each size has the m labels with the highest scores. E[y_i t^n] is a polynomial in t. At a given t, a mixture
gives it exactly, as a product over labels in each component. Gauss-Legendre quadrature with Q nodes gives the integral exactly
where n + m <= 2 Q. Q is chosen so that larger n have a total probability below NEGLIGIBLE; with Q = L the result is exact. All
terms are positive, so nothing cancels. The F1 of an empty prediction is 1 if no label is present, and 0 otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rayprob.arrays import Bools, Floats, Ints
from rayprob.probability.distributions.joint import Joint

NEGLIGIBLE = 1e-14
POWERS = (1.5, 2.0, 4.0, 8.0, 32.0)  # for bounds on the number of labels present
FIRST_SIZES = 8
NODES_STEP = 8
NUMBERS_AT_ONCE = 2**21  # B L (Q + M) of a chunk


@dataclass(frozen=True, eq=False)
class F1Sets:
    """The label set of each image with the largest expected F1, and that expectation."""

    sets_BL: Bools
    expected_f1_B: Floats


def best_f1_sets(distribution: Joint) -> F1Sets:
    """Return the best set of each image; the smaller one if two tie.

    A set of size m has an expected F1 of at most 2 E[n] / (E[n] + m), as 2 n / (n + m) is concave in n. So sizes are tried
    until this bound falls below the best value of a smaller set.
    """
    num_labels = distribution.num_labels
    mean_B = distribution.marginals().sum(axis=1)
    found = F1Sets(np.zeros((len(mean_B), num_labels), dtype=bool), np.zeros(len(mean_B)))
    most_B = _most_present(distribution)
    sizes_B = np.minimum(num_labels, FIRST_SIZES + (2 * mean_B).astype(np.int64))
    left_B = np.arange(len(mean_B))
    while len(left_B):
        for images_b, num_nodes, num_sizes in _alike(left_B, most_B, sizes_B, num_labels):
            best = _best(distribution[images_b], num_nodes, num_sizes)
            found.sets_BL[images_b], found.expected_f1_B[images_b] = best.sets_BL, best.expected_f1_B
        needed_B = mean_B * (2 / np.maximum(found.expected_f1_B, np.finfo(float).tiny) - 1)
        needed_B = np.minimum(np.ceil(np.minimum(needed_B, num_labels)).astype(np.int64), num_labels)
        left_B = left_B[needed_B[left_B] > sizes_B[left_B]]
        sizes_B = np.maximum(sizes_B, needed_B)
    return found


def joined(parts: Sequence[F1Sets]) -> F1Sets:
    """Return the sets of the images of all parts, in their order."""
    return F1Sets(np.concatenate([p.sets_BL for p in parts]), np.concatenate([p.expected_f1_B for p in parts]))


def _most_present(distribution: Joint) -> Ints:
    """Return, per image, a count that n exceeds with probability below NEGLIGIBLE, from P(n >= m) <= E[t^n] / t^m."""
    powers = np.array(POWERS)
    log_powers_Q1 = np.log(powers)[:, None]
    log_mean_QB, _ = distribution.weighed_by_count(powers)
    bound_B = np.ceil((log_mean_QB - np.log(NEGLIGIBLE)) / log_powers_Q1).min(axis=0)
    return np.asarray(np.minimum(bound_B, distribution.num_labels).astype(np.int64))


def _alike(left_B: Ints, most_B: Ints, sizes_B: Ints, num_labels: int) -> list[tuple[Ints, int, int]]:
    """Return groups of images that need the same number of nodes, each with its numbers of nodes and sizes."""
    nodes_B = np.minimum(-(-(most_B + sizes_B) // (2 * NODES_STEP)) * NODES_STEP, num_labels)
    parts = []
    for num_nodes in np.unique(nodes_B[left_B]):
        images_B = left_B[nodes_B[left_B] == num_nodes]
        num_sizes = int(sizes_B[images_B].max())
        step = max(1, NUMBERS_AT_ONCE // (num_labels * (int(num_nodes) + num_sizes)))
        parts += [(images_B[start : start + step], int(num_nodes), num_sizes) for start in range(0, len(images_B), step)]
    return parts


def _best(part: Joint, num_nodes: int, num_sizes: int) -> F1Sets:
    nothing_B = np.exp(part.log_prob(np.zeros((1, part.num_labels), dtype=bool)))
    score_BLM = _scores(part, num_nodes, num_sizes)
    num_images, num_labels = score_BLM.shape[:2]
    order_BLM = np.argsort(-score_BLM, axis=1, kind="stable")[:, :num_sizes]
    sorted_BLM = np.take_along_axis(score_BLM, order_BLM, axis=1)
    sizes = np.arange(1, num_sizes + 1)
    expected_BM = np.einsum("blm,lm->bm", sorted_BLM, sizes[:, None] <= sizes)
    expected_BM = np.concatenate([nothing_B[:, None], expected_BM], axis=1)
    size_B = expected_BM.argmax(axis=1)
    images_B = np.arange(num_images)
    sets_BL = np.zeros((num_images, num_labels), dtype=bool)
    order_BL = order_BLM[images_B, :, np.maximum(size_B - 1, 0)]
    np.put_along_axis(sets_BL, order_BL, np.arange(num_sizes) < size_B[:, None], axis=1)
    return F1Sets(sets_BL, expected_BM[images_B, size_B])


def _scores(part: Joint, num_nodes: int, num_sizes: int) -> Floats:
    """Return E[y_i 2 / (n + m)] [B, L, M] of each label in a predicted set of each size."""
    node_Q, weight_Q = np.polynomial.legendre.leggauss(num_nodes)
    t_Q, weight_Q = (node_Q + 1) / 2, weight_Q / 2
    log_mean_QB, marginals_QBL = part.weighed_by_count(t_Q)
    marginals_QBL *= np.exp(log_mean_QB)[:, :, None]
    return np.asarray(marginals_QBL.transpose(1, 2, 0) @ (2 * weight_Q[:, None] * t_Q[:, None] ** np.arange(num_sizes)))
