"""What is divided into splits: units, which are groups of samples that stay together, or single samples; and where each is.

N samples, U units, L labels, K subsets, E pairs of a unit and a label that occurs in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rayprob.arrays import Bools, Ints
from rayprob.data.manifest.columns import Ragged
from rayprob.seeds import derive_all

FREE = -1  # in no subset yet


@dataclass(frozen=True, eq=False)
class Units:
    """U units in the order of their ids, and their labels: `counts_E` samples of `units_E` have the label `labels_E`."""

    sizes_U: Ints  # in samples
    ranks_U: Ints  # by a hash of the id: the order in which units that count alike are dealt out
    units_E: Ints  # ascending
    labels_E: Ints
    counts_E: Ints
    num_labels: int

    @classmethod
    def of(cls, ids_N: Ints, labels: Ragged, seed: int = 0) -> tuple["Units", Ints]:
        """Return the units of samples, those of one id being one unit, and the unit of each sample [N]."""
        ids_U, unit_N, sizes_U = np.unique(ids_N, return_inverse=True, return_counts=True)
        num_labels = int(labels.values.max(initial=0)) + 1
        pairs = np.repeat(unit_N, np.diff(labels.starts)) * num_labels + labels.values
        pairs_E, counts_E = np.unique(pairs, return_counts=True)
        hashes_U = derive_all(seed, "stratify", last=ids_U)
        ranks_U = np.argsort(np.argsort(hashes_U, kind="stable"))
        return cls(sizes_U, ranks_U, *np.divmod(pairs_E, num_labels), counts_E, num_labels), unit_N

    def __len__(self) -> int:
        return len(self.sizes_U)


def sides_of_units(unit_N: Ints, num_units: int, assigned_N: Ints) -> Ints:
    """Return the subset that a sample of each unit is assigned to, the last one where they differ; FREE without any [U]."""
    side_U = np.full(num_units, FREE)
    np.maximum.at(side_U, unit_N, assigned_N)
    return side_U


def followed(unit_ids_N: Ints, assigned_N: Ints) -> Ints:
    """Return the subset of each sample that is assigned, or whose unit has samples that are; FREE for the others [N]."""
    if (assigned_N == FREE).all():
        return assigned_N
    ids_U, unit_N = np.unique(unit_ids_N, return_inverse=True)
    return np.where(assigned_N == FREE, sides_of_units(unit_N, len(ids_U), assigned_N)[unit_N], assigned_N)


class Division:
    """Units in K subsets, with what each subset still needs to hold its fraction of every label, and of the samples.

    `need_KL` and `need_K` are in samples, negative where a subset has more than its fraction; `held_KL` is in units.
    """

    def __init__(self, units: Units, fractions: Sequence[float]) -> None:
        self.units = units
        self.num_subsets = len(fractions)
        fractions_K = np.array(fractions) / sum(fractions)
        samples_L = np.bincount(units.labels_E, weights=units.counts_E, minlength=units.num_labels)
        self.share_KL = np.outer(fractions_K, samples_L)
        self.share_K = fractions_K * units.sizes_U.sum()
        self.need_KL, self.need_K = self.share_KL.copy(), self.share_K.copy()
        self.units_L = np.bincount(units.labels_E, minlength=units.num_labels)
        self.held_KL = np.zeros_like(self.need_KL, dtype=np.int64)
        self.side_U = np.full(len(units), FREE)
        self._starts_U = np.searchsorted(units.units_E, np.arange(len(units) + 1))
        self._by_label = np.argsort(units.labels_E, kind="stable")
        self._starts_L = np.concatenate([[0], np.cumsum(self.units_L)])

    @property
    def missing_KL(self) -> Bools:
        """True where a subset holds no unit with a label that occurs in enough units for all subsets."""
        missing: Bools = (self.held_KL == 0) & (self.units_L >= self.num_subsets)
        return missing

    def entries_of_label(self, label: int) -> Ints:
        """Return the numbers of the pairs with a label."""
        return self._by_label[self._starts_L[label] : self._starts_L[label + 1]]

    def entries_of_units(self, units: Ints) -> tuple[Ints, Ints]:
        """Return the numbers of the pairs with some units, and of each pair the place of its unit in `units`."""
        lengths = self._starts_U[units + 1] - self._starts_U[units]
        into = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return np.repeat(self._starts_U[units], lengths) + into, np.repeat(np.arange(len(units)), lengths)

    def put(self, units: Ints, sides: Ints) -> None:
        """Put free units into subsets."""
        self._count(units, sides, 1)
        self.side_U[units] = sides

    def move(self, units: Ints, sides: Ints) -> None:
        """Put units into other subsets than they are in."""
        self._count(units, self.side_U[units], -1)
        self.put(units, sides)

    def _count(self, units: Ints, sides: Ints, sign: int) -> None:
        entries, places = self.entries_of_units(units)
        cells, shape = sides[places] * self.units.num_labels + self.units.labels_E[entries], self.need_KL.shape
        samples = np.bincount(cells, weights=self.units.counts_E[entries], minlength=self.need_KL.size)
        self.need_KL -= sign * samples.reshape(shape)
        self.held_KL += sign * np.bincount(cells, minlength=self.need_KL.size).reshape(shape)
        self.need_K -= sign * np.bincount(sides, weights=self.units.sizes_U[units], minlength=self.num_subsets)
