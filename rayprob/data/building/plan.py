"""Which sample goes into which shard: a pure function of the samples' ids and sizes and of the recipe. N samples of a split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import overload

import numpy as np

from rayprob.arrays import Ints, Rows
from rayprob.data.building.recipe import Recipe
from rayprob.data.building.splits import check_groups, split_rows
from rayprob.data.sources.batch_file import BatchFile, arranged
from rayprob.data.sources.image import SourceImage, SourceImages, images_in
from rayprob.seeds import derive_all


@dataclass(frozen=True)
class ShardPlan:
    """One shard to be: its file name, its split, the split of the source that its images come from, and its samples."""

    name: str
    split: str
    source: str
    samples: tuple[SourceImage, ...]


@dataclass(frozen=True)
class Outline:
    """What is known of a shard without its samples, and where these lie."""

    name: str
    split: str
    source: str
    place: int  # of its batch among those of its source
    num_samples: int
    size_bytes: int  # of its images


class Plan(Sequence[ShardPlan]):
    """The shards of all splits; the samples of a shard are read from disk when it is asked for."""

    def __init__(self, outlines: Sequence[Outline], batches: Mapping[str, BatchFile]) -> None:
        self.outlines = outlines
        self._batches = batches

    def __len__(self) -> int:
        return len(self.outlines)

    @overload
    def __getitem__(self, place: int) -> ShardPlan: ...
    @overload
    def __getitem__(self, place: slice) -> "Plan": ...
    def __getitem__(self, place: "int | slice") -> "ShardPlan | Plan":
        if isinstance(place, slice):
            return self.of(self.outlines[place])
        shard = self.outlines[place]
        return ShardPlan(shard.name, shard.split, shard.source, images_in(self._batches[shard.source][shard.place]))

    def of(self, outlines: Sequence[Outline]) -> "Plan":
        """Return the plan of some of the shards."""
        return Plan(outlines, self._batches)


def plan(images: Mapping[str, SourceImages], recipe: Recipe, label_names: Sequence[str] = ()) -> Plan:
    """Return the shards of every split, each sample in exactly one of them.

    A shard is a random subset of its split, all shards of a split differ by at most one sample, and the order of the
    annotations file plays no part. Raises SourceError where a split would be empty, or has images of another one's group.
    """
    rows_of = {source: split_rows(source, members, recipe, label_names) for source, members in images.items()}
    check_groups(images, rows_of)
    outlines: list[Outline] = []
    batches: dict[str, BatchFile] = {}
    for source, members in images.items():
        orders, ends, first = [], list[int](), 0
        for split, rows in rows_of[source].items():
            order = _shuffled(members.ids_N, rows, recipe.seed)
            cuts = _cuts(members.size_bytes_N[order], recipe)
            outlines += _outlined(split, source, members.size_bytes_N[order], cuts, len(ends))
            orders.append(order)
            ends += [first + end for end in cuts[1:]]
            first += len(order)
        batches[source] = arranged(members.batches, np.concatenate(orders), ends)
    return Plan(outlines, batches)


def _shuffled(ids_N: Ints, rows: Rows, seed: int) -> Rows:
    """Return rows in the order of a hash of their ids."""
    ids = ids_N[rows]
    return rows[np.lexsort((ids, derive_all(seed, "shard", last=ids)))]


def _cuts(size_bytes_N: Ints, recipe: Recipe) -> list[int]:
    """Return where the shards of a split begin and end among its samples."""
    num_samples = len(size_bytes_N)
    num_shards = max(ceil(int(size_bytes_N.sum()) / recipe.shard_bytes), ceil(num_samples / recipe.max_shard_samples))
    num_shards = min(num_shards, num_samples)
    return [num_samples * place // num_shards for place in range(num_shards + 1)] if num_shards else [0]


def _outlined(split: str, source: str, size_bytes_N: Ints, cuts: Sequence[int], first: int) -> list[Outline]:
    return [
        Outline(f"{split}-{number:06d}.tar", split, source, first + number, end - start, int(size_bytes_N[start:end].sum()))
        for number, (start, end) in enumerate(pairwise(cuts))
    ]
