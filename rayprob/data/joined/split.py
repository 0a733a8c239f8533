"""The splits of several datasets as one, with their samples concatenated. N samples, L labels."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rayprob.arrays import Rows
from rayprob.data.manifest.dataset import Manifest, Sample, SplitMember
from rayprob.labels import LabelSpace


@dataclass(frozen=True, eq=False)
class JoinedSplit:
    """The samples of a split of several datasets, with the interface of a `Manifest`.

    A row is a sample's position among all of them. A label that a dataset lacks is unknown for its samples.
    """

    split: str
    label_space: LabelSpace
    members: tuple[SplitMember, ...]
    fingerprint: str  # of the datasets

    def __len__(self) -> int:
        return int(self._ends_M[-1])

    @property
    def root(self) -> str:
        """The roots of all datasets, in words."""
        return " and ".join(member.manifest.root for member in self.members)

    def by_member(self, rows: Rows) -> Iterator[tuple[Rows, int, Rows]]:
        """Yield, for each member with any of the rows, their indices in `rows`, its number, and their rows in its manifest."""
        members_N = np.searchsorted(self._ends_M, rows, side="right")
        for number in np.unique(members_N).tolist():
            places = np.flatnonzero(members_N == number)
            yield places, number, rows[places] - (self._ends_M[number] - len(self.members[number].manifest))

    def samples(self, rows: Rows) -> list[Sample]:
        """Return the samples of the given rows, each with the number of its member."""
        found: list[Sample] = [None] * len(rows)  # type: ignore[list-item]
        for places, number, own in self.by_member(rows):
            member = self.members[number]
            for place, sample in zip(places.tolist(), member.manifest.samples(own), strict=True):
                found[place] = sample._replace(sample_id=sample.sample_id ^ member.id_mask, member=number)
        return found

    def sample(self, row: int) -> Sample:
        """Return the sample of a row."""
        return self.samples(np.array([row], dtype=np.int64))[0]

    def sample_ids(self, rows: Rows | None = None) -> NDArray[np.int64]:
        """Return the sample ids of the given rows, by default all; those of the first dataset are unchanged."""
        rows = self._rows(rows)
        ids = np.empty(len(rows), dtype=np.int64)
        for places, number, own in self.by_member(rows):
            ids[places] = self.members[number].manifest.sample_ids(own) ^ self.members[number].id_mask
        return ids

    @cached_property
    def sample_ids_N(self) -> NDArray[np.int64]:
        """The sample id of every row."""
        return self.sample_ids()

    def targets(self, rows: Rows | None = None) -> NDArray[np.bool_]:
        """Return targets [rows, L] of the given rows, by default all."""
        return self._table(Manifest.targets, self._rows(rows))

    def known(self, rows: Rows | None = None) -> NDArray[np.bool_]:
        """Return which labels are known [rows, L] in the given rows, by default all."""
        return self._table(Manifest.known, self._rows(rows))

    def label_counts(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Count the samples in which each label is present and known, and those in which it is known [L], [L]; unweighted."""
        present_L, known_L = np.zeros((2, len(self.label_space)), dtype=np.int64)
        for member in self.members:
            present, known = member.manifest.label_counts()
            present_L[member.columns] += present
            known_L[member.columns] += known
        return present_L, known_L

    def spread(self, num_rows: int) -> Rows:
        """Return all rows, or in a larger split about `num_rows` evenly spread rows; unweighted."""
        starts = self._ends_M - [len(member.manifest) for member in self.members]
        shares = [max(1, num_rows * len(member.manifest) // max(1, len(self))) for member in self.members]
        if len(self) <= num_rows:
            shares = [max(1, len(member.manifest)) for member in self.members]
        each = zip(starts.tolist(), self.members, shares, strict=True)
        return np.concatenate([start + member.manifest.spread(share) for start, member, share in each])

    def want(self, rows: Rows) -> None:
        """Start reading the given rows in the background."""
        for _, number, own in self.by_member(rows):
            self.members[number].manifest.want(own)

    def _table(self, of: Callable[[Manifest, Rows], NDArray[np.bool_]], rows: Rows) -> NDArray[np.bool_]:
        """Return a table of each member in the columns of all; False where a member has no such column."""
        table = np.zeros((len(rows), len(self.label_space)), dtype=bool)
        for places, number, own in self.by_member(rows):
            member = self.members[number]
            table[np.ix_(places, member.columns)] = of(member.manifest, own)
        return table

    @cached_property
    def _ends_M(self) -> Rows:
        return np.cumsum([len(member.manifest) for member in self.members], dtype=np.int64)

    def _rows(self, rows: Rows | None) -> Rows:
        return np.arange(len(self), dtype=np.int64) if rows is None else rows
