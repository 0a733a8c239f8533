"""The dataset that a build adds to: which samples it has, what is stated of each, and where they are. N samples, in all splits.

37 bytes per sample stay in memory, 53 where the recipe groups images; the rest is read part by part.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rayprob.arrays import Bools, Ints, Rows
from rayprob.config.spec import differing_keys
from rayprob.data.building.groups_file import Groups
from rayprob.data.building.list_files import read_copies, read_rejects
from rayprob.data.building.recipe import Recipe
from rayprob.data.building.stated import LISTS, stated_of
from rayprob.data.manifest.columns import numbers
from rayprob.data.manifest.facts import read_facts, read_label_space
from rayprob.data.manifest.parts import Parts
from rayprob.data.manifest.shard_list import Shards, shard_name
from rayprob.data.sources.image import SourceImages
from rayprob.data.sources.join_files import Reject
from rayprob.errors import DatasetError
from rayprob.images.reading import ImageReading
from rayprob.labels import LabelSpace
from rayprob.text import first_of

# Keys that decide only how new images are found, checked and written; `labels` is compared with the dataset's label space.
MAY_DIFFER = frozenset({"labels", "check", "allow_rejects", "shard_bytes", "max_shard_samples"})
MAY_DIFFER_OF_SPLIT = frozenset({"images", "annotations", "expect"})


@dataclass(frozen=True, eq=False)
class Before:
    """A built dataset, as far as a build that adds samples needs it."""

    root: str
    facts: dict[str, Any]
    label_space: LabelSpace
    shards: Shards
    parts: Parts
    ids_N: Ints  # ascending
    splits_N: NDArray[np.int32]  # places in `splits`
    stated_N: NDArray[np.uint64]  # see `stated_of`
    size_bytes_N: Ints  # as stored
    copies: Sequence[dict[str, Any]]  # as duplicates.jsonl lists them
    rejects: Sequence[Reject]  # as rejected.jsonl lists them
    groups: Groups
    lasting_ids: frozenset[int] = frozenset()  # of the rejects that stay rejected

    @classmethod
    def open(cls, recipe: Recipe) -> "Before":
        """Return the dataset of a recipe. Raises DatasetError if it cannot grow by this recipe, and names the key."""
        facts, label_space = read_facts(recipe.root), read_label_space(recipe.root)
        require_growable(recipe, facts)
        shards = Shards.read(recipe.root, facts)
        parts = Parts.stated(recipe.root, shards, facts, len(label_space))
        splits_N = np.repeat(np.arange(len(shards.splits), dtype=np.int32), [*shards.samples_of_splits().values()])
        columns = [*map(np.concatenate, zip(*_columns(parts), strict=True))]
        order = np.argsort(columns[0], kind="stable")
        ids_N, stated_N, sizes_N = (column[order] for column in columns)
        # A build that failed or stopped may have listed copies that never became samples.
        copies = [copy for copy in read_copies(recipe.root) if _is_in(_ids_that_must_be_samples(copy), ids_N).all()]
        rejects = read_rejects(recipe.root)
        groups = Groups.read(recipe.root)
        splits_N = splits_N[order]
        return cls(recipe.root, facts, label_space, shards, parts, ids_N, splits_N, stated_N, sizes_N, copies, rejects, groups)

    def with_lasting_rejects(self, images: Mapping[str, SourceImages], recipe: Recipe) -> "Before":
        """Return the dataset with those of its rejects marked that a build must not try again.

        They are in tars that the dataset reads in place: whoever repairs an image there changes the tar.
        """
        rejected = np.array([reject.sample_id for reject in self.rejects], dtype=np.int64)
        lasting = set[int]()
        for split, some in images.items():
            if not len(rejected) or not recipe.splits[split].in_place:
                continue
            rows = np.flatnonzero(np.isin(some.ids_N, rejected))
            tars, tar_N, _ = some.containers()
            is_ours = np.array([shard_name(self.root, tar) in self.tars for tar in tars], dtype=bool)
            lasting |= {*some.ids_N[rows[is_ours[tar_N[rows]]]].tolist()}
        return replace(self, lasting_ids=frozenset(lasting))

    @property
    def lasting_rejects(self) -> list[Reject]:
        """The rejects that stay rejected."""
        return [reject for reject in self.rejects if reject.sample_id in self.lasting_ids]

    @cached_property
    def splits(self) -> list[str]:
        """Its splits, in the order of its shards."""
        return list(self.shards.splits)

    @cached_property
    def assigned(self) -> Mapping[str, Ints]:
        """The ids of the samples of each split, and of their groups."""
        ids = {split: self.ids_N[self.splits_N == place] for place, split in enumerate(self.splits)}
        return {split: np.concatenate([some, self.groups.among(some)]) for split, some in ids.items()}

    def has(self, ids: Ints) -> Bools:
        """Return which of some ids are samples of the dataset."""
        return _is_in(ids, self.ids_N)

    def knows(self, ids: Ints) -> Bools:
        """Return which of some ids are samples of the dataset, were dropped as copies of one, or stay rejected."""
        dropped = (copy["sample_id"] for copy in self.copies if copy["dropped"])
        return self.has(ids) | np.isin(ids, np.array([*dropped, *self.lasting_ids], dtype=np.int64))

    def unknown_rows(self, ids_N: Ints, rows: Rows) -> Rows:
        """Return those of some rows, with ids `ids_N`, that the dataset does not know."""
        return rows[~self.knows(ids_N[rows])]

    def next_number(self, split: str) -> int:
        """Return the number of the next shard of a split."""
        pattern = re.compile(rf"{re.escape(split)}-(\d{{6,}})\.tar")
        names = (self.shards[place] for place in self.shards.splits.get(split, ()))
        return max((int(found[1]) for name in names if (found := pattern.fullmatch(name))), default=-1) + 1

    @cached_property
    def tars(self) -> frozenset[str]:
        """The names of its tars in place."""
        in_place = self.facts.get("in_place", ())
        return frozenset(self.shards[place] for split in in_place for place in self.shards.splits[split])

    def tables(self) -> Iterator[pa.Table]:
        """Yield the rows of each shard."""
        for part in range(len(self.parts)):
            table, first = self.parts.read(part, self.parts.schema.names), 0
            for shard in self.parts.shards_of(part):
                num_rows = int(self.shards.samples_S[shard])
                yield table.slice(first, num_rows)
                first += num_rows


def require_growable(recipe: Recipe, facts: Mapping[str, Any]) -> None:
    """Raise DatasetError if the dataset with these facts was built from a recipe that differs in more than it may."""
    fixed = [line for line in recipe_differences(recipe, facts) if not may_differ(line)]
    if fixed:
        raise DatasetError(
            f"{recipe.root} cannot grow by another recipe: {'; '.join(fixed)}; {first_of(sorted(MAY_DIFFER), 9)}, and "
            f"{first_of(sorted(MAY_DIFFER_OF_SPLIT), 9)} of a split, may differ; undo the change, or give another target"
        )
    if ImageReading.of(facts) != recipe.reading:
        raise DatasetError(
            f"{recipe.root} was built by rayprob 0.1, which does not turn images upright as EXIF says; it cannot grow; give "
            "another target"
        )


def recipe_differences(recipe: Recipe, facts: Mapping[str, Any]) -> list[str]:
    """Return `key: old -> new` for each key that the recipe of a dataset with these facts had otherwise."""
    theirs = {key: value for key, value in facts.get("recipe", {}).items() if key != "target"}
    return differing_keys(theirs, recipe.model_dump(mode="json", exclude={"target"}))


def may_differ(line: str) -> bool:
    """Return whether a dataset can grow in spite of a line of `recipe_differences`."""
    first, *others = line.partition(":")[0].split(".")
    return first in MAY_DIFFER or (first == "splits" and bool({*others[1:2]} & MAY_DIFFER_OF_SPLIT))


def _columns(parts: Parts) -> Iterator[tuple[Ints, NDArray[np.uint64], Ints]]:
    """Yield ids, what is stated, and sizes of the samples of each part."""
    lists = {*LISTS} & {*parts.schema.names}
    for part in range(len(parts)):
        table = parts.read(part, ["sample_id", "size_bytes", *lists])
        yield numbers(table["sample_id"]), stated_of([table]), numbers(table["size_bytes"])


def _ids_that_must_be_samples(copy: Mapping[str, Any]) -> Ints:
    return np.array([copy["kept_id"], *(() if copy["dropped"] else (copy["sample_id"],))], dtype=np.int64)


def _is_in(ids: Ints, ascending: Ints) -> Bools:
    places = np.minimum(np.searchsorted(ascending, ids), len(ascending) - 1)
    found: Bools = ascending[places] == ids
    return found
