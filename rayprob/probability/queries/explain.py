"""Explain a label's probability: what each piece of evidence changed, and through which components. L labels, K components."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, log_expit, log_softmax

from rayprob.arrays import Floats, Rows
from rayprob.errors import QueryError
from rayprob.labels import LabelSpace
from rayprob.probability.distributions.arithmetic import log_odds_of
from rayprob.probability.distributions.distribution import LabelDistribution


@dataclass(frozen=True)
class Piece:
    """One piece of evidence and by how much it changed the label's log-odds: `alone`, and `last`, given all others."""

    name: str
    is_present: bool
    alone: float
    last: float


@dataclass(frozen=True)
class Component:
    """One component: its weight before and after the evidence, P(label | component), and its share of P(label)."""

    component: int
    name: str
    weight_before: float
    weight: float
    probability: float
    share: float


@dataclass(frozen=True)
class Why:
    """A label's log-odds before and after the evidence, the pieces that changed them, and the components responsible."""

    label: str
    log_odds_before: float
    log_odds: float
    pieces: tuple[Piece, ...]  # the largest change in `last` first
    scenes: tuple[Component, ...]  # the largest share first


def explain(
    distribution: LabelDistribution,
    column: int,
    evidence: Mapping[int, bool],
    label_space: LabelSpace,
    *,
    names_K: Sequence[str] | None = None,
    num_scenes: int = 3,
) -> Why:
    """Explain the probability of a label of one image, given the evidence {column: is present}.

    Samples are not components that could be responsible, so a distribution that is estimated from them has no scenes.
    `names_K` names the components; by default each is named by its most characteristic labels in this image. Raises QueryError
    for a batch of several images, for a label that is itself evidence, and for impossible evidence.
    """
    if len(distribution) != 1 or column in evidence:
        raise QueryError(
            f"{label_space.names[column]!r} is itself evidence, so there is nothing to explain; ask about another label"
            if column in evidence
            else f"one image is explained at a time, found {len(distribution)}; pass distribution[[image]]"
        )

    def log_odds(known: Mapping[int, bool]) -> float:
        return float(distribution.condition(known).marginal_logits()[0, column])

    before, after = log_odds({}), log_odds(evidence)
    pieces = []
    for piece, is_present in evidence.items():
        others = {other: value for other, value in evidence.items() if other != piece}
        alone, last = log_odds({piece: is_present}) - before, after - log_odds(others)
        pieces.append(Piece(label_space.names[piece], is_present, alone, last))
    pieces.sort(key=lambda piece: -abs(piece.last))
    told = distribution.condition(evidence)
    scenes = [] if told.is_sampled else _scenes(distribution, told, column, label_space, names_K)
    return Why(label_space.names[column], before, after, tuple(pieces), tuple(scenes[:num_scenes]))


def influences(distribution: LabelDistribution, column: int) -> tuple[Floats, Floats]:
    """Return by how much the label's log-odds would change if each other label were known present, and absent: two [B, L].

    Both are 0 for the label itself, and for independent labels.
    """
    before_B1 = distribution.marginal_logits()[:, [column]]
    changes = []
    for is_present in (True, False):
        shifts = [_log_odds_beside(distribution[rows], column, is_present) for rows in distribution.chunks()]
        change_BL = np.concatenate(shifts) - before_B1
        change_BL[:, column] = 0
        changes.append(change_BL)
    return changes[0], changes[1]


def component_names(
    probabilities_KL: Floats, mixing_weights_K: Floats, label_space: LabelSpace, num_labels: int = 3
) -> list[str]:
    """Return a name for each component: the labels that best distinguish it from the whole mixture.

    These are the labels with the largest p log(p / marginal), their share of the divergence of component from mixture.
    """
    marginal_L = mixing_weights_K @ probabilities_KL
    with np.errstate(divide="ignore", invalid="ignore"):
        part_KL = np.where(probabilities_KL > 0, probabilities_KL * np.log(probabilities_KL / marginal_L), 0)
    best_KL = np.argsort(-part_KL, axis=1, kind="stable")[:, :num_labels]
    chosen = [[c for c in best_L if part_L[c] > 0] for best_L, part_L in zip(best_KL, part_KL, strict=True)]
    return [", ".join(label_space.names[column] for column in columns) or "nothing in particular" for columns in chosen]


def _scenes(
    before: LabelDistribution,
    after: LabelDistribution,
    column: int,
    label_space: LabelSpace,
    names_K: Sequence[str] | None,
) -> list[Component]:
    weight_before_K, weight_K = np.exp(before.log_mixing_BK[0]), np.exp(after.log_mixing_BK[0])
    logits_KL = before.component_logits_BKL[0].astype(np.float64)
    probability_KL = expit(logits_KL)
    names_K = component_names(probability_KL, weight_before_K, label_space) if names_K is None else names_K
    log_part_K = after.log_mixing_BK[0] + log_expit(logits_KL[:, column])
    share_K = np.exp(log_softmax(log_part_K)) if log_part_K.max() > -np.inf else np.zeros_like(log_part_K)
    order_K = np.argsort(-share_K, kind="stable").tolist()
    facts = (weight_before_K, weight_K, probability_KL[:, column], share_K)
    return [Component(k, names_K[k], *(float(fact_K[k]) for fact_K in facts)) for k in order_K]


def _log_odds_beside(part: LabelDistribution, column: int, is_present: bool) -> Floats:
    """Return log P(label, other) - log P(not label, other) [B, L] for the other label present, or absent."""
    logits_BKL = part.component_logits_BKL.astype(np.float64)
    side, label_BK, weight_BK = 1 if is_present else -1, logits_BKL[:, :, column], np.exp(part.log_mixing_BK)
    other_BKL = expit(side * logits_BKL)
    present_BL, absent_BL = (np.einsum("bk,bkl->bl", weight_BK * expit(sign * label_BK), other_BKL) for sign in (1, -1))

    def components(rows_E: Rows, others_E: Rows) -> tuple[Floats, Floats]:
        return part.log_mixing_BK[rows_E] + log_expit(side * logits_BKL[rows_E, :, others_E]), label_BK[rows_E]

    return log_odds_of(present_BL, absent_BL, components)
