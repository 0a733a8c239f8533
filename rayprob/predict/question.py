"""The question for every image: queries, evidence, a rule for label sets, and how many labels and sets to list."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rayprob.errors import QueryError
from rayprob.labels import LabelSpace
from rayprob.probability.decisions.rules import RECALL
from rayprob.probability.distributions.evidence import known_labels, parse_evidence
from rayprob.probability.queries.answer import Query, parse
from rayprob.probability.queries.expression import Label, Not
from rayprob.runs.bundle import Bundle

DEFAULT_RULES = ("label_OF1", "global_OF1", "best_F1")  # the first that the bundle has; every bundle has the last


@dataclass(frozen=True)
class Question:
    """Queries as asked, evidence {column: is present}, the rule for label sets, and how many labels and sets to list."""

    queries: tuple[Query, ...]
    evidence: Mapping[int, bool]
    label_space: LabelSpace
    rule: str
    top: int

    @classmethod
    def of(
        cls,
        bundle: Bundle,
        *,
        queries: Sequence[str] = (),
        evidence: Sequence[str] | Mapping[str, bool] = (),
        rule: str | None = None,
        top: int = 5,
    ) -> "Question":
        """Read a question in the label names of `bundle`; every error in it is raised here, before any image is read.

        Evidence is a list of texts such as `dining table=1`, or a mapping from label names to whether they are present.
        Raises QueryError for wrong syntax, an unknown label or rule, and contradictory evidence; LabelError for an unknown
        label in the evidence.
        """
        if top < 1:
            raise QueryError(f"--top must be at least 1; got {top}")
        space = bundle.label_space
        known = known_labels(evidence, space) if isinstance(evidence, Mapping) else parse_evidence(evidence, space)
        asked = tuple(dict.fromkeys(parse(text, space) for text in queries))
        rule = rule or default_rule(bundle)
        bundle.require_rule(rule)
        question = cls(asked, known, space, rule, top)
        question.given_evidence()
        return question

    @property
    def evidence_names(self) -> dict[str, bool]:
        """The evidence by label name."""
        return {self.label_space.names[column]: is_present for column, is_present in self.evidence.items()}

    def given_evidence(self) -> tuple[Query, ...]:
        """Return the queries with the evidence added to their conditions: equivalent, on the unconditioned distribution.

        Raises QueryError if a query's own evidence contradicts it.
        """
        return tuple(self._given(query) for query in self.queries)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        queries = [str(query) for query in self.queries]
        return {"queries": queries, "evidence": dict(self.evidence_names), "rule": self.rule, "top": self.top}

    def _given(self, query: Query) -> Query:
        labels = {column: Label(column, self.label_space.names[column]) for column in self.evidence}
        stated = (labels[column] if is_present else Not(labels[column]) for column, is_present in self.evidence.items())
        return parse(str(Query(query.event, (*query.given, *stated), self.label_space)), self.label_space)


def default_rule(bundle: Bundle) -> str:
    """Return the rule that chooses label sets by default: the best one that the bundle has."""
    return next(name for name in DEFAULT_RULES if name in bundle.rules)


def guarantee_of(bundle: Bundle, rule: str) -> str | None:
    """Return a sentence on what a rule's label sets guarantee, or None if it guarantees nothing."""
    alpha = rule.removeprefix(RECALL)
    if not rule.startswith(RECALL) or alpha not in bundle.guarantees:
        return None
    return bundle.guarantees[alpha].words
