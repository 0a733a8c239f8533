"""Explain a label's probability: what each piece of evidence changed, and through which components. L labels, K components."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, log_expit, log_softmax

from rayprob.arrays import Floats
from rayprob.errors import QueryError
from rayprob.labels import LabelSpace
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

    `names_K` names the components; by default each is named by its most characteristic labels in this image. Components that
    are only label sets drawn from the distribution explain nothing and are left out. Raises QueryError for a batch of several
    images, for a label that is itself evidence, and for impossible evidence.
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
