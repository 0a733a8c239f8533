"""Which sample goes into which shard: a pure function of the samples' ids and sizes and of the recipe."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

from rayprob.data.building.recipe import Recipe
from rayprob.data.building.splits import with_holdout
from rayprob.data.sources.image import SourceImage
from rayprob.seeds import derive


@dataclass(frozen=True)
class ShardPlan:
    """One shard to be: its file name, its split, the split of the source that its images come from, and its samples."""

    name: str
    split: str
    source: str
    samples: tuple[SourceImage, ...]


def plan(images: Mapping[str, Sequence[SourceImage]], recipe: Recipe) -> list[ShardPlan]:
    """Return the shards of every split, each sample in exactly one of them.

    A shard is a random subset of its split, all shards of a split differ by at most one sample, and the order of the
    annotations file plays no part. Raises SourceError where a split would be empty.
    """
    shards = []
    for source, members in images.items():
        for split, samples in with_holdout(source, members, recipe.holdout).items():
            shards += _cut(split, source, samples, recipe)
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
