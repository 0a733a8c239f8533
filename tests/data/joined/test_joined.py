"""Several datasets as one: splits, fingerprints, areas, what is said of them, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from rayprob.data.joined.dataset import JoinedDataset, open_datasets
from rayprob.data.manifest.areas import largest_areas
from rayprob.data.manifest.dataset import Dataset
from rayprob.errors import DatasetError
from tests.loader.tiny import Writer, photo


def write(root: Path, names: list[str], splits: dict[str, int]) -> str:
    """Write a dataset with so many samples in each split, whose ids begin at 0 in every dataset."""
    root.mkdir()
    writer, first = Writer(root), 0
    for split, samples in splits.items():
        writer.shard(split, {sample_id: photo(sample_id) for sample_id in range(first, first + samples)})
        first += samples
    writer.finish()
    (root / "labels.json").write_text(json.dumps({"names": names, "category_ids": [1, 2, 3]}))
    return str(root)


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("joined")
    first = write(folder / "a", ["person", "car", "tv"], {"train": 12, "holdout": 4})
    return first, write(folder / "b", ["tvmonitor", "person", "cat"], {"train": 20, "val": 6})


def test_a_split_is_that_of_the_datasets_which_have_it(roots: tuple[str, str]) -> None:
    joined = open_datasets(roots, (1, 0.5))
    assert joined.splits == {"train": 32, "holdout": 4, "val": 6}
    assert {name: len(joined.split(name)) for name in joined.splits} == joined.splits
    assert [len(joined.split(name).members) for name in joined.splits] == [2, 1, 1]
    with pytest.raises(
        DatasetError, match=r"none of .*/a and .*/b has a split 'test'; they have train \(32\), holdout \(4\), val"
    ):
        joined.split("test")


def test_the_fingerprint_changes_with_the_datasets_and_their_order_not_with_weights(roots: tuple[str, str]) -> None:
    fingerprint = open_datasets(roots, (1, 1)).fingerprint
    assert fingerprint == open_datasets(roots, (1, 5)).fingerprint
    assert fingerprint != open_datasets(roots[::-1], (1, 1)).fingerprint
    assert JoinedDataset((Dataset.open(roots[0]),), (2.0,)).fingerprint == Dataset.open(roots[0]).fingerprint


def test_areas_lie_in_the_joined_columns(roots: tuple[str, str]) -> None:
    split = open_datasets(roots, (1, 1)).split("train")
    areas_NL = largest_areas(split, split.sample_ids()[::-1])[::-1]
    assert np.array_equal(~np.isnan(areas_NL), split.targets())
    assert set(areas_NL[split.targets()].tolist()) == {100.0}


def test_rows_spread_over_all_datasets(roots: tuple[str, str]) -> None:
    split = open_datasets(roots, (1, 1)).split("train")
    assert split.spread(1000).tolist() == list(range(32))
    assert split.spread(2).tolist() == list(range(32)), "one shard each"


def test_what_each_dataset_adds_is_said(roots: tuple[str, str]) -> None:
    joined = open_datasets(roots, (1, 0.5))
    assert isinstance(joined, JoinedDataset)
    assert joined.sentences("train", "holdout") == [
        f"{roots[0]}: 12 samples, weight 1: 12 in each epoch; 4 in holdout; 3 of the 4 labels, the others unknown",
        f"{roots[1]}: 20 samples, weight 0.5: 10 in each epoch; 0 in holdout; 3 of the 4 labels, the others unknown",
        f"{roots[1]}: matched under another name: tvmonitor = tv",
    ]


def test_a_dataset_without_common_labels_is_told(roots: tuple[str, str], tmp_path: Path) -> None:
    other = write(tmp_path / "c", ["ant", "bee", "fly"], {"train": 5})
    joined = open_datasets((roots[0], other), (1, 1))
    assert isinstance(joined, JoinedDataset)
    assert any(sentence.startswith(f"{other}: shares no label") for sentence in joined.sentences("train", "holdout"))
    assert len(joined.label_space) == 6


def test_one_dataset_twice_is_refused(roots: tuple[str, str]) -> None:
    with pytest.raises(DatasetError, match=r"are the same dataset \(fingerprint .*\); give one of them, and set data.weights"):
        open_datasets((roots[0], roots[1], roots[0]), (1, 1, 1))
    with pytest.raises(DatasetError, match="nowhere is not a finished dataset"):
        open_datasets((roots[0], "nowhere"), (1, 1))
