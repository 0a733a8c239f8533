"""The oracle for extreme logits: label sets and sums over them in mpmath, which neither underflows nor rounds. S = 2^L sets."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import mpmath as mp
import numpy as np
from numpy.typing import NDArray

from rayprob.probability.distributions.distribution import BernoulliDistribution, LabelDistribution

DIGITS = 60

LabelSet = tuple[bool, ...]


def sigmoid(logit: float) -> Any:
    """P(present), exact to DIGITS; logits may be infinite."""
    if np.isinf(logit):
        return mp.mpf(int(logit > 0))
    return 1 / (1 + mp.exp(-mp.mpf(float(logit))))


def set_probabilities(distribution: LabelDistribution) -> dict[LabelSet, Any]:
    """P(label set) of the first image, from the parameters in which the distribution came."""
    with mp.workdps(DIGITS):
        logits_KL = distribution.component_logits_BKL[0]
        if isinstance(distribution, BernoulliDistribution):
            weights_K = [mp.mpf(1)]
        else:
            weights_K = [mp.exp(mp.mpf(float(w))) if w > -np.inf else mp.mpf(0) for w in distribution.log_mixing_BK[0]]
        total = mp.fsum(weights_K)
        # P(absent) is P(present) of the negative logit: 1 - P would lose all digits at a logit of 1e4.
        states_KL = [[(sigmoid(-logit), sigmoid(logit)) for logit in logits_L] for logits_L in logits_KL]
        return {
            chosen: mp.fsum(
                weight / total * mp.fprod(states[is_present] for states, is_present in zip(states_L, chosen, strict=True))
                for weight, states_L in zip(weights_K, states_KL, strict=True)
            )
            for chosen in product((False, True), repeat=len(logits_KL[0]))
        }


def total(sets: dict[LabelSet, Any], holds: Callable[[LabelSet], bool]) -> Any:
    """P(holds)."""
    with mp.workdps(DIGITS):
        return mp.fsum(p for chosen, p in sets.items() if holds(chosen))


def log(value: Any) -> float:
    """The natural logarithm as a float, -inf of 0."""
    with mp.workdps(DIGITS):
        return float(mp.log(value)) if value else -np.inf


def log_ratio(over: Any, under: Any) -> float:
    """log(over / under) as a float; infinite where one of them is 0."""
    return log(over) - log(under) if not (over and under) else log_of_quotient(over, under)


def log_of_quotient(over: Any, under: Any) -> float:
    with mp.workdps(DIGITS):
        return float(mp.log(over / under))


def expected_f1(sets: dict[LabelSet, Any], predicted: Sequence[bool]) -> Any:
    """The expected F1 of a prediction; 1 where nothing is predicted and nothing present."""
    with mp.workdps(DIGITS):
        chosen = np.asarray(predicted, dtype=bool)

        def f1(truth: LabelSet) -> Any:
            size = int(chosen.sum()) + sum(truth)
            return mp.mpf(2 * int((chosen & np.asarray(truth)).sum())) / size if size else mp.mpf(1)

        return mp.fsum(p * f1(truth) for truth, p in sets.items())


def entropy(probabilities: Sequence[Any]) -> Any:
    """-sum p log p."""
    with mp.workdps(DIGITS):
        return -mp.fsum(p * mp.log(p) for p in probabilities if p)


def columns(sets_L: NDArray[np.bool_]) -> LabelSet:
    """A label set as a key."""
    return tuple(bool(is_present) for is_present in sets_L)
