"""Which sample goes into which shard: a pure function of the samples' ids and sizes and of the recipe."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

from rayprob.data.building.recipe import Recipe
from rayprob.data.manifest.shard_list import shard_name
from rayprob.data.sources.image import SourceImage
from rayprob.errors import SourceError
from rayprob.seeds import derive


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


def plan(images: Mapping[str, Sequence[SourceImage]], recipe: Recipe) -> list[ShardPlan]:
    """Return the shards of every split, each sample in exactly one of them.

    A shard is a random subset of its split, all shards of a split differ by at most one sample, and the order of the
    annotations file plays no part. Of a source in place, a shard is what a tar holds of a split. Raises SourceError where a
    split would be empty.
    """
    shards = []
    for source, members in images.items():
        splits = _with_holdout(source, members, recipe)
        if recipe.splits[source].in_place:
            shards += _by_tar(source, splits, recipe)
            continue
        for split, samples in splits.items():
            shards += _cut(split, source, samples, recipe)
    return shards


def in_holdout(sample_id: int, fraction: float) -> bool:
    """Return whether a hash of the id falls below `fraction`: a smaller holdout is a subset of a larger one."""
    return derive(0, "holdout", sample_id) < fraction * 2**63


def _with_holdout(source: str, members: Sequence[SourceImage], recipe: Recipe) -> dict[str, list[SourceImage]]:
    if not recipe.holdout or recipe.holdout.of != source:
        return {source: list(members)}
    held = [image for image in members if in_holdout(image.sample_id, recipe.holdout.fraction)]
    rest = [image for image in members if not in_holdout(image.sample_id, recipe.holdout.fraction)]
    if not held or not rest:
        raise SourceError(
            f"a holdout of {recipe.holdout.fraction:.3g} leaves {len(rest)} of the {len(members)} images in {source} and "
            f"{len(held)} in holdout; change holdout.fraction or write holdout: null"
        )
    return {source: rest, "holdout": held}


def _by_tar(source: str, splits: Mapping[str, Sequence[SourceImage]], recipe: Recipe) -> list[ShardPlan]:
    """Return a shard for each split and tar, in the order of the source, its samples as they lie in the tar."""
    shards: list[ShardPlan] = []
    read: set[str] = set()
    for split, samples in splits.items():
        of_tar: dict[str, list[SourceImage]] = {}
        for image in samples:
            of_tar.setdefault(image.container, []).append(image)
        for number, (tar, images) in enumerate(of_tar.items()):
            # Not a file name, so that a build never overwrites or removes somebody's tar under it.
            name = f"{split}-in-place-{number:06d}"
            within = tuple(sorted(images, key=lambda image: image.offset_bytes))
            shards.append(ShardPlan(name, split, source, within, shard_name(recipe.root, tar), tar not in read))
            read.add(tar)
    return shards


def _cut(split: str, source: str, samples: Sequence[SourceImage], recipe: Recipe) -> list[ShardPlan]:
    shuffled = sorted(samples, key=lambda image: (derive(recipe.seed, "shard", image.sample_id), image.sample_id))
    total_bytes = sum(image.size_bytes for image in samples)
    num_shards = max(ceil(total_bytes / recipe.shard_bytes), ceil(len(samples) / recipe.max_shard_samples))
    num_shards = min(num_shards, len(samples))
    bounds = [len(samples) * place // num_shards for place in range(num_shards + 1)] if num_shards else []
    return [
        ShardPlan(f"{split}-{number:06d}.tar", split, source, tuple(shuffled[start:stop]))
        for number, (start, stop) in enumerate(pairwise(bounds))
    ]
