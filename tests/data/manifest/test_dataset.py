"""A built dataset is opened whole or not at all."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayprob.data.manifest.columns import SCHEMA, Ragged, to_table
from rayprob.data.manifest.dataset import Dataset
from rayprob.errors import DatasetError
from tests.data.small_source import Source


@pytest.fixture
def dataset(built_once: Source, tmp_path: Path) -> Path:
    """A copy of the dataset that the test may break."""
    return Path(shutil.copytree(built_once.built, tmp_path / "copy"))


def integers(kind: pa.DataType) -> st.SearchStrategy[int]:
    info = np.iinfo(kind.to_pandas_dtype())
    return st.integers(int(info.min), int(info.max))


def values_of(kind: pa.DataType) -> st.SearchStrategy[object]:
    if pa.types.is_list(kind):
        return st.lists(values_of(kind.value_type), max_size=4).map(tuple)
    if pa.types.is_floating(kind):
        return st.floats(width=32, allow_nan=False) | st.floats(0, 1e6)
    return st.text(max_size=9) if pa.types.is_string(kind) else integers(kind)


@settings(deadline=None)  # from_pylist imports pandas first
@given(st.lists(st.fixed_dictionaries({field.name: values_of(field.type) for field in SCHEMA}), max_size=4))
def test_rows_become_the_table_that_pyarrow_makes_of_them(rows: list[dict[str, object]]) -> None:
    assert to_table(rows).equals(pa.Table.from_pylist(rows, schema=SCHEMA))


@given(st.lists(st.sets(st.integers(0, 5)), min_size=1, max_size=9), st.data())
def test_ragged_lists_become_the_rows_that_were_asked_for(label_sets: list[set[int]], data: st.DataObject) -> None:
    lists = [sorted(columns) for columns in label_sets]
    starts = np.cumsum([0, *(len(columns) for columns in lists)])
    ragged = Ragged(np.array([c for columns in lists for c in columns], dtype=np.int32), starts)
    rows = data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=12))
    dense = ragged.to_bool(np.array(rows, dtype=np.int64), 6)
    assert [np.flatnonzero(row).tolist() for row in dense] == [lists[row] for row in rows]


def test_splits_and_shards_are_counted(built_once: Source) -> None:
    dataset = Dataset.open(str(built_once.built))
    assert dataset.splits == {"train": 31, "holdout": 8, "val": 11}
    train = dataset.split("train")
    assert train.samples_per_shard().tolist() == [7, 8, 8, 8]
    assert (np.diff(train.shard_N) >= 0).all()
    assert train.targets().shape == (31, 4)
    assert train.known().all()


def test_an_unknown_split_is_named(built_once: Source) -> None:
    with pytest.raises(DatasetError, match=r"has no split 'test'; it has train \(31\), holdout \(8\), val \(11\)"):
        Dataset.open(str(built_once.built)).split("test")


def test_a_folder_without_a_dataset_says_how_to_build_one(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"is not a finished dataset: no file at .*; run `rayprob shard RECIPE`"):
        Dataset.open(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"dataset.json is not JSON"),
        ("[]", r"dataset.json contains list, not a mapping"),
        ('{"format_version": 99}', r"has dataset format 99, but this version reads 1, 2, 3, 4, 5, 6; rebuild it"),
    ],
)
def test_a_broken_dataset_json_is_named(dataset: Path, text: str, message: str) -> None:
    (dataset / "dataset.json").write_text(text)
    with pytest.raises(DatasetError, match=message):
        Dataset.open(str(dataset))


def test_changed_labels_are_noticed_at_opening(dataset: Path) -> None:
    labels = json.loads((dataset / "labels.json").read_text())
    labels["names"][0] = "lynx"
    (dataset / "labels.json").write_text(json.dumps(labels))
    with pytest.raises(DatasetError, match=r"labels.json was changed: its fingerprint is .*, but .* in dataset.json; build"):
        Dataset.open(str(dataset))


def test_a_manifest_of_null_is_one_file(dataset: Path) -> None:
    facts = json.loads((dataset / "dataset.json").read_text())
    (dataset / "dataset.json").write_text(json.dumps(facts | {"manifest": None}))
    assert len(Dataset.open(str(dataset)).split("train").targets()) == facts["splits"]["train"]


def test_a_changed_manifest_is_noticed_at_opening(dataset: Path) -> None:
    table = pq.read_table(dataset / "manifest.parquet")
    pq.write_table(table.slice(1), dataset / "manifest.parquet")
    with pytest.raises(DatasetError, match=r"has 49 rows, but 50 in dataset.json"):
        Dataset.open(str(dataset))
    pq.write_table(table, dataset / "manifest.parquet", compression="none")
    with pytest.raises(DatasetError, match="was changed after it was built: its sha256 is"):
        Dataset.open(str(dataset))
    (dataset / "manifest.parquet").write_bytes(b"PAR1")
    with pytest.raises(DatasetError, match=r"cannot be read as Parquet \(.*; build the dataset again"):
        Dataset.open(str(dataset))
