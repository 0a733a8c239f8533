"""An expression prepared for evaluation: its truth in every case, as a decision diagram. K components, B images.

A case states which of the expression's own labels are present, and how many of the other labels that it counts. Labels that are
already fixed are not part of a case. The truth table over the own labels is folded into an ordered decision diagram (Bryant
1986), so that its probability costs one step per node rather than per case: `a | b | c | ...` has one node per label.
"""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayprob.arrays import Floats
from rayprob.errors import QueryError
from rayprob.probability.distributions.arithmetic import Arithmetic
from rayprob.probability.distributions.components import Components
from rayprob.probability.queries.expression import And, Count, Exactly, Expression, Label, Not, Or, labels_of

MOST_CASES = 2**20
COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne}


@dataclass(frozen=True, eq=False)
class Cell:
    """Labels that belong to the same counts: only the number of them that are present matters, up to `cap`."""

    columns: tuple[int, ...]
    cap: int


@dataclass(frozen=True, eq=False)
class Cases:
    """A conjunction of expressions: decision diagrams over its own labels, one for each way in which the counts matter."""

    own: tuple[int, ...]
    levels: tuple[tuple[tuple[int, int], ...], ...]  # for each own label, (node if absent, node if present); leaves 0 and 1
    roots: tuple[int, ...]
    cells: tuple[Cell, ...]
    root_of_counts: tuple[tuple[tuple[int, ...], int], ...]  # (count in each cell, place in roots), where it can be true

    @property
    def columns(self) -> set[int]:
        """Columns whose probabilities are needed."""
        return set(self.own).union(*(cell.columns for cell in self.cells))

    @property
    def never(self) -> bool:
        """Whether no case makes the expression true."""
        return not self.root_of_counts

    def probability(self, components: Components) -> Floats | float:
        """Return P(true) [K, B] in every component, in the arithmetic of the components."""
        arithmetic = components.arithmetic
        values: list[Floats | float] = [arithmetic.zero, arithmetic.one]
        for column, nodes in zip(reversed(self.own), self.levels, strict=True):
            present, absent = components.present[column], components.absent[column]
            values = [_either(arithmetic, absent, values[low], present, values[high]) for low, high in nodes]
        counts = [components.counts(cell.columns, cell.cap) for cell in self.cells]
        weights: list[Floats | float] = [arithmetic.zero] * len(self.roots)
        for numbers, place in self.root_of_counts:
            ways = reduce(arithmetic.times, [count[n] for count, n in zip(counts, numbers, strict=True)], arithmetic.one)
            weights[place] = arithmetic.plus(weights[place], ways)
        terms = [arithmetic.times(weight, values[root]) for weight, root in zip(weights, self.roots, strict=True)]
        return reduce(arithmetic.plus, terms, arithmetic.zero)


def cases_of(parts: Sequence[Expression], fixed: Mapping[int, bool], num_labels: int) -> Cases:
    """Return the cases in which all parts are true, once the `fixed` labels are present or absent.

    Raises QueryError if there are more than MOST_CASES.
    """
    parts = [_without_exactly(part, num_labels) for part in parts]
    own = tuple(sorted(set().union(*(labels_of(part) for part in parts)) - fixed.keys()))
    cells = _cells(parts, set(own) | fixed.keys(), num_labels)
    num_counts = int(np.prod([cell.cap + 1 for cell in cells], dtype=object))
    if num_counts * 2 ** len(own) > MOST_CASES:
        counted = f" and {num_counts:,} cases of its counts" if cells else ""
        raise QueryError(
            f"an expression joins {len(own)} labels{counted}: more than {MOST_CASES:,} cases to enumerate; "
            "ask for parts of it, or write count{...} for labels that are alike"
        )
    grid = _Grid(own, fixed, cells)
    table_NA = _truth(And(tuple(parts)), grid)
    return _fold(np.broadcast_to(table_NA, (num_counts, 2 ** len(own))), own, cells)


class _Grid:
    """All cases: N combinations of counts in rows, A = 2^len(own) assignments of the own labels in columns."""

    def __init__(self, own: tuple[int, ...], fixed: Mapping[int, bool], cells: tuple[Cell, ...]) -> None:
        bits_CA = np.arange(2 ** len(own)) >> np.arange(len(own))[::-1, None] & 1
        self.present: dict[int, Any] = {column: bits[None] for column, bits in zip(own, bits_CA, strict=True)}
        self.present |= {column: np.full((1, 1), int(is_present)) for column, is_present in fixed.items()}
        numbers_NC = np.array(list(product(*(range(cell.cap + 1) for cell in cells))), dtype=np.int64)
        self.cells = [(set(cell.columns), numbers_N1) for cell, numbers_N1 in zip(cells, numbers_NC.T[:, :, None], strict=True)]

    def count(self, group: set[int]) -> Any:
        """Return the number of labels of `group` present in each case, capped above every number that it is compared with."""
        own = sum((bits for column, bits in self.present.items() if column in group), start=np.zeros((1, 1), dtype=int))
        return own + sum(numbers_N1 for columns, numbers_N1 in self.cells if columns <= group)


def _truth(part: Expression, grid: _Grid) -> Any:
    """Return in which cases an expression is true, bool [N or 1, A or 1]."""
    match part:
        case Label():
            return grid.present[part.column].astype(bool)
        case Not():
            return ~_truth(part.part, grid)
        case And():
            return np.logical_and.reduce(np.broadcast_arrays(*(_truth(inner, grid) for inner in part.parts)))
        case Or():
            return np.logical_or.reduce(np.broadcast_arrays(*(_truth(inner, grid) for inner in part.parts)))
        case Count():
            assert part.group is not None
            return COMPARE[part.comparison](grid.count({label.column for label in part.group}), part.number)
        case Exactly():
            raise AssertionError("rewritten by _without_exactly")


def _without_exactly(part: Expression, num_labels: int) -> Expression:
    """Return the expression with every `exactly` as two counts, and every count with its group."""
    match part:
        case Not():
            return Not(_without_exactly(part.part, num_labels))
        case And() | Or():
            return type(part)(tuple(_without_exactly(inner, num_labels) for inner in part.parts))
        case Count(group=None):
            return Count(tuple(Label(column, "") for column in range(num_labels)), part.comparison, part.number)
        case Exactly():
            named = {label.column for label in part.group}
            others = tuple(Label(column, "") for column in range(num_labels) if column not in named)
            return And((Count(part.group, "==", len(part.group)), Count(others, "==", 0)))
        case _:
            return part


def _counts_in(part: Expression) -> list[Count]:
    match part:
        case Count():
            return [part]
        case Not():
            return _counts_in(part.part)
        case And() | Or():
            return [count for inner in part.parts for count in _counts_in(inner)]
        case _:
            return []


def _cells(parts: Sequence[Expression], apart: set[int], num_labels: int) -> tuple[Cell, ...]:
    """Return the counted labels without those in `apart`, partitioned by the groups that contain them."""
    counts = [count for part in parts for count in _counts_in(part)]
    groups = [{label.column for label in count.group or ()} for count in counts]
    by_groups: dict[tuple[int, ...], list[int]] = {}
    for column in sorted(set().union(*groups) - apart):
        by_groups.setdefault(tuple(place for place, group in enumerate(groups) if column in group), []).append(column)
    caps = [max(counts[place].number for place in places) + 1 for places in by_groups]
    return tuple(Cell(tuple(columns), min(cap, len(columns))) for columns, cap in zip(by_groups.values(), caps, strict=True))


def _fold(table_NA: NDArray[np.bool_], own: tuple[int, ...], cells: tuple[Cell, ...]) -> Cases:
    """Fold a truth table into decision diagrams, from the last label to the first; equal subtables become one node."""
    _, first_U, root_N = np.unique(np.packbits(table_NA, axis=1), axis=0, return_index=True, return_inverse=True)
    nodes_UA, num_nodes = table_NA[first_U].astype(np.int64), 2
    levels = []
    for _ in own:
        pairs = nodes_UA[:, 0::2] * num_nodes + nodes_UA[:, 1::2]
        distinct, places = np.unique(pairs, return_inverse=True)
        levels.append(tuple((int(pair) // num_nodes, int(pair) % num_nodes) for pair in distinct))
        nodes_UA, num_nodes = places.reshape(pairs.shape), len(distinct)
    numbers = product(*(range(cell.cap + 1) for cell in cells))
    possible_N: NDArray[np.bool_] = np.any(table_NA, axis=1).reshape(-1)
    root_of_counts = tuple(
        (n, int(root)) for n, root, possible in zip(numbers, root_N.ravel(), possible_N, strict=True) if possible
    )
    return Cases(own, tuple(levels), tuple(nodes_UA[:, 0].tolist()), cells, root_of_counts)


def _either(
    arithmetic: Arithmetic, absent: Floats, low: Floats | float, present: Floats, high: Floats | float
) -> Floats | float:
    if low is high:
        return low
    if isinstance(low, float) and low == arithmetic.zero:
        return present if isinstance(high, float) else arithmetic.times(present, high)
    if isinstance(high, float) and high == arithmetic.zero:
        return absent if isinstance(low, float) else arithmetic.times(absent, low)
    either: Floats = arithmetic.plus(arithmetic.times(absent, low), arithmetic.times(present, high))
    return either
