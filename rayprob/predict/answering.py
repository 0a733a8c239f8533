"""Turns the forecasts of a batch into one record per image. B images, L labels, M members, Q queries, T label sets."""

from collections.abc import Sequence

import numpy as np

from rayprob.arrays import Bools, Floats
from rayprob.errors import QueryError
from rayprob.predict.members import Forecast, Predictor
from rayprob.predict.question import Question, guarantee_of
from rayprob.predict.reading import Loaded
from rayprob.predict.record import (
    NO_ANSWER,
    AnswerLine,
    Doubt,
    DoubtLine,
    EstimatedAnswer,
    LabelLine,
    Outcome,
    Record,
    Rejected,
    SetLine,
)
from rayprob.probability.distributions.distribution import LabelDistribution
from rayprob.probability.distributions.uncertainty import uncertainty
from rayprob.probability.queries.answer import Query, probabilities
from rayprob.probability.queries.explain import Why, explain
from rayprob.runs.bundle import Bundle

MOST_EXPLAINED = 3
NOTABLE = 0.01  # smaller changes of a marginal are not explained
NO_GUARANTEE_WITH_EVIDENCE = "no guarantee: it holds for images without evidence"
ESTIMATED = "estimated from samples: marginals have standard errors of up to {:.2g}; top sets come from a beam search"
NO_TOP_SETS = "the most probable label sets cannot be found exactly: {}"


class Answering:
    """Answers one question, batch by batch."""

    def __init__(self, predictor: Predictor, question: Question) -> None:
        self._bundle: Bundle = predictor.bundle
        self._names = predictor.bundle.label_space.names
        self._question = question
        self._queries = question.given_evidence()
        self._guarantee, self._notes = _promise(predictor, question)

    def outcomes(self, loaded: Sequence[Loaded], forecast: Forecast) -> list[Outcome]:
        """Return one record per image; an image to which the evidence or the rule cannot be applied is rejected."""
        try:
            return list(self._records(loaded, forecast))
        except QueryError as error:
            if len(loaded) == 1:
                return [Rejected(loaded[0].image, error)]
            each = (self.outcomes([one], forecast[[place]]) for place, one in enumerate(loaded))
            return [outcome for outcomes in each for outcome in outcomes]

    def _records(self, loaded: Sequence[Loaded], forecast: Forecast) -> list[Record]:
        question, before, after = self._question, forecast.distribution, self._given_evidence(forecast.distribution)
        marginals_BL, before_BL = after.marginals(), before.marginals()
        sets_BL = self._label_sets(after)
        listed_B = [self._listed(*scores_and_set) for scores_and_set in zip(after.ranking_scores(), sets_BL, strict=True)]
        top_sets_B, notes = self._top_sets(after)
        answers_B, more_notes = self._answers(before)
        estimated_B = _estimated(after)
        entropy = after.entropy()
        doubts_B = _doubts([self._given_evidence(member) for member in forecast.members], listed_B, self._names)
        return [
            Record(
                image=one.image,
                notes=(*one.notes, *self._notes, *notes, *more_notes, *after.notes, *estimated_B[b]),
                marginals_L=marginals_BL[b],
                labels=tuple(self._label_line(column, marginals_BL[b], before_BL[b]) for column in listed_B[b]),
                label_set=_names_of(sets_BL[b], self._names),
                rule=question.rule,
                guarantee=self._guarantee,
                top_sets=top_sets_B[b],
                entropy_nats=float(entropy.value_B[b]),
                entropy_standard_error=float(entropy.standard_error_B[b]),
                evidence=question.evidence_names,
                answers=answers_B[b],
                why=self._why(before[[b]], marginals_BL[b] - before_BL[b]),
                uncertainty=doubts_B[b],
                reading=self._bundle.reading,
            )
            for b, one in enumerate(loaded)
        ]

    def _given_evidence(self, distribution: LabelDistribution) -> LabelDistribution:
        return distribution.condition(self._question.evidence) if self._question.evidence else distribution

    def _label_sets(self, after: LabelDistribution) -> Bools:
        sets_BL = np.array(self._bundle.label_sets(after, self._question.rule))
        for column, is_present in self._question.evidence.items():
            sets_BL[:, column] = is_present  # even if a threshold is 0 or above 1
        return sets_BL

    def _listed(self, scores_L: Floats, set_L: Bools) -> list[int]:
        """Return the columns to list, most probable first: the top ones, the evidence and the whole label set."""
        order_L = np.argsort(-scores_L, kind="stable")
        wanted_L = set_L.copy()
        wanted_L[order_L[: self._question.top]] = True
        wanted_L[list(self._question.evidence)] = True
        return [int(column) for column in order_L if wanted_L[column]]

    def _label_line(self, column: int, marginals_L: Floats, before_L: Floats) -> LabelLine:
        without = float(before_L[column]) if self._question.evidence else None
        return LabelLine(self._names[column], float(marginals_L[column]), without)

    def _top_sets(self, after: LabelDistribution) -> tuple[list[tuple[SetLine, ...] | None], tuple[str, ...]]:
        try:
            return list(set_lines(after, self._question.top, self._names)), ()
        except QueryError as error:
            if len(after) > 1:
                raise
            return [None], (NO_TOP_SETS.format(error),)

    def _answers(self, before: LabelDistribution) -> tuple[list[tuple[AnswerLine, ...]], tuple[str, ...]]:
        """Return the answers for each image; for a single image, also a note for each query without an answer."""
        if not self._queries:
            return [()] * len(before), ()
        texts = [str(query) for query in self._question.queries]
        try:
            answers_QB = probabilities(self._queries, before)
        except QueryError:
            if len(before) > 1:
                raise
            lines, notes = zip(*map(self._answer, texts, self._queries, [before] * len(texts)), strict=True)
            return [lines], tuple(note for note in notes if note)
        errors_QB = [before.standard_error(query) if before.is_sampled else None for query in self._queries]
        lines_QB = [_lines(*parts) for parts in zip(texts, answers_QB, errors_QB, strict=True)]
        return list(zip(*lines_QB, strict=True)), ()

    def _answer(self, text: str, query: Query, one: LabelDistribution) -> tuple[AnswerLine, str]:
        try:
            return _lines(text, one.prob(query), one.standard_error(query) if one.is_sampled else None)[0], ""
        except QueryError as error:
            return AnswerLine(text, None), NO_ANSWER.format(text, error)

    def _why(self, before: LabelDistribution, change_L: Floats) -> tuple[Why, ...]:
        """Explain the labels that the evidence changed most; with independent labels, evidence changes nothing."""
        evidence = self._question.evidence
        moved = [column for column in np.argsort(-np.abs(change_L), kind="stable").tolist() if column not in evidence]
        moved = [column for column in moved[:MOST_EXPLAINED] if abs(change_L[column]) >= NOTABLE]
        return tuple(explain(before, column, evidence, self._bundle.label_space) for column in moved)


def _lines(text: str, p_B: Floats, error_B: Floats | None) -> list[AnswerLine]:
    if error_B is None:
        return [AnswerLine(text, float(p)) for p in p_B]
    return [EstimatedAnswer(text, float(p), float(error)) for p, error in zip(p_B, error_B, strict=True)]


def _estimated(distribution: LabelDistribution) -> list[tuple[str, ...]]:
    """Return a note for each image if its marginals are estimates."""
    if not distribution.is_sampled:
        return [()] * len(distribution)
    _, error_BL = distribution.estimated_marginals()
    return [(ESTIMATED.format(error),) if error else () for error in error_BL.max(axis=1)]


def set_lines(distribution: LabelDistribution, k: int, names: Sequence[str]) -> list[tuple[SetLine, ...]]:
    """Return the k most probable label sets of each image, best first, omitting those of probability 0.

    Raises QueryError if they cannot be found exactly.
    """
    top = distribution.top_sets(k)
    return [
        tuple(SetLine(_names_of(set_L, names), float(p)) for set_L, p in zip(sets_TL, p_T, strict=True) if p > 0)
        for sets_TL, p_T in zip(top.sets_BTL, np.exp(top.log_prob_BT), strict=True)
    ]


def _names_of(present_L: Bools, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(names[column] for column in np.flatnonzero(present_L).tolist())


def _promise(predictor: Predictor, question: Question) -> tuple[str | None, tuple[str, ...]]:
    """Return the guarantee of the rule, or notes that explain why it does not hold here."""
    guarantee = guarantee_of(predictor.bundle, question.rule)
    if guarantee is None:
        return None, ()
    if predictor.why_no_guarantee:
        return None, (f"no guarantee: {predictor.why_no_guarantee}",)
    return (None, (NO_GUARANTEE_WITH_EVIDENCE,)) if question.evidence else (guarantee, ())


def _doubts(members: Sequence[LabelDistribution], listed_B: list[list[int]], names: Sequence[str]) -> list[Doubt | None]:
    if not members:
        return [None] * len(listed_B)
    marginals_MBL = np.stack([member.marginals() for member in members])
    found = uncertainty(marginals_MBL)
    lowest_BL, highest_BL = marginals_MBL.min(axis=0), marginals_MBL.max(axis=0)
    per_label = (found.total_NL, found.aleatoric_NL, found.epistemic_NL, lowest_BL, highest_BL)

    def doubt(b: int, listed: list[int]) -> Doubt:
        total, aleatoric, epistemic = (float(part_B[b]) for part_B in (found.total_N, found.aleatoric_N, found.epistemic_N))
        lines = (DoubtLine(names[column], *(float(part_BL[b, column]) for part_BL in per_label)) for column in listed)
        return Doubt(len(members), total, aleatoric, epistemic, tuple(lines))

    return [doubt(b, listed) for b, listed in enumerate(listed_B)]
