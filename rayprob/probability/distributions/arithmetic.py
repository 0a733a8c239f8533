"""Sums of products of probabilities, computed on the probabilities themselves or on their logarithms. K components.

Every factor is at most 1, so an underflow changes a result by at most 1e-308: a result above SAFE keeps all its digits. The
few results below SAFE are computed again on logarithms, which is ten times slower but does not underflow.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import log_expit, logsumexp

from rayprob.arrays import Floats, Ints
from rayprob.probability.distributions.bernoulli import present_and_absent

SAFE = 1e-250


@dataclass(frozen=True, eq=False)
class Arithmetic:
    """How probabilities are represented, multiplied and added; `zero` and `one` are the probabilities 0 and 1."""

    zero: float
    one: float
    times: np.ufunc
    plus: np.ufunc
    total: Callable[[Floats, int], Floats]  # the sum along an axis
    dot: Callable[[Floats, Floats], Floats]  # of values [..., W, K] with factors [..., K]: their products' sum [..., W]
    of_log: Callable[[Floats], Floats]
    to_log: Callable[[Floats], Floats]
    states: Callable[[Floats], tuple[Floats, Floats]]  # P(present) and P(absent) of logits


def log_odds_of(present_BL: Floats, absent_BL: Floats, components: Callable[[Ints, Ints], tuple[Floats, Floats]]) -> Floats:
    """Return log present - log absent [B, L]; each is a sum over components of weight times P(label present) or P(absent).

    Where one of the two is at most SAFE, both are summed again as logarithms: `components(rows, columns)` returns the log
    weights and logits [E, K] of these E entries. Returns nan if every weight is 0.
    """
    faint = np.nonzero(np.minimum(present_BL, absent_BL) <= SAFE)
    with np.errstate(invalid="ignore"):
        odds_BL = np.asarray(log(present_BL) - log(absent_BL))
        if len(faint[0]):
            log_weight_EK, logits_EK = components(*faint)
            present_E, absent_E = (_log_sum(log_weight_EK + state_EK, 1) for state_EK in _log_states(logits_EK))
            odds_BL[faint] = present_E - absent_E
    return odds_BL


def _sum(values: Floats, axis: int) -> Floats:
    return np.asarray(values.sum(axis=axis))


def _log_sum(values: Floats, axis: int) -> Floats:
    return np.asarray(logsumexp(values, axis=axis))


def _dot(values: Floats, factors: Floats) -> Floats:
    return np.asarray(np.matmul(values, factors[..., None])[..., 0])


def _log_dot(values: Floats, factors: Floats) -> Floats:
    return _log_sum(values + factors[..., None, :], -1)


def log(values: Floats) -> Floats:
    """Return the logarithms; log 0 is minus infinity."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(values))


def _same(values: Floats) -> Floats:
    return values


def _log_states(logits: Floats) -> tuple[Floats, Floats]:
    return log_expit(logits), log_expit(-logits)


NUMBERS = Arithmetic(0.0, 1.0, np.multiply, np.add, _sum, _dot, np.exp, log, present_and_absent)
LOGARITHMS = Arithmetic(-np.inf, 0.0, np.add, np.logaddexp, _log_sum, _log_dot, _same, _same, _log_states)
