"""Exact quantities of independent labels, from arrays of logits of any shape.

Every component of a mixture is such a model, so the mixture's answers are weighted sums of these.
"""

import numpy as np
from scipy.special import entr

from rayprob.arrays import Floats


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
