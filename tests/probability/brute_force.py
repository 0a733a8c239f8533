"""The oracle: every one of the 2^L label sets with its probability, and answers by summing over them. S = 2^L sets."""

from collections.abc import Callable
from itertools import product

import numpy as np
from numpy.typing import NDArray

from rayprob.labels import LabelSpace
from rayprob.probability.distributions.distribution import BernoulliDistribution, LabelDistribution, MixtureDistribution

Floats = NDArray[np.float64]


def all_sets(num_labels: int) -> NDArray[np.bool_]:
    """Every label set [S, L]."""
    return np.array(list(product([False, True], repeat=num_labels)))


def set_probabilities(distribution: LabelDistribution) -> Floats:
    """P(label set) [B, S], multiplied out from the parameters."""
    if isinstance(distribution, BernoulliDistribution):
        mixing_BK = np.ones((len(distribution), 1))
        logits_BKL = distribution.logits_BL[:, None].astype(np.float64)
    else:
        mixing_BK = np.exp(distribution.log_mixing_BK)
        mixing_BK = mixing_BK / mixing_BK.sum(axis=1, keepdims=True)
        logits_BKL = distribution.component_logits_BKL.astype(np.float64)
    with np.errstate(over="ignore"):
        # 1 - present would cancel: at a logit of 15 it has ten digits left.
        present_BKL, absent_BKL = 1 / (1 + np.exp(-logits_BKL)), 1 / (1 + np.exp(logits_BKL))
    sets_SL = all_sets(logits_BKL.shape[2])
    out_BS = np.zeros((len(logits_BKL), len(sets_SL)))
    for component in range(mixing_BK.shape[1]):
        each_BSL = np.where(sets_SL[None], present_BKL[:, None, component], absent_BKL[:, None, component])
        out_BS += mixing_BK[:, component, None] * each_BSL.prod(axis=2)
    return out_BS


def ask(
    distribution: LabelDistribution, event: Callable[[frozenset[int]], bool], given: Callable[[frozenset[int]], bool]
) -> Floats:
    """P(event | given) [B], where both are functions of the set of columns present."""
    columns_S = [frozenset(np.flatnonzero(row).tolist()) for row in all_sets(distribution.num_labels)]
    probability_BS = set_probabilities(distribution)
    given_S = np.array([given(columns) for columns in columns_S])
    both_S = given_S & np.array([event(columns) for columns in columns_S])
    return np.asarray((probability_BS * both_S).sum(axis=1) / (probability_BS * given_S).sum(axis=1))


def random_mixture(seed: int, *, num_images: int = 4, num_components: int = 3, num_labels: int = 8) -> MixtureDistribution:
    random = np.random.default_rng(seed)
    logits_BKL = random.normal(-1, 2, (num_images, num_components, num_labels))
    return MixtureDistribution(random.normal(0, 1, (num_images, num_components)), logits_BKL)


def random_bernoulli(seed: int, *, num_images: int = 4, num_labels: int = 8) -> BernoulliDistribution:
    return BernoulliDistribution(np.random.default_rng(seed).normal(-1, 2, (num_images, num_labels)))


def both_families(seed: int, **shape: int) -> list[LabelDistribution]:
    return [random_bernoulli(seed, **{k: v for k, v in shape.items() if k != "num_components"}), random_mixture(seed, **shape)]


def letters(num_labels: int) -> LabelSpace:
    """Labels a, b, c, ..."""
    return LabelSpace(tuple("abcdefghijklmnopqrstuvwxyz"[:num_labels]), tuple(range(num_labels)))
