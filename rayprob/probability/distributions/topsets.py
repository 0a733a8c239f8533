"""The most probable label sets, exactly. B images, L labels, K components; P partial sets; T sets an image; M open labels.

Label by label, in the order of an image's doubt, every partial set is extended both ways. A partial set stands for all its
completions, and none of these is more probable than

    bound = sum_k mixing_k * prod over decided labels P_k(as decided) * prod over open labels max(P_k(present), P_k(absent)),

because the sum of the maxima is no less than the maximum of the sum. Three passes:

1. The labels of most doubt, all others as they rather are, give T good sets. A label whose unlikely side alone has a smaller
   bound than the worst of these is as it rather is in every better set. It is closed; of 80 labels a dozen stay open.
2. A narrow pass over the open labels keeps only the best partial sets of each image, and so finds T better sets.
3. The last pass keeps every partial set whose bound exceeds the worst of those T, so no better set is lost.

With one component the bound is attained, and no partial set is kept in vain. Finding the mode of a mixture is hard in general:
where components disagree about very many labels the last pass outgrows MOST_NUMBERS, and then an error says so rather than a
wrong answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_expit

from rayprob.arrays import Bools, Floats, Ints
from rayprob.errors import QueryError
from rayprob.probability.distributions.arithmetic import LOGARITHMS, NUMBERS, SAFE, Arithmetic
from rayprob.probability.distributions.bernoulli import present_and_absent
from rayprob.probability.distributions.evidence import Evidence

if TYPE_CHECKING:
    from rayprob.probability.distributions.distribution import LabelDistribution


MOST_NUMBERS = 2**24  # partial sets times components in memory at once
SPARE = 6  # partial sets that the narrow pass keeps beyond k
DOUBTFUL = 8  # labels of the first pass, or as many as k sets need
IMAGES_AT_ONCE = 128
ROUNDING = 1e-12  # two label sets nearer than this (relative) are a tie
CLOSE_BELOW = 1e-9  # in nats: bounds nearer to the worst set may be it within rounding


@dataclass(frozen=True, eq=False)
class TopSets:
    """The T most probable label sets of each image, best first, with their log probabilities in nats.

    T = min(k, 2^L), and no set stands twice; sets that evidence rules out have log probability -inf and come last.
    """

    sets_BTL: Bools
    log_prob_BT: Floats


def top_sets(distribution: "LabelDistribution", k: int, first_image: int = 0) -> TopSets:
    """Return the k most probable label sets of each image; `first_image` is the number of the first one in errors.

    Raises QueryError where k < 1 or the search grows too large.
    """
    if k < 1:
        raise QueryError(f"top_sets needs k of at least 1, found {k}")
    num_images, num_labels = len(distribution), distribution.num_labels
    k = min(k, 2 ** min(num_labels, 62))
    chunks = [np.arange(start, min(start + IMAGES_AT_ONCE, num_images)) for start in range(0, num_images, IMAGES_AT_ONCE)]
    parts = []
    while chunks:
        images_B = chunks.pop(0)
        part = _top_of_chunk(distribution[images_B], k)
        if part is not None:
            parts.append(part)
        elif len(images_B) > 1:
            chunks = [*np.array_split(images_B, 2), *chunks]
        else:
            raise QueryError(
                f"the top {k} label sets of image {first_image + images_B[0]} cannot be found exactly: its components "
                f"disagree about so many labels that more than {MOST_NUMBERS // distribution.num_components:,} partial sets "
                "are open; ask for fewer, or give evidence"
            )
    empty = TopSets(np.zeros((0, k, num_labels), dtype=bool), np.zeros((0, k)))
    return joined(parts or [empty])


def joined(parts: Sequence[TopSets]) -> TopSets:
    """Return the top sets of the images of all parts, in their order."""
    return TopSets(np.concatenate([p.sets_BTL for p in parts]), np.concatenate([p.log_prob_BT for p in parts]))


def _top_of_chunk(part: "LabelDistribution", k: int) -> TopSets | None:
    """Return the top sets of a few images, or None where the search outgrows its memory."""
    labels = _Labels.of(part, k)
    found = _top_in(NUMBERS, part, labels, k)
    if found is None:
        return None
    top, is_faint_B = found
    if is_faint_B.any():
        exact = _top_in(LOGARITHMS, part[is_faint_B], labels.where(is_faint_B), k)
        if exact is None:
            return None
        top.sets_BTL[is_faint_B], top.log_prob_BT[is_faint_B] = exact[0].sets_BTL, exact[0].log_prob_BT
    return top


@dataclass(frozen=True, eq=False)
class _Labels:
    """The labels in the order of doubt, whether each is rather present, and how many are open in each image."""

    order_BL: Ints
    likely_BL: Bools
    num_open_B: Ints

    @classmethod
    def of(cls, part: "LabelDistribution", k: int) -> "_Labels":
        """Find good sets among the labels of most doubt, and the labels that better ones may differ in."""
        marginal_BL = part.marginals()
        order_BL = np.argsort(-np.minimum(marginal_BL, 1 - marginal_BL), axis=1, kind="stable")
        likely_BL = marginal_BL >= 0.5
        doubtful = max(DOUBTFUL, int(k - 1).bit_length())
        if doubtful >= part.num_labels:
            return cls(order_BL, likely_BL, np.full(len(part), part.num_labels))
        space = _Space.of(NUMBERS, part, order_BL[:, :doubtful], likely_BL)
        good = _search(space, None, k)
        worst_B = np.full(len(part), -np.inf)
        if good is not None:
            worst_B = NUMBERS.to_log(_best(good, k, len(part))[1][:, -1]) + space.log_scale_B
        bound_BL = np.take_along_axis(part.log_bounds(~likely_BL), order_BL, axis=1)
        is_open_BL = ~(bound_BL < worst_B[:, None] - CLOSE_BELOW)
        order_BL = np.take_along_axis(order_BL, np.argsort(~is_open_BL, axis=1, kind="stable"), axis=1)
        return cls(order_BL, likely_BL, is_open_BL.sum(axis=1))

    def where(self, chosen_B: Bools) -> "_Labels":
        """Return the labels of some images, all of them open: bounds that are no numbers any more close none."""
        order_BL = self.order_BL[chosen_B]
        return _Labels(order_BL, self.likely_BL[chosen_B], np.full(len(order_BL), order_BL.shape[1]))

    @property
    def open_BM(self) -> Ints:
        """As many labels in each image as the image with the most open ones has."""
        return self.order_BL[:, : max(1, self.num_open_B.max(initial=1))]


def _top_in(
    arithmetic: Arithmetic, part: "LabelDistribution", labels: _Labels, k: int
) -> tuple[TopSets, NDArray[np.bool_]] | None:
    """Return the top sets in an arithmetic, and of which images numbers would have lost some; None as `_top_of_chunk`."""
    space = _Space.of(arithmetic, part, labels.open_BM, labels.likely_BL)
    good = _search(space, None, k + SPARE)
    if good is None:
        return None
    worst_B = _best(good, k, len(part))[1][:, -1]
    floor_B = _just_above(worst_B, arithmetic)
    better = _search(space, floor_B, None)
    if better is None:
        return None
    # The second pass finds again whatever exceeds the floor; ties with the floor come from the first.
    found = better.joined(good.where(good.bound_P <= floor_B[good.image_P]))
    sets_BTL, scaled_BT = _best(found, k, len(part))
    return TopSets(sets_BTL, arithmetic.to_log(scaled_BT) + space.log_scale_B[:, None]), worst_B <= SAFE


def _just_above(worst_B: Floats, arithmetic: Arithmetic) -> Floats:
    """Return bounds that a label set must exceed to be no tie with the worst."""
    if arithmetic is NUMBERS:
        return worst_B * (1 + ROUNDING)
    return np.where(worst_B > -np.inf, worst_B + ROUNDING * np.maximum(1, np.abs(np.nan_to_num(worst_B))), -np.inf)


@dataclass(frozen=True, eq=False)
class _Space:
    """What the search walks over: the open labels in their order, and by what factor a choice lowers each component's bound."""

    arithmetic: Arithmetic  # of the bounds and factors
    label_BM: Ints
    start_BK: Floats  # bound with these labels open, over exp(log_scale)
    factors_MBK: tuple[Floats, Floats]  # of absent, of present: one of both is 1
    log_scale_B: Floats
    likely_BL: Bools  # what the other labels are

    @classmethod
    def of(cls, arithmetic: Arithmetic, part: "LabelDistribution", label_BM: Ints, likely_BL: Bools) -> "_Space":
        """Prepare the search of a few images; labels that are not open are as they rather are."""
        closed_BL = np.ones_like(likely_BL)
        np.put_along_axis(closed_BL, label_BM, False, axis=1)
        logits_BKM = part.logits_at(label_BM).astype(np.float64)
        log_start_BK = part.joint_log_prob(Evidence(likely_BL, closed_BL)) + log_expit(np.abs(logits_BKM)).sum(axis=2)
        log_scale_B = np.nan_to_num(log_start_BK.max(axis=1), neginf=0.0)
        absent_MBK, present_MBK = (
            np.ascontiguousarray(factor_BKM.transpose(2, 0, 1)) for factor_BKM in _factors(arithmetic, logits_BKM)
        )
        start_BK = arithmetic.of_log(log_start_BK - log_scale_B[:, None])
        return cls(arithmetic, label_BM, start_BK, (absent_MBK, present_MBK), log_scale_B, likely_BL)


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
    for absent_BK, present_BK in zip(*space.factors_MBK, strict=True):
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
    return _Found(image_P, bound_P, _trace_back(space.likely_BL[image_P], space.label_BM[image_P], parents, choices))


def _trace_back(likely_PL: Bools, label_PM: Ints, parents: list[Ints], choices: list[Bools]) -> Bools:
    """Return the label set of each survivor [P, L] from who begot it at each level and by which choice."""
    sets_PL = likely_PL.copy()
    rows_P = place_P = np.arange(len(label_PM))
    for level in reversed(range(len(parents))):
        sets_PL[rows_P, label_PM[:, level]] = choices[level][place_P]
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
