"""The images on the page: best and worst by likelihood, and annotations that the model contradicts. N samples, L labels."""

from dataclasses import dataclass

import numpy as np
from scipy.special import logit

from rayprob.arrays import Floats
from rayprob.probability.distributions.distribution import LabelDistribution
from rayprob.probability.queries.answer import probabilities
from rayprob.probability.queries.expression import And, Count, Exactly, Expression, Label, Query
from rayprob.report.run.judged import Judged
from rayprob.text import counted

BEST, WORST, SUSPECTS = 6, 9, 18
TOP_LABELS = 5
CONDITIONED = 30  # labels that may answer "given the surest label"


@dataclass(frozen=True)
class Guess:
    """A label, its marginal, and whether it is true and chosen."""

    name: str
    marginal: float
    is_true: bool
    is_chosen: bool


@dataclass(frozen=True)
class QueryAnswer:
    """A query about this image and its answer."""

    query: str
    probability: float


@dataclass(frozen=True)
class Card:
    """One image: the annotated labels, the predictions, and the answers to a few queries."""

    row: int
    sample_id: int
    nll_nats: float
    true: tuple[str, ...]
    hits: tuple[str, ...]
    missed: tuple[str, ...]
    extra: tuple[str, ...]
    guesses: tuple[Guess, ...]
    answers: tuple[QueryAnswer, ...]
    mapped: str  # the label whose map is shown: the most probable one, or the most wrong one


@dataclass(frozen=True)
class Suspect:
    """An annotation that the model contradicts; `is_annotated` is True if the label is annotated but improbable."""

    row: int
    sample_id: int
    label: str
    is_annotated: bool
    marginal: float
    given_rest: float  # P(label | all other labels as annotated)
    true: tuple[str, ...]


@dataclass(frozen=True)
class Images:
    """The images on the page."""

    best: tuple[Card, ...]
    worst: tuple[Card, ...]
    least_labels: str  # of a best image: one with few labels is likely without being interesting
    suspects: tuple[Suspect, ...]
    surprises: int  # annotations that the model gives less than 5 %


def images(judged: Judged) -> Images:
    """Return the images to show."""
    labels_N = (judged.targets_NL & judged.known_NL).sum(axis=1)
    least = int(max(np.median(labels_N), 1)) if len(labels_N) else 1
    order = np.argsort(judged.nll_N, kind="stable")
    best = [int(row) for row in order if labels_N[row] >= least][:BEST]
    worst = [int(row) for row in order[::-1] if row not in best][:WORST]
    # Log-odds of what is annotated: probabilities would tie at 0 where the model is sure.
    of_truth_NL = np.where(judged.targets_NL, judged.best_scores_NL, -judged.best_scores_NL)
    doubt_NL = np.where(judged.known_NL, of_truth_NL, np.inf)
    return Images(
        best=tuple(card(judged, row, int(judged.best_scores_NL[row].argmax())) for row in best),
        worst=tuple(card(judged, row, int(doubt_NL[row].argmin())) for row in worst),
        least_labels=counted(least, "label"),
        suspects=tuple(suspects(judged, doubt_NL)),
        surprises=int((judged.known_NL & (of_truth_NL < logit(0.05))).sum()),
    )


def card(judged: Judged, row: int, mapped: int) -> Card:
    """Return what the page shows about one image, and the label in column `mapped` to show a map of."""
    names, known_L = judged.predictions.label_space.names_of, judged.known_NL[row]
    true_L, chosen_L = judged.targets_NL[row] & known_L, judged.sets_NL[row]
    marginal_L = judged.marginals_NL[row]
    top = np.argsort(-judged.best_scores_NL[row], kind="stable")[:TOP_LABELS].tolist()
    return Card(
        row=row,
        sample_id=int(judged.predictions.sample_ids_N[row]),
        nll_nats=float(judged.nll_N[row]),
        true=tuple(names(true_L)),
        hits=tuple(names(true_L & chosen_L)),
        missed=tuple(names(true_L & ~chosen_L)),
        extra=tuple(names(~true_L & chosen_L)),
        guesses=tuple(Guess(judged.names[c], float(marginal_L[c]), bool(true_L[c]), bool(chosen_L[c])) for c in top),
        answers=tuple(answers(judged, row)),
        mapped=judged.names[mapped],
    )


def answers(judged: Judged, row: int) -> list[QueryAnswer]:
    """Return exact answers to a few queries chosen for the image."""
    queries = questions(judged, row)
    answers_Q1 = probabilities(queries, judged.best[[row]])
    return [QueryAnswer(str(query), float(answer)) for query, answer in zip(queries, answers_Q1[:, 0], strict=True)]


def questions(judged: Judged, row: int) -> list[Query]:
    """Return queries about one image: its most probable pair, label count and likeliest set, and one label given another."""
    space = judged.predictions.label_space

    def ask(event: Expression, *given: Expression) -> Query:
        return Query(event, given, space)

    def label(column: int) -> Label:
        return Label(column, space.names[column])

    num_true = int((judged.targets_NL[row] & judged.known_NL[row]).sum())
    surest = np.argsort(-judged.best_scores_NL[row], kind="stable").tolist()
    chosen = judged.best[[row]].top_sets(1).sets_BTL[0, 0]
    asked = [ask(Count(None, ">=", max(num_true, 1))), ask(Exactly(tuple(label(c) for c in np.flatnonzero(chosen).tolist())))]
    if len(surest) < 2:
        return asked
    asked.insert(0, ask(And((label(surest[0]), label(surest[1])))))
    if judged.is_joint:
        moved = most_moved(judged.best[[row]], surest[0], surest[1:CONDITIONED])
        asked += [ask(label(moved)), ask(label(moved), label(surest[0]))]
    return asked


def most_moved(distribution: LabelDistribution, evidence: int, columns: list[int]) -> int:
    """Return the label among `columns` whose marginal moves most once `evidence` is known to be present."""
    moved_L = np.abs(distribution.condition({evidence: True}).marginals() - distribution.marginals())[0]
    return max(columns, key=lambda column: float(moved_L[column]))


def suspects(judged: Judged, doubt_NL: Floats) -> list[Suspect]:
    """Return the least probable annotations, at most one per image, least probable first.

    `doubt_NL` has the log-odds of what is annotated, and infinity where nothing is known.
    """
    worst_N = doubt_NL.argmin(axis=1)
    rows = np.argsort(doubt_NL.min(axis=1), kind="stable")[:SUSPECTS].tolist()
    return [_suspect(judged, row, int(worst_N[row])) for row in rows if doubt_NL[row, worst_N[row]] < 0]


def _suspect(judged: Judged, row: int, column: int) -> Suspect:
    known_L = judged.known_NL[row].copy()
    known_L[column] = False
    log_prob = [
        float(judged.best[[row]].log_prob(_with(judged, row, column, is_present), judged.known_NL[[row]])[0])
        for is_present in (True, False)
    ]
    return Suspect(
        row=row,
        sample_id=int(judged.predictions.sample_ids_N[row]),
        label=judged.names[column],
        is_annotated=bool(judged.targets_NL[row, column]),
        marginal=float(judged.marginals_NL[row, column]),
        given_rest=float(1 / (1 + np.exp(np.clip(log_prob[1] - log_prob[0], -700, 700)))),
        true=tuple(judged.predictions.label_space.names_of(judged.targets_NL[row] & judged.known_NL[row])),
    )


def _with(judged: Judged, row: int, column: int, is_present: bool) -> np.ndarray:
    targets_1L = judged.targets_NL[[row]].copy()
    targets_1L[0, column] = is_present
    return targets_1L
