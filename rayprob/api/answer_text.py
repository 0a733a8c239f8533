"""The `repr` of an answer, whether a model or a server gave it."""

from collections.abc import Iterable, Mapping
from typing import Protocol

from rayprob.text import printable


class AnyAnswer(Protocol):
    """The fields that are shown."""

    @property
    def name(self) -> str: ...
    @property
    def label_set(self) -> tuple[str, ...]: ...
    @property
    def rule(self) -> str: ...
    @property
    def evidence(self) -> Mapping[str, bool]: ...
    @property
    def answers(self) -> Mapping[str, float | None]: ...
    @property
    def guarantee(self) -> str | None: ...
    @property
    def notes(self) -> tuple[str, ...]: ...


def answer_text(answer: AnyAnswer, marginals: Iterable[tuple[str, float]]) -> str:
    """Return an answer as a table of these labels with their marginals, and below it its answers to queries and its notes."""
    marginals, evidence = list(marginals), answer.evidence
    lines = [f"{printable(answer.name)}: {{{', '.join(answer.label_set)}}} by {answer.rule}"]
    width = max((len(label) for label, _ in marginals), default=0)
    for label, marginal in marginals:
        mark = "known" if label in evidence else "in the set" if label in answer.label_set else ""
        lines.append(f"  {label:<{width}}  {marginal:.3f}  {mark}".rstrip())
    lines += [f"  {query} = {'no answer' if p is None else format(p, '.4g')}" for query, p in answer.answers.items()]
    lines += [f"  {note}" for note in ((answer.guarantee,) if answer.guarantee else ()) + answer.notes]
    return "\n".join(lines)
