"""Questions in label names, answered exactly. Q queries, B images, K components. The language is described in syntax.py."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rayprob.errors import QueryError
from rayprob.labels import LabelSpace
from rayprob.probability import syntax
from rayprob.probability.cases import Cases, cases_of
from rayprob.probability.components import Components
from rayprob.probability.expression import Expression, Query, conjuncts, literal

if TYPE_CHECKING:
    from rayprob.probability.distribution import LabelDistribution

__all__ = ["Query", "answers", "parse", "probabilities", "probability", "refuse_impossible"]

Floats = NDArray[np.float64]


def parse(text: str, label_space: LabelSpace) -> Query:
    """Return the query that `text` asks in the names of `label_space`; `str(query)` writes it back.

    Raises QueryError, with a caret under the place, for wrong syntax or an unknown label; and where the evidence contradicts
    itself or an expression has too many cases.
    """
    query = syntax.read(text, label_space)
    _plan(query)
    return query


def probability(query: Query, distribution: "LabelDistribution") -> Floats:
    """Return the answer for each image [B]. Raises QueryError where an image gives the evidence probability 0."""
    return np.asarray(probabilities([query], distribution)[0])


def probabilities(queries: Sequence[Query], distribution: "LabelDistribution") -> Floats:
    """Return the answers [Q, B]; `answers` gives them in chunks where that is too much to hold."""
    return np.concatenate([answers_QB for _, answers_QB in answers(queries, distribution)], axis=1)


def answers(queries: Sequence[Query], distribution: "LabelDistribution") -> Iterator[tuple[slice, Floats]]:
    """Yield (images, answers [Q, images]) chunk by chunk; a chunk's label probabilities are computed once for all queries."""
    plans = [_plan(query) for query in queries]
    for query in queries:
        if len(query.label_space) != distribution.num_labels:
            raise QueryError(
                f"{query} asks about {len(query.label_space)} labels, but the distribution has {distribution.num_labels}"
            )
    columns = set().union(*(plan.columns for plan in plans))
    # A chunk's answers may take 16 times as much memory as its logits: larger chunks repeat fewer steps of Python.
    for images in distribution.chunks(max(distribution.bytes_per_image, 8 * len(queries) // 16)):
        part = distribution[images]
        components = Components.from_logits(part.log_mixing_BK, part.component_logits_BKL, columns)
        answers_QB = np.empty((len(plans), len(part)))
        for place, plan in enumerate(plans):
            answers_QB[place] = _answer(plan, components, images.start)
        yield images, answers_QB


def refuse_impossible(is_possible_B: NDArray[np.bool_], what: str, first_image: int = 0) -> None:
    """Raise QueryError that names the first image for which the evidence `what` has probability 0."""
    impossible = np.flatnonzero(~is_possible_B)
    if len(impossible):
        raise QueryError(
            f"{what} has probability 0 for {len(impossible)} of {len(is_possible_B)} images, first image "
            f"{first_image + impossible[0]}: it contradicts what is known of it already; drop one of the two"
        )


@dataclass(frozen=True, eq=False)
class _Plan:
    """P(event | given): single labels by themselves, which are products, and what is left of event and evidence."""

    text: str
    evidence: Mapping[int, bool]
    condition: Cases | None  # the rest of the evidence, once its single labels are known
    event: Mapping[int, bool] | None  # None: the event cannot be
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
        raise QueryError(f"contradictory evidence: what is given can never be in {query}")
    wanted = conjuncts(query.event)
    event, twice = _literals(wanted)
    if twice is not None or any(evidence.get(column, is_present) != is_present for column, is_present in event.items()):
        return _Plan(str(query), evidence, condition, None, None)
    rest = given_rest + _rest(wanted)
    joint = cases_of(rest, {**evidence, **event}, num_labels) if rest else None
    event = {column: is_present for column, is_present in event.items() if column not in evidence}
    return _Plan(str(query), evidence, condition, event, joint)


def _answer(plan: _Plan, components: Components, first_image: int) -> Floats:
    weight_KB, whole_B = components.given(plan.evidence)
    if plan.condition:
        whole_B = (weight_KB * plan.condition.probability(components)).sum(axis=0)
    refuse_impossible(whole_B > 0, f"the evidence of {plan.text}", first_image)
    if plan.event is None:
        return np.zeros(len(whole_B))
    rest_KB = weight_KB * plan.joint.probability(components) if plan.joint else weight_KB
    return np.asarray(np.minimum(components.total(plan.event, rest_KB) / whole_B, 1))


def _literals(parts: Iterable[Expression]) -> tuple[dict[int, bool], int | None]:
    """Return {column: is present} of the single labels among the parts, and a column that stands both ways, if any."""
    stated: dict[int, bool] = {}
    for column, is_present in filter(None, map(literal, parts)):
        if stated.setdefault(column, is_present) != is_present:
            return stated, column
    return stated, None


def _rest(parts: Iterable[Expression]) -> list[Expression]:
    return [part for part in parts if literal(part) is None]
