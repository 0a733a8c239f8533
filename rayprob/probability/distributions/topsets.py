"""The most probable label sets, exactly. B images, L labels, K components; P partial sets; T sets an image.

Label by label, in the order of an image's doubt, every partial set is extended both ways. A partial set stands for all its
completions, and none of these is more probable than

    bound = sum_k mixing_k * prod over decided labels P_k(as decided) * prod over open labels max(P_k(present), P_k(absent)),

because the sum of the maxima is no less than the maximum of the sum. A first, narrow pass keeps only the best partial sets of
each image and so finds T good sets; the second pass keeps every partial set whose bound exceeds the worst of those T, so no
better set is lost. With one component the bound is attained, and no partial set is kept in vain. Finding the mode of a mixture
is hard in general: where components disagree about very many labels the second pass outgrows MOST_NUMBERS, and then an error
says so rather than a wrong answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_expit

from rayprob.arrays import Bools, Floats, Ints
from rayprob.errors import QueryError
from rayprob.probability.distributions.arithmetic import LOGARITHMS, NUMBERS, SAFE, Arithmetic
from rayprob.probability.distributions.bernoulli import present_and_absent

MOST_NUMBERS = 2**24  # partial sets times components in memory at once
SPARE = 6  # partial sets that the narrow pass keeps beyond k
IMAGES_AT_ONCE = 128
ROUNDING = 1e-12  # two label sets nearer than this (relative) are a tie


@dataclass(frozen=True, eq=False)
class TopSets:
    """The T most probable label sets of each image, best first, with their log probabilities in nats.

    T = min(k, 2^L), and no set stands twice; sets that evidence rules out have log probability -inf and come last.
    """

    sets_BTL: Bools
    log_prob_BT: Floats


def top_sets(log_mixing_BK: Floats, logits_BKL: NDArray[Any], k: int, first_image: int = 0) -> TopSets:
    """Return the k most probable label sets of each image; `first_image` is the number of the first one in errors.

    Raises QueryError where k < 1 or the search grows too large.
    """
    if k < 1:
        raise QueryError(f"top_sets needs k of at least 1, found {k}")
    num_images, num_labels = len(logits_BKL), logits_BKL.shape[2]
    k = min(k, 2 ** min(num_labels, 62))
    chunks = [np.arange(start, min(start + IMAGES_AT_ONCE, num_images)) for start in range(0, num_images, IMAGES_AT_ONCE)]
    parts = []
    while chunks:
        images_B = chunks.pop(0)
        part = _top_of_chunk(log_mixing_BK[images_B], logits_BKL[images_B].astype(np.float64), k)
        if part is not None:
            parts.append(part)
        elif len(images_B) > 1:
            chunks = [*np.array_split(images_B, 2), *chunks]
        else:
            raise QueryError(
                f"the top {k} label sets of image {first_image + images_B[0]} cannot be found exactly: its components "
                f"disagree about so many labels that more than {MOST_NUMBERS // logits_BKL.shape[1]:,} partial sets are open; "
                "ask for fewer, or give evidence"
            )
    empty = TopSets(np.zeros((0, k, num_labels), dtype=bool), np.zeros((0, k)))
    return joined(parts or [empty])


def joined(parts: Sequence[TopSets]) -> TopSets:
    """Return the top sets of the images of all parts, in their order."""
    return TopSets(np.concatenate([p.sets_BTL for p in parts]), np.concatenate([p.log_prob_BT for p in parts]))


def _top_of_chunk(log_mixing_BK: Floats, logits_BKL: Floats, k: int) -> TopSets | None:
    """Return the top sets of a few images, or None where the search outgrows its memory."""
    found = _top_in(NUMBERS, log_mixing_BK, logits_BKL, k)
    if found is None:
        return None
    top, is_faint_B = found
    if is_faint_B.any():
        exact = _top_in(LOGARITHMS, log_mixing_BK[is_faint_B], logits_BKL[is_faint_B], k)
        if exact is None:
            return None
        top.sets_BTL[is_faint_B], top.log_prob_BT[is_faint_B] = exact[0].sets_BTL, exact[0].log_prob_BT
    return top


def _top_in(
    arithmetic: Arithmetic, log_mixing_BK: Floats, logits_BKL: Floats, k: int
) -> tuple[TopSets, NDArray[np.bool_]] | None:
    """Return the top sets in an arithmetic, and of which images numbers would have lost some; None as `_top_of_chunk`."""
    space = _Space.of(arithmetic, log_mixing_BK, logits_BKL)
    good = _search(space, None, k + SPARE)
    if good is None:
        return None
    worst_B = _best(good, k, len(logits_BKL))[1][:, -1]
    floor_B = _just_above(worst_B, arithmetic)
    better = _search(space, floor_B, None)
    if better is None:
        return None
    # The second pass finds again whatever exceeds the floor; ties with the floor come from the first.
    found = better.joined(good.where(good.bound_P <= floor_B[good.image_P]))
    sets_BTL, scaled_BT = _best(found, k, len(logits_BKL))
    return TopSets(sets_BTL, arithmetic.to_log(scaled_BT) + space.log_scale_B[:, None]), worst_B <= SAFE


def _just_above(worst_B: Floats, arithmetic: Arithmetic) -> Floats:
    """Return bounds that a label set must exceed to be no tie with the worst."""
    if arithmetic is NUMBERS:
        return worst_B * (1 + ROUNDING)
    return np.where(worst_B > -np.inf, worst_B + ROUNDING * np.maximum(1, np.abs(np.nan_to_num(worst_B))), -np.inf)


@dataclass(frozen=True, eq=False)
class _Space:
    """What the search walks over: labels in the order of doubt, and by what factor a choice lowers each component's bound."""

    arithmetic: Arithmetic  # of the bounds and factors
    label_BL: Ints
    start_BK: Floats  # bound with every label open, over exp(log_scale)
    factors_LBK: tuple[Floats, Floats]  # of absent, of present: one of both is 1
    log_scale_B: Floats

    @classmethod
    def of(cls, arithmetic: Arithmetic, log_mixing_BK: Floats, logits_BKL: Floats) -> "_Space":
        """Prepare the search of a few images."""
        marginal_BL = np.einsum("bk,bkl->bl", np.exp(log_mixing_BK), present_and_absent(logits_BKL)[0])
        label_BL = np.argsort(-np.minimum(marginal_BL, 1 - marginal_BL), axis=1, kind="stable")
        log_start_BK = log_mixing_BK + log_expit(np.abs(logits_BKL)).sum(axis=2)
        log_scale_B = log_start_BK.max(axis=1)
        absent_LBK, present_LBK = (
            np.ascontiguousarray(np.take_along_axis(factor_BKL, label_BL[:, None], axis=2).transpose(2, 0, 1))
            for factor_BKL in _factors(arithmetic, logits_BKL)
        )
        start_BK = arithmetic.of_log(log_start_BK - log_scale_B[:, None])
        return cls(arithmetic, label_BL, start_BK, (absent_LBK, present_LBK), log_scale_B)


def _factors(arithmetic: Arithmetic, logits_BKL: Floats) -> tuple[Floats, Floats]:
    """Return P(absent) and P(present) over the larger of both."""
    if arithmetic is LOGARITHMS:
        return -np.maximum(logits_BKL, 0), np.minimum(logits_BKL, 0)  # log P(present) - log P(absent) is the logit
    present_BKL, absent_BKL = present_and_absent(logits_BKL)
    peak_BKL = np.maximum(absent_BKL, present_BKL)
    return absent_BKL / peak_BKL, present_BKL / peak_BKL


@dataclass(frozen=True, eq=False)
class _Found:
    """P complete label sets of several images; their bound is their probability, over exp(log_scale)."""

    image_P: Ints
    bound_P: Floats
    sets_PL: Bools

    def where(self, chosen_P: Bools) -> "_Found":
        return _Found(self.image_P[chosen_P], self.bound_P[chosen_P], self.sets_PL[chosen_P])

    def joined(self, other: "_Found") -> "_Found":
        image_P, bound_P = np.concatenate([self.image_P, other.image_P]), np.concatenate([self.bound_P, other.bound_P])
        return _Found(image_P, bound_P, np.concatenate([self.sets_PL, other.sets_PL]))


def _search(space: _Space, floor_B: Floats | None, width: int | None) -> _Found | None:
    """Return the label sets more probable than their image's floor, if any; with a width, what a search so narrow finds.

    Returns None where partial sets outgrow MOST_NUMBERS.
    """
    arithmetic = space.arithmetic
    image_P, value_PK = np.arange(len(space.start_BK)), space.start_BK
    bound_P = arithmetic.total(value_PK, 1)
    parents, choices = [], []
    for absent_BK, present_BK in zip(*space.factors_LBK, strict=True):
        if 2 * value_PK.size > MOST_NUMBERS:
            return None
        value_PK = np.concatenate([arithmetic.times(value_PK, state_BK[image_P]) for state_BK in (absent_BK, present_BK)])
        bound_P, image_P = arithmetic.total(value_PK, 1), np.concatenate([image_P, image_P])
        kept_P = np.arange(len(image_P)) if floor_B is None else np.flatnonzero(bound_P > floor_B[image_P])
        if width is not None:
            kept_P = kept_P[_rank_in_image(image_P[kept_P], bound_P[kept_P]) < width]
        num_parents = len(bound_P) // 2
        parents.append(kept_P % num_parents)
        choices.append(kept_P >= num_parents)
        value_PK, bound_P, image_P = value_PK[kept_P], bound_P[kept_P], image_P[kept_P]
    return _Found(image_P, bound_P, _trace_back(space.label_BL[image_P], parents, choices))


def _trace_back(label_PL: Ints, parents: list[Ints], choices: list[Bools]) -> Bools:
    """Return the label set of each survivor [P, L] from who begot it at each level and by which choice."""
    sets_PL = np.zeros(label_PL.shape, dtype=bool)
    rows_P = place_P = np.arange(len(label_PL))
    for level in reversed(range(len(parents))):
        sets_PL[rows_P, label_PL[:, level]] = choices[level][place_P]
        place_P = parents[level][place_P]
    return sets_PL


def _rank_in_image(image_P: Ints, bound_P: Floats) -> Ints:
    """Return the place of each partial set among those of its image, the best at 0."""
    order_P = np.lexsort((-bound_P, image_P))
    sorted_P = image_P[order_P]
    rank_P = np.empty(len(order_P), dtype=np.int64)
    rank_P[order_P] = np.arange(len(order_P)) - np.searchsorted(sorted_P, sorted_P)
    return rank_P


def _best(found: _Found, k: int, num_images: int) -> tuple[Bools, Floats]:
    """Return the k best sets of each image [B, k, L] and their scaled probabilities [B, k], 0 where there are fewer."""
    rank_P = _rank_in_image(found.image_P, found.bound_P)
    sets_BTL, scaled_BT = np.zeros((num_images, k, found.sets_PL.shape[1]), dtype=bool), np.zeros((num_images, k))
    top_P = rank_P < k
    sets_BTL[found.image_P[top_P], rank_P[top_P]] = found.sets_PL[top_P]
    scaled_BT[found.image_P[top_P], rank_P[top_P]] = found.bound_P[top_P]
    return sets_BTL, scaled_BT
