"""Components of a chunk of images in the layout that queries read, one label at a time. L labels, K components, B images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayprob.arrays import Floats
from rayprob.probability.distributions.arithmetic import NUMBERS, Arithmetic
from rayprob.probability.distributions.counts import count_probabilities

COUNTS_KEPT = 8


@dataclass(frozen=True, eq=False)
class Components:
    """Mixing weights, and P(present) and P(absent) of the queried labels; labels are independent within a component.

    Both probabilities are kept because 1 - P(present) loses its digits where a label is almost certain. Inputs and results are
    numbers or logarithms, as `arithmetic` defines.
    """

    log_weight_KB: Floats
    present: Mapping[int, Floats]  # column -> [K, B], or [K, 1] where it is the same for all images
    absent: Mapping[int, Floats]
    arithmetic: Arithmetic
    _counts: dict[tuple[tuple[int, ...], int], Floats] = field(default_factory=dict)

    @classmethod
    def of(
        cls, log_weight_BK: Floats, columns: Sequence[int], logits_BKC: NDArray[Any], arithmetic: Arithmetic = NUMBERS
    ) -> "Components":
        """Return components, contiguous, with the logits of `columns`: [1, K, C] where they are the same for all images."""
        logits_CKB = np.ascontiguousarray(logits_BKC.transpose(2, 1, 0), dtype=np.float64)
        present, absent = (dict(zip(columns, state_CKB, strict=True)) for state_CKB in arithmetic.states(logits_CKB))
        return cls(np.ascontiguousarray(log_weight_BK.T), present, absent, arithmetic)

    @cached_property
    def weight_KB(self) -> Floats:
        """Mixing weights; they sum to 1 over components."""
        return np.asarray(self.arithmetic.of_log(self.log_weight_KB))

    def joint(self, literals: Mapping[int, bool], weight_KB: Floats) -> Floats:
        """Return weight x P(every label is as stated) [K, B]."""
        for literal in literals.items():
            weight_KB = self.arithmetic.times(weight_KB, self._literal(*literal))
        return weight_KB

    def total(self, literals: Mapping[int, bool], weight_KB: Floats) -> Floats:
        """Return `joint` summed over components [B]."""
        if not literals or self.arithmetic is not NUMBERS:
            return self.arithmetic.total(self.joint(literals, weight_KB), 0)
        *others, last = literals.items()  # on plain numbers, the last product and the sum take one pass
        return np.asarray(np.einsum("kb,kb->b", self.joint(dict(others), weight_KB), self._literal(*last)))

    def _literal(self, column: int, is_present: bool) -> Floats:
        return (self.present if is_present else self.absent)[column]

    def counts(self, columns: Sequence[int], cap: int) -> Floats:
        """Return P(number of `columns` present = n) [cap + 1, K, B or 1]; the last entry is P(n >= cap). Cached."""
        key = (tuple(columns), cap)
        if key not in self._counts:
            if len(self._counts) == COUNTS_KEPT:
                self._counts.pop(next(iter(self._counts)))
            present_L, absent_L = [self.present[c] for c in columns], [self.absent[c] for c in columns]
            self._counts[key] = count_probabilities(present_L, absent_L, cap, self.arithmetic)
        return self._counts[key]
