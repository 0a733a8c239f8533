"""The plan: every sample in one shard, by ids and sizes alone."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayprob.data.building.plan import plan
from rayprob.data.building.recipe import Recipe
from rayprob.data.building.splits import by_hash
from rayprob.data.sources.image import SourceImage, SourceImages
from rayprob.errors import SourceError

SPLITS = {"train": {"images": "a", "annotations": "b"}, "val": {"images": "a", "annotations": "b"}}


def image(sample_id: int, size_bytes: int = 100) -> SourceImage:
    return SourceImage(sample_id, f"{sample_id}.jpg", 1, 1, (), (), (), size_bytes)


def recipe(**changes: object) -> Recipe:
    return Recipe.parse({"name": "x", "splits": SPLITS, "holdout": None, **changes})


def in_holdout(sample_id: int, fraction: float) -> bool:
    return bool(by_hash(np.array([sample_id]), [fraction, 1 - fraction], "holdout")[0] == 0)


sizes_of_ids = st.dictionaries(st.integers(0, 10**12), st.integers(0, 500), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None)
@given(sizes_of_ids, st.integers(1, 2000), st.integers(1, 30), st.integers(0, 3))
def test_every_sample_is_in_exactly_one_shard(sizes: dict[int, int], shard_bytes: int, most: int, seed: int) -> None:
    images = [image(sample_id, size) for sample_id, size in sizes.items()]
    shards = plan({"train": SourceImages.of(images)}, recipe(shard_bytes=shard_bytes, max_shard_samples=most, seed=seed))
    assert Counter(i.sample_id for shard in shards for i in shard.samples) == Counter(list(sizes))
    counts = [len(shard.samples) for shard in shards]
    assert max(counts) - min(counts) <= 1
    assert max(counts) <= most
    assert min(counts) >= 1
    assert [shard.name for shard in shards] == [f"train-{number:06d}.tar" for number in range(len(shards))]


@settings(max_examples=30, deadline=None)
@given(sizes_of_ids, st.randoms(use_true_random=False))
def test_the_order_of_the_annotations_plays_no_part(sizes: dict[int, int], random: np.random.Generator) -> None:
    images = [image(sample_id, size) for sample_id, size in sizes.items()]
    shuffled = list(images)
    random.shuffle(shuffled)  # type: ignore[arg-type]
    plans = [list(plan({"train": SourceImages.of(some)}, recipe(shard_bytes=900))) for some in (images, shuffled)]
    assert plans[0] == plans[1]


def test_a_shard_is_a_random_subset_that_the_seed_chooses() -> None:
    images = SourceImages.of([image(sample_id) for sample_id in range(3000)])
    first = plan({"train": images}, recipe(max_shard_samples=1000))
    means = [np.mean([i.sample_id for i in shard.samples]) for shard in first]
    # The mean of 1,000 of 3,000 ids has a standard deviation of 22.
    assert all(abs(mean - 1500) < 110 for mean in means)
    other = plan({"train": images}, recipe(max_shard_samples=1000, seed=1))
    shared = {i.sample_id for i in first[0].samples} & {i.sample_id for i in other[0].samples}
    assert 250 < len(shared) < 420


def test_shards_are_cut_by_bytes() -> None:
    shards = plan({"train": SourceImages.of([image(sample_id, 1000) for sample_id in range(100)])}, recipe(shard_bytes=10_000))
    assert len(shards) == 10


def test_splits_follow_one_another_with_the_holdout_after_its_origin() -> None:
    images = {
        "train": SourceImages.of([image(sample_id) for sample_id in range(200)]),
        "val": SourceImages.of([image(sample_id) for sample_id in range(300, 320)]),
    }
    shards = plan(images, recipe(holdout={"of": "train", "fraction": 0.2}, max_shard_samples=50))
    assert list(dict.fromkeys(shard.split for shard in shards)) == ["train", "holdout", "val"]
    assert {shard.source for shard in shards if shard.split == "holdout"} == {"train"}
    held = {i.sample_id for shard in shards if shard.split == "holdout" for i in shard.samples}
    assert held == {sample_id for sample_id in range(200) if in_holdout(sample_id, 0.2)}


def test_holdout_is_about_five_percent_and_a_smaller_one_lies_inside() -> None:
    ids = range(1, 600_000, 7)
    five = {sample_id for sample_id in ids if in_holdout(sample_id, 0.05)}
    two = {sample_id for sample_id in ids if in_holdout(sample_id, 0.02)}
    assert abs(len(five) / len(ids) - 0.05) < 0.003  # four standard deviations
    assert two < five


def test_holdout_never_changes() -> None:
    # Written down when the format was made: a change would mix old holdout images into new training sets.
    assert [sample_id for sample_id in range(200) if in_holdout(sample_id, 0.05)] == [
        14,
        18,
        24,
        25,
        88,
        120,
        127,
        131,
        170,
        172,
        178,
    ]


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_a_holdout_that_would_leave_a_split_empty_is_refused(fraction: float) -> None:
    holdout = {"of": "train", "fraction": fraction}
    with pytest.raises(SourceError, match=r"a holdout of 0\.\d+ leaves \d+ of the 10 images in train and \d+ in holdout"):
        plan({"train": SourceImages.of([image(sample_id) for sample_id in range(10)])}, recipe(holdout=holdout))
