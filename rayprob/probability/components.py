"""A chunk of images as queries walk over it: label by label. L labels, K components, B images; arrays [K, B]."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayprob.probability.bernoulli import count_probabilities, present_and_absent

Floats = NDArray[np.float64]

COUNTS_KEPT = 8
SAFE = 1e-250  # a product below this may have lost digits to underflow


@dataclass(frozen=True, eq=False)
class Components:
    """Mixing weights, and P(present) and P(absent) of the labels asked for; labels are independent inside a component.

    Both probabilities are kept, as 1 - P(present) has no digits left where a label is all but certain.
    """

    log_weight_KB: Floats
    present: Mapping[int, Floats]  # column -> [K, B]
    absent: Mapping[int, Floats]
    _counts: dict[tuple[tuple[int, ...], int], Floats] = field(default_factory=dict)

    @classmethod
    def from_logits(cls, log_mixing_BK: Floats, logits_BKL: NDArray[Any], columns: Iterable[int]) -> "Components":
        """Lay the columns of a chunk out so that a query reads only the labels it names, in a row."""
        chosen = sorted(columns)
        logits_CKB = np.ascontiguousarray(logits_BKL[:, :, chosen].transpose(2, 1, 0), dtype=np.float64)
        present, absent = present_and_absent(logits_CKB)
        log_weight_KB = np.ascontiguousarray(log_mixing_BK.T)
        return cls(log_weight_KB, dict(zip(chosen, present, strict=True)), dict(zip(chosen, absent, strict=True)))

    @cached_property
    def weight_KB(self) -> Floats:
        """Mixing weights; they sum to 1 over components."""
        return np.asarray(np.exp(self.log_weight_KB))

    def joint(self, literals: Mapping[int, bool], weight_KB: Floats) -> Floats:
        """Return weight x P(every label is as stated) [K, B]."""
        for literal in literals.items():
            weight_KB = weight_KB * self._literal(*literal)
        return weight_KB

    def total(self, literals: Mapping[int, bool], weight_KB: Floats) -> Floats:
        """Return `joint` summed over components [B], the last product and the sum in one pass."""
        if not literals:
            return np.asarray(weight_KB.sum(axis=0))
        *others, last = literals.items()
        return np.asarray(np.einsum("kb,kb->b", self.joint(dict(others), weight_KB), self._literal(*last)))

    def given(self, literals: Mapping[int, bool]) -> tuple[Floats, Floats]:
        """Return P(component, literals) [K, B] and its sum over components [B], both times a positive factor an image.

        The factor is 1 unless the literals are so unlikely that a product would lose digits.
        """
        joint_KB = self.joint(literals, self.weight_KB)
        total_B = joint_KB.sum(axis=0)
        if total_B.min(initial=1) > SAFE:
            return joint_KB, total_B
        with np.errstate(divide="ignore", invalid="ignore"):
            log_KB = self.log_weight_KB + sum(np.log(self._literal(*literal)) for literal in literals.items())
            joint_KB = np.nan_to_num(np.exp(log_KB - log_KB.max(axis=0)))
        return joint_KB, joint_KB.sum(axis=0)

    def _literal(self, column: int, is_present: bool) -> Floats:
        return (self.present if is_present else self.absent)[column]

    def counts(self, columns: Sequence[int], cap: int) -> Floats:
        """Return P(number of `columns` present = n) [cap + 1, K, B], the last holding n >= cap; kept for a while."""
        key = (tuple(columns), cap)
        if key not in self._counts:
            if len(self._counts) == COUNTS_KEPT:
                self._counts.pop(next(iter(self._counts)))
            present_L, absent_L = [self.present[c] for c in columns], [self.absent[c] for c in columns]
            self._counts[key] = count_probabilities(present_L, absent_L, cap)
        return self._counts[key]
