"""A query as a tree of labels, not, and, or, and counts: immutable, compared by value, printed in query syntax."""

import re
from dataclasses import dataclass
from itertools import chain
from typing import TypeAlias

from rayprob.labels import LabelSpace

RESERVED = re.compile(r'[&|!(){},<>="]')
KEYWORDS = ("count", "exactly")
QUOTE = '"'


def is_plain(name: str) -> bool:
    """Return whether a label's name needs no quotes in a query."""
    return name not in ("", *KEYWORDS) and not RESERVED.search(name) and name == " ".join(name.split())


def quoted(name: str) -> str:
    """Return a label's name in quotes, with quotes inside it doubled; queries and evidence accept any name in this form."""
    return f'"{name.replace(QUOTE, 2 * QUOTE)}"'


@dataclass(frozen=True)
class Label:
    """One label is present."""

    column: int
    name: str

    def __str__(self) -> str:
        return self.name if is_plain(self.name) else quoted(self.name)


@dataclass(frozen=True)
class Not:
    """`part` does not hold."""

    part: "Expression"

    def __str__(self) -> str:
        return f"!({self.part})" if isinstance(self.part, And | Count) else f"!{self.part}"


@dataclass(frozen=True)
class And:
    """All `parts` hold."""

    parts: tuple["Expression", ...]

    def __str__(self) -> str:
        return " & ".join(f"({part})" if isinstance(part, And) else str(part) for part in self.parts)


@dataclass(frozen=True)
class Or:
    """At least one of `parts` holds. It is always printed in parentheses, since a bare bar means `given`."""

    parts: tuple["Expression", ...]

    def __str__(self) -> str:
        return f"({' | '.join(str(part) for part in self.parts)})"


@dataclass(frozen=True)
class Count:
    """A comparison of the number of present labels, in `group` or (if None) in all labels, with `number`."""

    group: tuple[Label, ...] | None
    comparison: str
    number: int

    def __str__(self) -> str:
        return f"count{'' if self.group is None else _braced(self.group)} {self.comparison} {self.number}"


@dataclass(frozen=True)
class Exactly:
    """The labels of a group are present, and no other label is."""

    group: tuple[Label, ...]

    def __str__(self) -> str:
        return f"exactly {_braced(self.group)}"


Expression: TypeAlias = Label | Not | And | Or | Count | Exactly


@dataclass(frozen=True)
class Query:
    """P(event | given), over the labels of `label_space`; all expressions of `given` hold."""

    event: Expression
    given: tuple[Expression, ...]
    label_space: LabelSpace

    def __str__(self) -> str:
        return f"P({self.event}{' | ' if self.given else ''}{', '.join(map(str, self.given))})"


def literal(expression: Expression) -> tuple[int, bool] | None:
    """Return (column, is present) if the expression is one label or its negation, else None."""
    match expression:
        case Label(column=column):
            return column, True
        case Not(part=Label(column=column)):
            return column, False
        case _:
            return None


def conjuncts(expression: Expression) -> list[Expression]:
    """Return the parts that must all hold for the expression to hold."""
    if isinstance(expression, And):
        return list(chain.from_iterable(conjuncts(part) for part in expression.parts))
    return [expression]


def labels_of(expression: Expression) -> set[int]:
    """Return the columns of the labels that occur in the expression outside of counts."""
    if isinstance(expression, Label):
        return {expression.column}
    if isinstance(expression, Not):
        return labels_of(expression.part)
    if isinstance(expression, And | Or):
        return set().union(*(labels_of(part) for part in expression.parts))
    return set()


def _braced(group: tuple[Label, ...]) -> str:
    return "{" + ", ".join(str(label) for label in group) + "}"
