"""A chunk of images as queries walk over it: label by label. L labels, K components, B images; arrays [K, B]."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from rayprob.probability.bernoulli import count_probabilities

Floats = NDArray[np.float64]

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
        present, absent = expit(logits_CKB), expit(-logits_CKB)
        log_weight_KB = np.ascontiguousarray(log_mixing_BK.T)
        return cls(log_weight_KB, dict(zip(chosen, present, strict=True)), dict(zip(chosen, absent, strict=True)))

    @cached_property
    def weight_KB(self) -> Floats:
        """Mixing weights; they sum to 1 over components."""
        return np.asarray(np.exp(self.log_weight_KB))

    def joint(self, literals: Mapping[int, bool], weight_KB: Floats) -> Floats:
        """Return weight x P(every label is as stated) [K, B]."""
        for column, is_present in literals.items():
            weight_KB = weight_KB * (self.present if is_present else self.absent)[column]
        return weight_KB

    def given(self, literals: Mapping[int, bool]) -> Floats:
        """Return P(component | literals) [K, B] times a positive factor an image; all 0 where the literals are impossible."""
        joint_KB = self.joint(literals, self.weight_KB)
        if joint_KB.sum(axis=0).min(initial=1) > SAFE:
            return joint_KB
        with np.errstate(divide="ignore", invalid="ignore"):
            log_KB = self.log_weight_KB + sum(np.log(self.joint({c: literals[c]}, np.ones(1))) for c in literals)
            return np.asarray(np.nan_to_num(np.exp(log_KB - log_KB.max(axis=0))))

    def counts(self, columns: Sequence[int], cap: int) -> Floats:
        """Return P(number of `columns` present = n) [cap + 1, K, B], the last holding n >= cap; kept for the next query."""
        key = (tuple(columns), cap)
        if key not in self._counts:
            present_L, absent_L = [self.present[c] for c in columns], [self.absent[c] for c in columns]
            self._counts[key] = count_probabilities(present_L, absent_L, cap)
        return self._counts[key]
