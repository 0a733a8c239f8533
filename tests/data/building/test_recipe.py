"""Recipes: the shipped ones can be read, and what cannot be is refused by name."""

from pathlib import Path
from typing import Any

import pytest

from rayprob.data.building.recipe import Recipe
from rayprob.errors import SpecError
from tests.data.small_source import Source

RECIPES = Path(__file__).resolve().parents[3] / "shards"


@pytest.mark.parametrize(
    ("name", "root"),
    [
        ("coco2014", "shards/coco2014"),
        ("coco-sample", "shards/coco-sample"),
        ("voc-sample", "shards/voc-sample"),
        ("scenes", "demo/shards"),
    ],
)
def test_shipped_recipe_reads_and_is_named_like_its_file(name: str, root: str) -> None:
    recipe = Recipe.read(RECIPES / f"{name}.yaml")
    assert recipe.name == name
    assert recipe.root == root
    assert recipe.holdout
    assert recipe.holdout.of == "train"


def test_coco_2014_expects_the_standard_split_sizes() -> None:
    recipe = Recipe.read(RECIPES / "coco2014.yaml")
    expected = {split: source.expect and source.expect.labelled for split, source in recipe.splits.items()}
    assert expected == {"train": 82_081, "val": 40_137}


def test_target_moves_the_dataset() -> None:
    recipe = Recipe.read(RECIPES / "scenes.yaml", ["target=s3://bucket/scenes"])
    assert recipe.root == "s3://bucket/scenes"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shard_byts": 1}, r"unknown key 'shard_byts'; nearest: shard_bytes"),
        (
            {"splits": {"train": {"imags": "a"}}},
            r"splits.train: unknown key of format coco: 'imags'; nearest: images; allowed: images",
        ),
        ({"splits": {}}, r"splits: dictionary should have at least 1 item"),
        (
            {"splits": {"Tr ain": {"images": "a", "annotations": "b"}}},
            r"split name 'Tr ain' cannot name a shard; use lower-case",
        ),
        ({"name": "a/b"}, r"name: string should match pattern"),
        ({"holdout": {"of": "trian"}}, r"holdout.of is 'trian'; allowed: train, val, or holdout: null"),
        ({"holdout": {"fraction": 1.0}}, r"holdout.fraction: input should be less than 1"),
        ({"encode": {"chroma": "410"}}, r"encode.chroma: input should be '444', '422' or '420'"),
        ({"window": [4095, 0]}, r"window: expected \[low, high\] with low below high and high at most 65535"),
        ({"window": [0, 70_000]}, r"window: expected \[low, high\]"),
        ({"check": "none"}, r"check: input should be 'decode' or 'header'"),
        ({"allow_rejects": -1}, r"allow_rejects: input should be greater than or equal to 0"),
    ],
)
def test_recipe_fault_names_key_and_remedy(source: Source, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        source.recipe(**changes)


def test_a_split_named_holdout_and_a_holdout_exclude_one_another() -> None:
    splits = {split: {"images": "a", "annotations": "b"} for split in ("train", "holdout")}
    with pytest.raises(SpecError, match="a split named holdout already; write holdout: null"):
        Recipe.parse({"name": "x", "splits": splits})
    assert Recipe.parse({"name": "x", "splits": splits, "holdout": None}).holdout is None


def test_a_split_is_named_by_all_of_its_name() -> None:
    with pytest.raises(SpecError, match=r"split name 'train\\n' cannot name a shard"):
        Recipe.parse({"name": "x", "splits": {"train\n": {"images": "a", "annotations": "b"}}, "holdout": None})
