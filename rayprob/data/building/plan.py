"""Which sample goes into which shard: a pure function of the samples' ids and sizes and of the recipe. N samples of a split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import ceil
from typing import overload

import numpy as np

from rayprob.arrays import Ints, Rows
from rayprob.data.building.before import Before
from rayprob.data.building.list_files import COPIES_FILE, REJECTS_FILE
from rayprob.data.building.recipe import Recipe
from rayprob.data.building.splits import NOTHING, check_groups, check_new_of_groups, split_rows
from rayprob.data.manifest.shard_list import shard_name
from rayprob.data.sources.batch_file import BatchFile, arranged
from rayprob.data.sources.image import SourceImage, SourceImages, images_in
from rayprob.errors import DatasetError
from rayprob.seeds import derive_all


@dataclass(frozen=True)
class ShardPlan:
    """One shard to be: its file name, its split, the split of the source that its images come from, and its samples.

    A shard in place has a tar, in which its images lie already. Of several in one tar, one reads all of it: `takes_sha256`.
    """

    name: str
    split: str
    source: str
    samples: tuple[SourceImage, ...]
    tar: str = ""  # as the dataset calls it; "": none, so a tar is written under `name`
    takes_sha256: bool = False

    @property
    def file(self) -> str:
        """The name of the shard in the dataset."""
        return self.tar or self.name


@dataclass(frozen=True)
class Outline:
    """What is known of a shard without its samples, and where the samples are."""

    name: str
    split: str
    source: str
    place: int  # of its batch among those of its source
    num_samples: int
    size_bytes: int  # of its images
    tar: str = ""  # as of ShardPlan
    takes_sha256: bool = False

    @property
    def file(self) -> str:
        """The name of the shard in the dataset."""
        return self.tar or self.name


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
        samples = images_in(self._batches[shard.source][shard.place])
        return ShardPlan(shard.name, shard.split, shard.source, samples, shard.tar, shard.takes_sha256)

    def of(self, outlines: Sequence[Outline]) -> "Plan":
        """Return the plan of some of the shards."""
        return Plan(outlines, self._batches)


def plan(
    images: Mapping[str, SourceImages], recipe: Recipe, label_names: Sequence[str] = (), before: Before | None = None
) -> Plan:
    """Return the shards of every split, each sample in exactly one of them.

    A shard is a random subset of its split, all shards of a split differ by at most one sample, and the order of the
    annotations file is irrelevant. Of a source in place, a shard is what a tar holds of a split. Of a dataset that
    grows, `before`, the shards are those of new images, and their numbers continue. Raises SourceError if a split would be
    empty, or has images of another one's group, and DatasetError where a tar in place has new ones.
    """
    assigned = before.assigned if before else NOTHING
    rows_of = {source: split_rows(source, members, recipe, label_names, assigned) for source, members in images.items()}
    check_groups(images, rows_of)
    outlines: list[Outline] = []
    batches: dict[str, BatchFile] = {}
    for source, members in images.items():
        sharder = (_Tars if recipe.splits[source].in_place else _Shuffle)(source, members, recipe, before)
        orders, of_source = [], list[Outline]()
        for split, rows in rows_of[source].items():
            new = before.unknown_rows(members.ids_N, rows) if before else rows
            check_new_of_groups(split, members, new, assigned)
            order, shards = sharder.shards(split, new, len(of_source))
            orders.append(order)
            of_source += shards
        ends = [*accumulate(shard.num_samples for shard in of_source)]
        batches[source] = arranged(members.batches, np.concatenate(orders), ends)
        outlines += of_source
    return Plan(outlines, batches)


class _Shuffle:
    """Divides the samples of a source at random."""

    def __init__(self, source: str, images: SourceImages, recipe: Recipe, before: Before | None) -> None:
        self.source, self.images, self.recipe, self.before = source, images, recipe, before

    def shards(self, split: str, rows: Rows, place: int) -> tuple[Rows, list[Outline]]:
        """Return the rows of a split shard by shard, and its shards, the first of them at `place`."""
        order = _shuffled(self.images.ids_N, rows, self.recipe.seed)
        size_bytes_N = self.images.size_bytes_N[order]
        first = self.before.next_number(split) if self.before else 0
        return order, [
            Outline(
                name=f"{split}-{first + number:06d}.tar",
                split=split,
                source=self.source,
                place=place + number,
                num_samples=end - start,
                size_bytes=int(size_bytes_N[start:end].sum()),
            )
            for number, (start, end) in enumerate(pairwise(_cuts(size_bytes_N, self.recipe)))
        ]


class _Tars:
    """Leaves the samples of a source in their tars."""

    def __init__(self, source: str, images: SourceImages, recipe: Recipe, before: Before | None) -> None:
        self.source, self.images, self.recipe, self.before = source, images, recipe, before
        self.tars, self.tar_N, self.offset_bytes_N = images.containers()
        self.read: set[int] = set()

    def shards(self, split: str, rows: Rows, place: int) -> tuple[Rows, list[Outline]]:
        """Return the rows of a split in the order of their tars, tars in the order of the source, and a shard per tar."""
        order = rows[np.lexsort((self.offset_bytes_N[rows], self.tar_N[rows]))]
        size_bytes_N = self.images.size_bytes_N[order]
        firsts = np.flatnonzero(np.diff(self.tar_N[order], prepend=-1)).tolist()
        shards = []
        for number, (start, end) in enumerate(pairwise([*firsts, len(order)])):
            tar = int(self.tar_N[order[start]])
            name = shard_name(self.recipe.root, self.tars[tar])
            self._require_new(name, int(order[start]))
            shard = Outline(
                # Not a file name, so that a build never overwrites or removes a tar under it.
                name=f"{split}-in-place-{number:06d}",
                split=split,
                source=self.source,
                place=place + number,
                num_samples=end - start,
                size_bytes=int(size_bytes_N[start:end].sum()),
                tar=name,
                takes_sha256=tar not in self.read,
            )
            shards.append(shard)
            self.read.add(tar)
        return order, shards

    def _require_new(self, tar: str, row: int) -> None:
        """Raise DatasetError for a tar that the dataset has already, and which has an image that it did not have then."""
        if self.before and tar in self.before.tars:
            raise DatasetError(
                f"{tar}: {self.recipe.root} reads this tar in place, and it has images now that are not its samples and not in "
                f"{REJECTS_FILE} or {COPIES_FILE}, such as {self.images[row].file_name}; restore the tar, and put new images "
                "into new tars"
            )


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
