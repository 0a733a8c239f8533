"""The most probable label sets, exactly. B images, L labels, K components; P partial sets; T sets per image; M open labels.

A branch-and-bound search: labels are decided one at a time, the most uncertain of an image first, and every partial set is
extended with the label present and absent. No completion of a partial set is more probable than

    bound = sum_k mixing_k * prod over decided labels P_k(as decided) * prod over open labels max(P_k(present), P_k(absent)),

because the sum of the maxima is no less than the maximum of the sum. Three passes:

1. The most uncertain labels, with all others at their more likely value, give T good sets. If the less likely value of a label
   has a bound below the worst of these, every better set has its more likely value: it is closed. Of 80, about 12 stay open.
2. A narrow pass over the open labels keeps only the best partial sets of each image, and so finds T better sets.
3. The last pass keeps every partial set whose bound exceeds the worst of those T, so no better set is lost.

With one component the bound is attained, and no partial set is kept unnecessarily. Finding the mode of a mixture is hard in
general: where components disagree about very many labels, the last pass exceeds MOST_NUMBERS and raises an error.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rayprob.arrays import Bools, Floats, Ints
from rayprob.errors import QueryError
from rayprob.probability.distributions.arithmetic import LOGARITHMS, NUMBERS, SAFE, Arithmetic
from rayprob.probability.distributions.evidence import Evidence
from rayprob.probability.distributions.joint import Joint

MOST_NUMBERS = 2**24  # partial sets times components in memory at once
SPARE = 6  # partial sets that the narrow pass keeps beyond k
DOUBTFUL = 8  # labels of the first pass, or as many as k sets need
IMAGES_AT_ONCE = 64
ROUNDING = 1e-12  # two label sets closer than this (relative) tie
CLOSE_BELOW = 1e-9  # in nats: a bound this close to the worst set may equal it up to rounding


@dataclass(frozen=True, eq=False)
class TopSets:
    """The T most probable label sets of each image, best first, with their log probabilities in nats.

    T = min(k, 2^L), and no set appears twice; sets that evidence rules out have log probability -inf and come last.
    """

    sets_BTL: Bools
    log_prob_BT: Floats


def top_sets(distribution: Joint, k: int, first_image: int = 0) -> TopSets:
    """Return the k most probable label sets of each image; errors number the images from `first_image`.

    Raises QueryError if k < 1 or the search grows too large.
    """
    require_some(k)
    num_images, num_labels = len(distribution), distribution.num_labels
    k = min(k, 2 ** min(num_labels, 62))
    labels = _labels(distribution, k)
    top = TopSets(np.zeros((num_images, k, num_labels), dtype=bool), np.zeros((num_images, k)))
    chunks = _in_parts(np.argsort(labels.num_open_B, kind="stable"))  # a part has images with similar numbers of them
    while chunks:
        images_B = chunks.pop(0)
        found = _top_of_chunk(distribution[images_B], labels.where(images_B), k)
        if found is not None:
            top.sets_BTL[images_B], top.log_prob_BT[images_B] = found.sets_BTL, found.log_prob_BT
        elif len(images_B) > 1:
            chunks = [*np.array_split(images_B, 2), *chunks]
        else:
            raise QueryError(
                f"the top {k} label sets of image {first_image + images_B[0]} cannot be found exactly: its components "
                f"disagree about too many labels, and more than {MOST_NUMBERS // distribution.num_components:,} partial sets "
                "are open; ask for fewer, or give evidence"
            )
    return top


def require_some(k: int) -> None:
    """Raise QueryError if k < 1."""
    if k < 1:
        raise QueryError(f"top_sets needs k of at least 1, found {k}")


def joined(parts: Sequence[TopSets]) -> TopSets:
    """Return the top sets of the images of all parts, in their order."""
    return TopSets(np.concatenate([p.sets_BTL for p in parts]), np.concatenate([p.log_prob_BT for p in parts]))


def _in_parts(images_B: Ints) -> list[Ints]:
    return [images_B[start : start + IMAGES_AT_ONCE] for start in range(0, len(images_B), IMAGES_AT_ONCE)]


def _top_of_chunk(part: Joint, labels: "_Labels", k: int) -> TopSets | None:
    """Return the top sets of a few images, or None if the search exceeds MOST_NUMBERS."""
    found = _top_in(NUMBERS, part, labels, k)
    if found is None:
        return None
    top, is_faint_B = found
    if is_faint_B.any():
        exact = _top_in(LOGARITHMS, part[is_faint_B], labels.where(is_faint_B).all_open(), k)
        if exact is None:
            return None
        top.sets_BTL[is_faint_B], top.log_prob_BT[is_faint_B] = exact[0].sets_BTL, exact[0].log_prob_BT
    return top


def _labels(distribution: Joint, k: int) -> "_Labels":
    parts = [_Labels.of(distribution[images_B], k) for images_B in _in_parts(np.arange(len(distribution)))]
    empty = np.zeros((0, distribution.num_labels), dtype=np.int64)
    parts = parts or [_Labels(empty, empty.astype(bool), empty[:, 0])]
    return _Labels(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("order_BL", "likely_BL", "num_open_B"))
    )


@dataclass(frozen=True, eq=False)
class _Labels:
    """The labels, most uncertain first, whether each is more likely present, and how many are open in each image."""

    order_BL: Ints
    likely_BL: Bools
    num_open_B: Ints

    @classmethod
    def of(cls, part: Joint, k: int) -> "_Labels":
        """Find good sets over the most uncertain labels, and the labels in which better sets may differ."""
        marginal_BL = part.marginals()
        order_BL = np.argsort(-np.minimum(marginal_BL, 1 - marginal_BL), axis=1, kind="stable")
        likely_BL = marginal_BL >= 0.5
        doubtful = max(DOUBTFUL, int(k - 1).bit_length())
        if doubtful >= part.num_labels:
            return cls(order_BL, likely_BL, np.full(len(part), part.num_labels))
        space = _Space.of(NUMBERS, part, order_BL[:, :doubtful], likely_BL)
        good = _narrow(space, k)
        worst_B = np.full(len(part), -np.inf)
        if good is not None:
            worst_B = NUMBERS.to_log(_best(good, k, len(part))[1][:, -1]) + space.log_scale_B
        bound_BL = np.take_along_axis(part.log_bounds(~likely_BL), order_BL, axis=1)
        is_open_BL = ~(bound_BL < worst_B[:, None] - CLOSE_BELOW)
        order_BL = np.take_along_axis(order_BL, np.argsort(~is_open_BL, axis=1, kind="stable"), axis=1)
        return cls(order_BL, likely_BL, is_open_BL.sum(axis=1))

    def where(self, chosen_B: Bools | Ints) -> "_Labels":
        """Return the labels of some images."""
        return _Labels(self.order_BL[chosen_B], self.likely_BL[chosen_B], self.num_open_B[chosen_B])

    def all_open(self) -> "_Labels":
        """Return the same with no label closed, for images whose bounds underflow."""
        return _Labels(self.order_BL, self.likely_BL, np.full_like(self.num_open_B, self.order_BL.shape[1]))

    @property
    def open_BM(self) -> Ints:
        """The first M labels of each image, where M is the most open labels of any image."""
        return self.order_BL[:, : max(1, self.num_open_B.max(initial=1))]


def _top_in(arithmetic: Arithmetic, part: Joint, labels: _Labels, k: int) -> tuple[TopSets, NDArray[np.bool_]] | None:
    """Return the top sets in an arithmetic, and the images whose plain numbers underflow; None as `_top_of_chunk`."""
    space = _Space.of(arithmetic, part, labels.open_BM, labels.likely_BL)
    good = _narrow(space, k + SPARE)
    if good is None:
        return None
    worst_B = _best(good, k, len(part))[1][:, -1]
    floor_B = _just_above(worst_B, arithmetic)
    better = _all_above(space, floor_B)
    if better is None:
        return None
    # The second pass finds again whatever exceeds the floor; ties with the floor come from the first.
    found = better.joined(good.where(good.bound_P <= floor_B[good.image_P]))
    sets_BTL, scaled_BT = _best(found, k, len(part))
    return TopSets(sets_BTL, arithmetic.to_log(scaled_BT) + space.log_scale_B[:, None]), worst_B <= SAFE


def _just_above(worst_B: Floats, arithmetic: Arithmetic) -> Floats:
    """Return the bounds that a label set must exceed to be better than the worst beyond rounding."""
    if arithmetic is NUMBERS:
        return worst_B * (1 + ROUNDING)
    return np.where(worst_B > -np.inf, worst_B + ROUNDING * np.maximum(1, np.abs(np.nan_to_num(worst_B))), -np.inf)


@dataclass(frozen=True, eq=False)
class _Space:
    """The search space: the open labels in order, and the factor by which each choice lowers a component's bound."""

    arithmetic: Arithmetic  # of the bounds and factors
    label_BM: Ints
    start_BK: Floats  # bound with these labels open, over exp(log_scale)
    factors_MBK: tuple[Floats, Floats]  # of absent and of present; one of the two is 1
    log_scale_B: Floats
    likely_BL: Bools  # the values of the other labels

    @classmethod
    def of(cls, arithmetic: Arithmetic, part: Joint, label_BM: Ints, likely_BL: Bools) -> "_Space":
        """Return the search space of a few images; closed labels have their more likely value."""
        closed_BL = np.ones_like(likely_BL)
        np.put_along_axis(closed_BL, label_BM, False, axis=1)
        logits_MBK = np.ascontiguousarray(part.logits_at(label_BM).transpose(2, 0, 1), dtype=np.float64)
        smaller_MBK = np.exp(-np.abs(logits_MBK))  # P of the less likely state over that of the other
        log_start_BK = part.joint_log_prob(Evidence(likely_BL, closed_BL)) - np.log1p(smaller_MBK).sum(axis=0)
        log_scale_B = np.nan_to_num(log_start_BK.max(axis=1), neginf=0.0)
        start_BK = arithmetic.of_log(log_start_BK - log_scale_B[:, None])
        return cls(arithmetic, label_BM, start_BK, _factors(arithmetic, logits_MBK, smaller_MBK), log_scale_B, likely_BL)


def _factors(arithmetic: Arithmetic, logits_MBK: Floats, smaller_MBK: Floats) -> tuple[Floats, Floats]:
    """Return P(absent) and P(present), divided by the larger of the two."""
    if arithmetic is LOGARITHMS:
        return -np.maximum(logits_MBK, 0), np.minimum(logits_MBK, 0)  # log P(present) - log P(absent) is the logit
    is_present_MBK = logits_MBK >= 0
    return np.where(is_present_MBK, smaller_MBK, 1.0), np.where(is_present_MBK, 1.0, smaller_MBK)


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


def _narrow(space: _Space, width: int) -> _Found | None:
    """Return the complete sets of a search that keeps the `width` best partial sets of each image.

    Returns None if these exceed MOST_NUMBERS.
    """
    arithmetic, images_B1 = space.arithmetic, np.arange(len(space.start_BK))[:, None]
    value_BWK, bound_BW = space.start_BK[:, None], arithmetic.total(space.start_BK, 1)[:, None]
    parents, choices = [], []
    for states_B2K in zip(*space.factors_MBK, strict=True):
        if 2 * value_BWK.size > MOST_NUMBERS:
            return None
        bound_BW = np.concatenate([arithmetic.dot(value_BWK, state_BK) for state_BK in states_B2K], axis=1)
        kept_BW = np.argsort(-bound_BW, axis=1, kind="stable")[:, :width]
        kept_BW.sort(axis=1)
        choice_BW, parent_BW = np.divmod(kept_BW, value_BWK.shape[1])
        factor_BWK = np.where(choice_BW[:, :, None], states_B2K[1][:, None], states_B2K[0][:, None])
        parents.append((images_B1 * value_BWK.shape[1] + parent_BW).ravel())
        choices.append(choice_BW.ravel() > 0)
        value_BWK = arithmetic.times(value_BWK[images_B1, parent_BW], factor_BWK)
        bound_BW = np.take_along_axis(bound_BW, kept_BW, axis=1)
    image_P = np.repeat(images_B1[:, 0], bound_BW.shape[1])
    return _Found(image_P, bound_BW.ravel(), _trace_back(space, image_P, parents, choices))


def _all_above(space: _Space, floor_B: Floats) -> _Found | None:
    """Return all label sets more probable than their image's floor; None if partial sets exceed MOST_NUMBERS."""
    arithmetic = space.arithmetic
    image_P, value_PK = np.arange(len(space.start_BK)), space.start_BK
    bound_P = arithmetic.total(value_PK, 1)
    parents, choices = [], []
    for states_B2K in zip(*space.factors_MBK, strict=True):
        if 2 * value_PK.size > MOST_NUMBERS:
            return None
        bounds_PP = [arithmetic.dot(value_PK[:, None], state_BK[image_P])[:, 0] for state_BK in states_B2K]
        kept_PP = [np.flatnonzero(bound_P > floor_B[image_P]) for bound_P in bounds_PP]
        bound_P = np.concatenate([bound_P[kept_P] for bound_P, kept_P in zip(bounds_PP, kept_PP, strict=True)])
        value_PK = np.concatenate(
            [
                arithmetic.times(value_PK[kept_P], state_BK[image_P[kept_P]])
                for kept_P, state_BK in zip(kept_PP, states_B2K, strict=True)
            ]
        )
        parents.append(np.concatenate(kept_PP))
        choices.append(np.repeat([False, True], [len(kept_P) for kept_P in kept_PP]))
        image_P = image_P[parents[-1]]
    return _Found(image_P, bound_P, _trace_back(space, image_P, parents, choices))


def _trace_back(space: _Space, image_P: Ints, parents: list[Ints], choices: list[Bools]) -> Bools:
    """Return the label set of each survivor [P, L] by following its parents and choices back through the levels."""
    sets_PL, label_PM = space.likely_BL[image_P], space.label_BM[image_P]
    rows_P = place_P = np.arange(len(image_P))
    for level in reversed(range(len(parents))):
        sets_PL[rows_P, label_PM[:, level]] = choices[level][place_P]
        place_P = parents[level][place_P]
    return sets_PL


def _rank_in_image(image_P: Ints, bound_P: Floats) -> Ints:
    """Return the rank of each partial set among those of its image; 0 is the best."""
    order_P = np.lexsort((-bound_P, image_P))
    sorted_P = image_P[order_P]
    rank_P = np.empty(len(order_P), dtype=np.int64)
    rank_P[order_P] = np.arange(len(order_P)) - np.searchsorted(sorted_P, sorted_P)
    return rank_P


def _best(found: _Found, k: int, num_images: int) -> tuple[Bools, Floats]:
    """Return the k best sets of each image [B, k, L] and their scaled probabilities [B, k], padded with 0."""
    rank_P = _rank_in_image(found.image_P, found.bound_P)
    sets_BTL, scaled_BT = np.zeros((num_images, k, found.sets_PL.shape[1]), dtype=bool), np.zeros((num_images, k))
    top_P = rank_P < k
    sets_BTL[found.image_P[top_P], rank_P[top_P]] = found.sets_PL[top_P]
    scaled_BT[found.image_P[top_P], rank_P[top_P]] = found.bound_P[top_P]
    return sets_BTL, scaled_BT
