"""How well an image's other labels are ranked once some of its labels are known. N images, L labels.

For m = 0, 1, 2, 3: of each image with more than m known labels present, m are drawn at random and given as evidence. The
distribution given that evidence ranks the image's other known labels, and the image's AP is that of this ranking: the mean,
over the other labels present, of the share of present labels among those ranked at least as high. The value is the mean over
images ("label ranking average precision"), not over labels. Independent labels cannot use evidence, so the gain of a joint
distribution shows what it knows of co-occurrence.

An image is left out if its evidence has probability 0, as can happen with samples of label sets.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rayprob.arrays import Bools, Floats
from rayprob.metrics.bootstrap import Interval, bootstrap
from rayprob.metrics.drawn import mean_of
from rayprob.metrics.ranking import average_precision
from rayprob.probability.distributions.distribution import LabelDistribution
from rayprob.probability.distributions.evidence import Evidence
from rayprob.seeds import derive

GIVEN = (0, 1, 2, 3)
LEAST_DRAWN = 2048  # images; small splits are drawn several times to reduce the noise of which labels are given


@dataclass(frozen=True)
class OtherLabels:
    """AP of an image's other labels, given some of those present: with independent labels, and with a joint distribution."""

    num_given: int
    num_images: int
    alone: float
    joint: float
    gain: Interval  # of joint over alone, over images


def compare_other_labels(
    alone: LabelDistribution,
    joint: LabelDistribution,
    targets_NL: Bools,
    known_NL: Bools,
    given: Sequence[int] = GIVEN,
    *,
    seed: int = 0,
) -> tuple[OtherLabels, ...]:
    """Return the AP of both distributions for each number of given labels; numbers for which no image remains are omitted."""
    rows = []
    for num_given in given:
        alone_N, joint_N = (ap_of_others(d, targets_NL, known_NL, num_given, seed=seed) for d in (alone, joint))
        is_left_out_N = np.isnan(alone_N) | np.isnan(joint_N)  # by both, as images are compared in pairs
        if is_left_out_N.all():
            continue
        alone_N[is_left_out_N] = joint_N[is_left_out_N] = np.nan
        drawn = [bootstrap(mean_of(ap_N), len(ap_N), seed=seed) for ap_N in (alone_N, joint_N)]
        num_images = int((~is_left_out_N).sum())
        rows.append(OtherLabels(num_given, num_images, drawn[0].value, drawn[1].value, (drawn[1] - drawn[0]).interval()))
    return tuple(rows)


def ap_of_others(
    distribution: LabelDistribution, targets_NL: Bools, known_NL: Bools, num_given: int, *, seed: int = 0
) -> Floats:
    """Return each image's AP [N] of its other labels, nan if no present label remains or the evidence is impossible.

    With fewer than LEAST_DRAWN images, the mean over as many draws as reach that number; equal seeds give equal results.
    """
    present_NL = targets_NL & known_NL
    rows_M = np.flatnonzero(present_NL.sum(axis=1) > num_given)
    ap_N = np.full(len(targets_NL), np.nan)
    if not len(rows_M):
        return ap_N
    random = np.random.default_rng(derive(seed, "other labels", num_given))
    num_draws = -(-LEAST_DRAWN // len(targets_NL)) if num_given else 1
    drawn = distribution[rows_M], present_NL[rows_M], known_NL[rows_M]
    ap_N[rows_M] = np.mean([_ap_of_draw(*drawn, num_given, random) for _ in range(num_draws)], axis=0)
    return ap_N


def _ap_of_draw(
    distribution: LabelDistribution, present_NL: Bools, known_NL: Bools, num_given: int, random: np.random.Generator
) -> Floats:
    given_NL = _drawn(present_NL, num_given, random)
    rows_P = np.flatnonzero(_is_possible(distribution, present_NL, given_NL))
    ap_N = np.full(len(present_NL), np.nan)
    if not len(rows_P):
        return ap_N
    told = distribution[rows_P].condition(Evidence(present_NL[rows_P], given_NL[rows_P]))
    # Labels that are certain are ranked as far apart as numbers are; those that are given are not ranked.
    scores_PL = np.nan_to_num(told.marginal_logits(), nan=np.nan)
    ap_N[rows_P] = average_precision(scores_PL.T, present_NL[rows_P].T, (known_NL & ~given_NL)[rows_P].T)
    return ap_N


def _is_possible(distribution: LabelDistribution, present_NL: Bools, given_NL: Bools) -> Bools:
    """Return for each image [N] whether its evidence has a probability above 0."""
    if not distribution.rules_out_sets:
        return np.ones(len(distribution), dtype=bool)
    return np.asarray(distribution.log_prob(present_NL, given_NL) > -np.inf)


def _drawn(present_NL: Bools, num_given: int, random: np.random.Generator) -> Bools:
    """Return which labels are given: `num_given` of those present in each image, uniformly at random."""
    places_NL = np.where(present_NL, random.random(present_NL.shape), np.inf)
    return np.asarray(places_NL.argsort(axis=1).argsort(axis=1) < num_given)
