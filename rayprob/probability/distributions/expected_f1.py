"""The label set with the largest expected F1, exactly. B images, L labels, K components; counts N = 0..L.

General F-measure maximiser of Dembczynski, Waegeman, Cheng & Huellermeier (NIPS 2011): with F1 = 2 |predicted and true| /
(|predicted| + |true|), a set of size m scores sum over its labels i of sum_n P(i present, n present) 2 / (n + m), so the best
of each size takes the m labels that score most. The matrix P(i present, n present) is exact for a mixture: in a component it
is P(i present) times the Poisson-binomial probability that n - 1 of the other labels are present (Ye, Chai, Lee & Chieu,
ICML 2012, for independent labels). F1 of an empty prediction is 1 where nothing is present, and 0 otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayprob.arrays import Bools, Floats
from rayprob.probability.distributions.bernoulli import present_and_absent
from rayprob.probability.distributions.counts import count_probabilities, count_without_each

CHUNK_NUMBERS = 2**21  # K B L^2 of a chunk


@dataclass(frozen=True, eq=False)
class F1Sets:
    """The label set of each image with the largest expected F1, and that expectation."""

    sets_BL: Bools
    expected_f1_B: Floats


def best_f1_sets(log_mixing_BK: Floats, logits_BKL: NDArray[Any]) -> F1Sets:
    """Return the best set of each image; of two that tie, the smaller."""
    num_images, num_components, num_labels = logits_BKL.shape
    step = max(1, CHUNK_NUMBERS // (num_components * num_labels**2))
    starts = range(0, max(num_images, 1), step)
    return joined([_best(np.exp(log_mixing_BK[s : s + step]), logits_BKL[s : s + step].astype(np.float64)) for s in starts])


def joined(parts: Sequence[F1Sets]) -> F1Sets:
    """Return the sets of the images of all parts, in their order."""
    return F1Sets(np.concatenate([p.sets_BL for p in parts]), np.concatenate([p.expected_f1_B for p in parts]))


def _best(weight_BK: Floats, logits_BKL: Floats) -> F1Sets:
    nothing_B, joint_BLN = present_and_count(weight_BK, logits_BKL)
    num_images, num_labels = joint_BLN.shape[:2]
    sizes = np.arange(1, num_labels + 1)
    score_BLM = joint_BLN @ (2 / (sizes[:, None] + sizes))  # of a label in a predicted set of each size M
    order_BLM = np.argsort(-score_BLM, axis=1, kind="stable")
    sorted_BLM = np.take_along_axis(score_BLM, order_BLM, axis=1)
    expected_BM = np.einsum("blm,lm->bm", sorted_BLM, sizes[:, None] <= sizes)
    expected_BM = np.concatenate([nothing_B[:, None], expected_BM], axis=1)
    size_B = expected_BM.argmax(axis=1)
    images_B = np.arange(num_images)
    sets_BL = np.zeros((num_images, num_labels), dtype=bool)
    order_BL = order_BLM[images_B, :, np.maximum(size_B - 1, 0)]
    np.put_along_axis(sets_BL, order_BL, np.arange(num_labels) < size_B[:, None], axis=1)
    return F1Sets(sets_BL, expected_BM[images_B, size_B])


def present_and_count(weight_BK: Floats, logits_BKL: Floats) -> tuple[Floats, Floats]:
    """Return P(nothing present) [B], and P(label l present and n labels present) [B, L, N] for n = 1..L."""
    logits_LKB = np.ascontiguousarray(logits_BKL.transpose(2, 1, 0))
    present_LKB, absent_LKB = present_and_absent(logits_LKB)
    count_NKB = count_probabilities(present_LKB, absent_LKB, len(logits_LKB))
    others_LNKB = count_without_each(count_NKB, present_LKB, absent_LKB)
    joint_BLN = np.einsum("lkb,lnkb->bln", weight_BK.T * present_LKB, others_LNKB)
    return (weight_BK.T * count_NKB[0]).sum(axis=0), joint_BLN
