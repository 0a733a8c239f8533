"""Which rows of each dataset an epoch takes, so that its samples are seen as often as its weight says. S shards, P pieces.

The samples of a dataset form a ring, shard by shard, and each epoch takes the next ones of it, as many as its weight says: with
0.5 the first half, then the second; with 2 all of them twice. So a sample occurs in an epoch as often as every other one of its
dataset, or once more, and after the same number of turns of the ring equally often. A turn is one time around.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rayprob.arrays import Rows
from rayprob.data.joined.dataset import AnySplit
from rayprob.seeds import derive


@dataclass(frozen=True, eq=False)
class Ring:
    """A dataset's shards, and how many samples of it one epoch takes."""

    samples_per_shard_S: Rows
    samples_per_epoch: int

    @property
    def num_samples(self) -> int:
        """How many samples a turn takes."""
        return int(self.samples_per_shard_S.sum())


@dataclass(frozen=True, eq=False)
class Pieces:
    """Shards and parts of shards: how many samples each has, and its first row plus turn x `num_rows`, in one number."""

    samples_P: Rows
    firsts_P: Rows
    num_rows: int

    def turns_and_rows(self, numbers: Rows) -> tuple[Rows, Rows]:
        """Return the turn and the row of each number that counts on from a first one."""
        return numbers // self.num_rows, numbers % self.num_rows

    def rows(self) -> Rows:
        """Return the row of every sample, piece by piece."""
        begins_P = np.cumsum(self.samples_P) - self.samples_P
        numbers = np.arange(self.samples_P.sum()) + np.repeat(self.firsts_P - begins_P, self.samples_P)
        return self.turns_and_rows(numbers)[1]


def split_pieces(split: AnySplit, *, seed: int, epoch: int) -> Pieces:
    """Return what an epoch takes of a split."""
    rings = [Ring(member.manifest.samples_per_shard(), member.samples_per_epoch) for member in split.members]
    return pieces_of(rings, seed=seed, epoch=epoch)


def samples_per_epoch(split: AnySplit) -> int:
    """Return the number of samples of a split in one epoch."""
    return sum(member.samples_per_epoch for member in split.members)


def pieces_of(rings: Sequence[Ring], *, seed: int, epoch: int) -> Pieces:
    """Return what an epoch takes of datasets whose rows lie one after the other. Of one with weight 1: its shards in order."""
    num_rows, first_row = sum(ring.num_samples for ring in rings), 0
    found: list[tuple[Rows, Rows]] = []
    for place, ring in enumerate(rings):
        starts_S = first_row + np.cumsum(ring.samples_per_shard_S) - ring.samples_per_shard_S
        for turn, from_S, to_S in _turns(ring, derive(seed, "ring", place), epoch):
            taken_S = (to_S > from_S) | (ring.samples_per_shard_S == 0)
            found.append(((to_S - from_S)[taken_S], (turn * num_rows + starts_S + from_S)[taken_S]))
        first_row += ring.num_samples
    samples, firsts = zip(*found, strict=True)
    return Pieces(np.concatenate(samples), np.concatenate(firsts), num_rows)


def _turns(ring: Ring, seed: int, epoch: int) -> Iterator[tuple[int, Rows, Rows]]:
    """Yield each turn that an epoch takes part of, and from which to which of its samples it takes each shard."""
    lengths_S, num_samples = ring.samples_per_shard_S, max(1, ring.num_samples)
    begin, end = epoch * ring.samples_per_epoch, (epoch + 1) * ring.samples_per_epoch
    order_S = np.arange(len(lengths_S))
    if ring.samples_per_epoch % num_samples:
        # Neighbouring shards may hold what is alike, and whole turns take all of them in any order.
        order_S = np.argsort(np.random.PCG64(seed).random_raw(len(lengths_S)), kind="stable")
    before_S = np.empty_like(lengths_S)
    before_S[order_S] = np.cumsum(lengths_S[order_S]) - lengths_S[order_S]
    for turn in range(begin // num_samples, -(-end // num_samples)):
        from_S, to_S = (np.clip(at - turn * num_samples - before_S, 0, lengths_S) for at in (begin, end))
        yield turn, from_S, to_S
