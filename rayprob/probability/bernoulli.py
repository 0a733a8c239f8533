"""What is exact about independent labels, given P(present) and P(absent) as arrays [L, ...] of any trailing shape.

Every component of a mixture is such a model, so the mixture's answers are weighted sums of these.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

Floats = NDArray[np.float64]


def present_and_absent(logits: Floats) -> tuple[Floats, Floats]:
    """Return P(present) and P(absent) of each logit, both to full precision; infinite logits give 0 and 1."""
    smaller = np.exp(-np.abs(logits))
    larger = 1 / (1 + smaller)
    smaller *= larger
    is_present = logits >= 0
    return np.where(is_present, larger, smaller), np.where(is_present, smaller, larger)


def entropy_of_logits(logits: Floats) -> Floats:
    """Return the entropy in nats of a label with each logit; 0 at plus and minus infinity."""
    present, absent = present_and_absent(logits)
    return np.asarray(entr(present) + entr(absent))


def count_probabilities(present_L: Sequence[Floats] | Floats, absent_L: Sequence[Floats] | Floats, cap: int) -> Floats:
    """Return P(number of labels present = n) [cap + 1, ...] for n < cap, and of n >= cap in the last place.

    The Poisson-binomial distribution by its convolution, one label at a time; every term is positive, so nothing cancels.
    """
    count = np.zeros((cap + 1, *present_L[0].shape))
    count[0] = 1
    for label, (present, absent) in enumerate(zip(present_L, absent_L, strict=True)):
        top = min(label, cap - 1)  # the largest count that can still rise
        if label >= cap:
            count[cap] += count[cap - 1] * present
        elif cap:
            count[label + 1] = count[label] * present
        for n in range(top, 0, -1):
            count[n] *= absent
            count[n] += count[n - 1] * present
        if cap:
            count[0] *= absent
    return count


def count_without_each(count: Floats, present_L: Floats, absent_L: Floats) -> Floats:
    """Return P(number of the OTHER labels present = n) [L, L, ...] for each label, from P(count) [L + 1, ...] of all.

    Undoes one convolution per label, from the side on which errors shrink: upwards where the label is rather absent,
    downwards where it is rather present.
    """
    num_labels = len(present_L)
    up_mask = present_L <= absent_L
    ratio = np.where(up_mask, present_L, absent_L) / np.where(up_mask, absent_L, present_L)
    scale = 1 / np.where(up_mask, absent_L, present_L)
    upwards = np.empty((num_labels, *present_L.shape))
    downwards = np.empty_like(upwards)
    upwards[0], downwards[-1] = count[0] * scale, count[-1] * scale
    for n in range(1, num_labels):
        upwards[n] = count[n] * scale - upwards[n - 1] * ratio
        downwards[-1 - n] = count[-1 - n] * scale - downwards[-n] * ratio
    return np.maximum(np.moveaxis(np.where(up_mask, upwards, downwards), 0, 1), 0)
