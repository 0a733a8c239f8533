"""The number of independent labels that are present, from P(present) and P(absent) as arrays [L, ...] of any trailing shape.

The Poisson-binomial distribution by convolution, one label at a time; every term is positive, so nothing cancels.
"""

from collections.abc import Sequence

import numpy as np

from rayprob.arrays import Floats
from rayprob.probability.distributions.arithmetic import NUMBERS, Arithmetic

BLOCK_NUMBERS = 2**15  # counts updated at once: they and their terms fit in the cache


def count_probabilities(
    present_L: Sequence[Floats] | Floats, absent_L: Sequence[Floats] | Floats, cap: int, arithmetic: Arithmetic = NUMBERS
) -> Floats:
    """Return P(number of labels present = n) [cap + 1, ...] for n < cap; the last entry is P(n >= cap).

    Probabilities are numbers or logarithms, as `arithmetic` defines.
    """
    count = np.full((cap + 1, *present_L[0].shape), arithmetic.zero)
    count[0] = arithmetic.one
    if not cap:
        return count
    block = max(1, BLOCK_NUMBERS // max(present_L[0].size, 1))
    for label, (present, absent) in enumerate(zip(present_L, absent_L, strict=True)):
        if label >= cap:
            count[cap] = arithmetic.plus(count[cap], arithmetic.times(count[cap - 1], present))
        else:
            count[label + 1] = arithmetic.times(count[label], present)
        for end in range(min(label, cap - 1) + 1, 1, -block):  # the largest counts first: each reads the one below it
            start = max(end - block, 1)
            raised = arithmetic.times(count[start - 1 : end - 1], present)
            stayed = arithmetic.times(count[start:end], absent, out=count[start:end])
            arithmetic.plus(stayed, raised, out=stayed)
        arithmetic.times(count[0], absent, out=count[0])
    return count
