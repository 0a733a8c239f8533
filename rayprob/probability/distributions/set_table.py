"""A table of label sets that many images share, with what is computed for all of them at once. B images, S sets, L labels."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import log_expit

from rayprob.arrays import Bools, Floats, Ints


@dataclass(frozen=True, eq=False)
class SetTable:
    """S label sets, sets_SL; what is computed from them by matrix products takes no array of images, sets and labels."""

    sets_SL: Bools

    def __len__(self) -> int:
        return len(self.sets_SL)

    @cached_property
    def present_SL(self) -> Floats:
        """The sets as numbers."""
        return self.sets_SL.astype(np.float64)

    @cached_property
    def size_S(self) -> Ints:
        """The number of labels in each set."""
        return np.asarray(self.sets_SL.sum(axis=1))

    def agree(self, values_BL: Bools, known_BL: Bools) -> Bools:
        """Return whether each set has every known label as stated [B, S]: it differs from it in no label."""
        present_BL = (values_BL & known_BL).astype(np.float64)
        sign_BL = known_BL - 2 * present_BL  # what a label in the set adds to the number of differences
        return np.asarray(present_BL.sum(axis=1, keepdims=True) + sign_BL @ self.present_SL.T < 0.5)

    def log_prob(self, logits_BL: Floats) -> Floats:
        """Return the log probability [B, S] of each set under independent labels, whose logits may be infinite."""
        is_open_BL = np.isfinite(logits_BL)
        open_BL = np.where(is_open_BL, logits_BL, 0.0)
        none_B1 = log_expit(-open_BL).sum(axis=1, keepdims=True, where=is_open_BL)
        log_BS = np.asarray(none_B1 + open_BL @ self.present_SL.T)
        if not is_open_BL.all():
            log_BS[~self.agree(logits_BL > 0, ~is_open_BL)] = -np.inf
        return log_BS

    def distinct(self) -> tuple["SetTable", Ints]:
        """Return the table without repetitions, and the row in it of each set; the same table if there are none."""
        _, first_U, row_S = np.unique(np.packbits(self.sets_SL, axis=1), axis=0, return_index=True, return_inverse=True)
        if len(first_U) == len(self):
            return self, np.arange(len(self))
        return SetTable(self.sets_SL[first_U]), row_S
