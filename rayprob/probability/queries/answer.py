"""Exact answers to queries in label names. Q queries, B images, K components. `syntax.py` describes the language."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from rayprob.arrays import Floats
from rayprob.errors import QueryError
from rayprob.labels import LabelSpace
from rayprob.probability.distributions.arithmetic import LOGARITHMS, SAFE
from rayprob.probability.distributions.components import Components
from rayprob.probability.distributions.joint import Joint
from rayprob.probability.queries import syntax
from rayprob.probability.queries.cases import Cases, cases_of
from rayprob.probability.queries.expression import Expression, Query, conjuncts, literal

__all__ = ["Query", "answers", "parse", "probabilities", "probability", "refuse_impossible"]


def parse(text: str, label_space: LabelSpace) -> Query:
    """Parse a query that uses the names of `label_space`; `str(query)` writes it back.

    Raises QueryError, with a caret under the error, for wrong syntax or an unknown label, and without one if the evidence
    contradicts itself or an expression has too many cases.
    """
    query = syntax.read(text, label_space)
    _plan(query)
    return query


def probability(query: Query, distribution: Joint) -> Floats:
    """Return the answer for each image [B]. Raises QueryError if the evidence has probability 0 for an image."""
    return np.asarray(probabilities([query], distribution)[0])


def probabilities(queries: Sequence[Query], distribution: Joint) -> Floats:
    """Return the answers [Q, B]; `answers` yields them in chunks, for results that do not fit in memory."""
    return np.concatenate([answers_QB for _, answers_QB in answers(queries, distribution)], axis=1)


def answers(queries: Sequence[Query], distribution: Joint) -> Iterator[tuple[slice, Floats]]:
    """Yield (images, answers [Q, images]) chunk by chunk; a chunk's label probabilities are computed once for all queries."""
    plans = [_plan(query) for query in queries]
    for query in queries:
        if len(query.label_space) != distribution.num_labels:
            raise QueryError(
                f"{query} asks about {len(query.label_space)} labels, but the distribution has {distribution.num_labels}"
            )
    columns = set().union(*(plan.columns for plan in plans))
    # A chunk's answers may take 16 times as much memory as its logits: larger chunks repeat fewer steps of Python.
    for images in distribution.chunks(max(distribution.query_bytes(len(columns)), 8 * len(queries) // 16)):
        part = distribution[images]
        answers_QB = np.empty((len(plans), len(part)))
        for place, (plan, readings) in enumerate(zip(plans, _readings(part, plans, columns), strict=True)):
            answers_QB[place] = _answer(plan, *readings, images.start)
        yield images, answers_QB


def evidence_of(query: Query) -> Mapping[int, bool]:
    """Return the single labels that a query takes as known."""
    return _plan(query).evidence


def others_of(query: Query) -> set[int]:
    """Return the columns that a query reads, without the single labels that it takes as known."""
    plan = _plan(query)
    return plan.columns - plan.evidence.keys()


def has_other_conditions(query: Query) -> bool:
    """Return whether a query has conditions other than single labels, such as `(a | b)`."""
    return _plan(query).condition is not None


def log_joint_and_whole(query: Query, distribution: Joint) -> tuple[Floats, Floats]:
    """Return log P(event, evidence) and log P(evidence) [B] of a few images. Raises QueryError as `probability` does."""
    plan = _plan(query)
    log_joint_B, log_whole_B = _over_all(plan, tuple(distribution.components(plan.columns, LOGARITHMS)))
    _require_evidence(log_whole_B > -np.inf, plan, distribution)
    return log_joint_B, log_whole_B


def refuse_impossible(is_possible_B: NDArray[np.bool_], what: str, first_image: int = 0) -> None:
    """Raise QueryError, with the first of several images, if the evidence `what` has probability 0 for an image."""
    impossible = np.flatnonzero(~is_possible_B)
    if len(impossible):
        where = _share(is_possible_B)
        first = f", first image {first_image + impossible[0]}" if where else ""
        raise QueryError(f"{what} has probability 0{where}{first}: it contradicts what is already known; drop one of the two")


def _share(is_possible_B: NDArray[np.bool_]) -> str:
    """Return for how many images evidence is impossible; "" for a single one."""
    return f" for {int((~is_possible_B).sum())} of {len(is_possible_B)} images" if len(is_possible_B) > 1 else ""


@dataclass(frozen=True, eq=False)
class _Plan:
    """P(event | given), split into single labels, whose probabilities multiply, and the rest of event and evidence."""

    text: str
    evidence: Mapping[int, bool]
    condition: Cases | None  # the rest of the evidence, once its single labels are known
    event: Mapping[int, bool] | None  # None if the event is impossible
    joint: Cases | None  # the rest of event and evidence, once all single labels are known

    @property
    def columns(self) -> set[int]:
        rests = [cases.columns for cases in (self.condition, self.joint) if cases]
        return set(self.evidence).union(self.event or (), *rests)


@lru_cache(maxsize=4096)
def _plan(query: Query) -> _Plan:
    given = list(chain.from_iterable(conjuncts(part) for part in query.given))
    evidence, twice = _literals(given)
    num_labels = len(query.label_space)
    if twice is not None:
        raise QueryError(
            f"contradictory evidence: {query.label_space.names[twice]!r} is given as present and as absent in {query}"
        )
    given_rest = _rest(given)
    condition = cases_of(given_rest, evidence, num_labels) if given_rest else None
    if condition and condition.never:
        raise QueryError(f"contradictory evidence: the condition can never be true in {query}")
    wanted = conjuncts(query.event)
    event, twice = _literals(wanted)
    if twice is not None or any(evidence.get(column, is_present) != is_present for column, is_present in event.items()):
        return _Plan(str(query), evidence, condition, None, None)
    rest = given_rest + _rest(wanted)
    joint = cases_of(rest, {**evidence, **event}, num_labels) if rest else None
    event = {column: is_present for column, is_present in event.items() if column not in evidence}
    return _Plan(str(query), evidence, condition, event, joint)


def _readings(part: Joint, plans: Sequence[_Plan], columns: set[int]) -> Iterator[tuple[Joint, Sequence[Components]]]:
    """Yield what answers each plan, with its components; those of `columns` are computed once for all that `part` answers."""
    own: Sequence[Components] = ()
    for plan in plans:
        joint = part.answering(plan.evidence, plan.columns)
        if joint is part:
            own = own or tuple(part.components(columns))
            yield part, own
        else:
            yield joint, tuple(joint.components(plan.columns))


def _answer(plan: _Plan, part: Joint, components: Sequence[Components], first_image: int) -> Floats:
    """Return P(event | evidence) [B] of a chunk, on logarithms for the images whose probabilities underflow."""
    joint_B, whole_B = _over_all(plan, components)
    least_B = whole_B if plan.event is None else np.minimum(joint_B, whole_B)
    if least_B.min(initial=1) > SAFE:
        return np.minimum(joint_B / whole_B, 1)
    faint_B = np.flatnonzero(least_B <= SAFE)
    log_joint_F, log_whole_F = _over_all(plan, tuple(part[faint_B].components(plan.columns, LOGARITHMS)))
    is_possible_B = np.ones(len(whole_B), dtype=bool)
    is_possible_B[faint_B] = log_whole_F > -np.inf
    _require_evidence(is_possible_B, plan, part, first_image)
    answer_B = joint_B / np.maximum(whole_B, SAFE)
    answer_B[faint_B] = np.exp(log_joint_F - log_whole_F)
    return np.minimum(answer_B, 1)


def _require_evidence(is_possible_B: NDArray[np.bool_], plan: _Plan, part: Joint, first_image: int = 0) -> None:
    """Raise QueryError if the evidence has probability 0 for an image, or is met by none of the label sets drawn for it."""
    if part.is_sampled and not is_possible_B.all():
        raise QueryError(
            f"none of the {part.num_components} label sets drawn meets the evidence of {plan.text}{_share(is_possible_B)}: it "
            "is too improbable to estimate an answer; state single labels, which are given to the model, or use a head with "
            "exact answers"
        )
    refuse_impossible(is_possible_B, f"the evidence of {plan.text}", first_image)


def _over_all(plan: _Plan, parts: Sequence[Components]) -> tuple[Floats, Floats]:
    """Return P(event, evidence) and P(evidence) [B], summed over the parts, in their arithmetic."""
    joints, wholes = zip(*(_joint_and_whole(plan, components) for components in parts), strict=True)
    return reduce(parts[0].arithmetic.plus, joints), reduce(parts[0].arithmetic.plus, wholes)


def _joint_and_whole(plan: _Plan, components: Components) -> tuple[Floats, Floats]:
    """Return P(event, evidence) and P(evidence) [B] in the arithmetic of the components."""
    arithmetic = components.arithmetic
    weight_KB = components.joint(plan.evidence, components.weight_KB)
    whole_KB = arithmetic.times(weight_KB, plan.condition.probability(components)) if plan.condition else weight_KB
    whole_B = arithmetic.total(whole_KB, 0)
    if plan.event is None:
        return np.full_like(whole_B, arithmetic.zero), whole_B
    rest_KB = arithmetic.times(weight_KB, plan.joint.probability(components)) if plan.joint else weight_KB
    return components.total(plan.event, rest_KB), whole_B


def _literals(parts: Iterable[Expression]) -> tuple[dict[int, bool], int | None]:
    """Return {column: is present} of the single labels among the parts, and a column that is stated both ways, if any."""
    stated: dict[int, bool] = {}
    for column, is_present in filter(None, map(literal, parts)):
        if stated.setdefault(column, is_present) != is_present:
            return stated, column
    return stated, None


def _rest(parts: Iterable[Expression]) -> list[Expression]:
    return [part for part in parts if literal(part) is None]
