"""A manifest in parts says what one file says, and is read where it is needed, and nowhere else."""

import json
import multiprocessing
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayprob.data.building import manifest_files
from rayprob.data.manifest import row_cache
from rayprob.data.manifest.columns import SCHEMA
from rayprob.data.manifest.dataset import Dataset, Manifest, Sample
from rayprob.data.manifest.parts import Parts
from rayprob.data.verify import verify
from rayprob.errors import DatasetError
from rayprob.files import storage
from tests.data.in_parts import copy_in_parts
from tests.data.small_source import Source, run_script

COLUMNS = ("shard_N", "sample_ids_N", "offset_bytes_N", "size_bytes_N", "height_px_N", "width_px_N")
LISTS = ("labels", "unknown_labels", "label_areas_px2")


@pytest.fixture(scope="module")
def whole(built_once: Source) -> Dataset:
    """31, 8 and 11 samples in shards of 7 or 8, and one manifest.parquet."""
    return Dataset.open(str(built_once.built))


@pytest.fixture(scope="module")
def in_parts(built_once: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with parts of at least 10 rows: 15, 16 / 8 / 11 of them."""
    return copy_in_parts(built_once.built, tmp_path_factory.mktemp("parts") / "built", 10)


@pytest.fixture
def broken(in_parts: Path, tmp_path: Path) -> Path:
    """A copy that the test may break."""
    return Path(shutil.copytree(in_parts, tmp_path / "copy"))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The parts that are read, in order."""
    seen: list[int] = []
    read = Parts.read

    def counted(parts: Parts, part: int, columns: Any) -> pa.Table:
        seen.append(part)
        return read(parts, part, columns)

    monkeypatch.setattr(Parts, "read", counted)
    return seen


def edit_facts(root: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    facts = json.loads((root / "dataset.json").read_text())
    edit(facts)
    (root / "dataset.json").write_text(json.dumps(facts))


def assert_same(ours: Manifest, theirs: Manifest) -> None:
    assert len(ours) == len(theirs)
    assert list(ours.shards) == list(theirs.shards)
    assert ours.keys == theirs.keys
    for name in COLUMNS:
        assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name
    for name in LISTS:
        assert np.array_equal(getattr(ours, name).values, getattr(theirs, name).values), name
        assert np.array_equal(getattr(ours, name).starts, getattr(theirs, name).starts), name
    assert np.array_equal(ours.targets(), theirs.targets())
    assert np.array_equal(ours.known(), theirs.known())
    assert list(ours.all_samples()) == list(theirs.all_samples())


def test_parts_say_what_one_file_says(whole: Dataset, in_parts: Path) -> None:
    dataset = Dataset.open(str(in_parts))
    assert dataset.splits == whole.splits
    assert dataset.shards.to_table().equals(whole.shards.to_table())
    for split in whole.splits:
        assert_same(dataset.split(split), whole.split(split))


def test_a_build_of_many_samples_writes_parts(
    source: Source, whole: Dataset, in_parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest_files, "ONE_FILE_ROWS", 49)
    monkeypatch.setattr(manifest_files, "PART_ROWS", 10)
    summary = source.build()
    assert not (source.built / "manifest.parquet").exists()
    assert verify(str(source.built)) == []
    built, expected = Dataset.open(str(source.built)), Dataset.open(str(in_parts))
    assert built.facts["manifest"]["shards"] == expected.facts["manifest"]["shards"] == [2, 2, 1, 2]
    assert summary.facts["fingerprint"] == whole.fingerprint
    for split in whole.splits:
        assert_same(built.split(split), expected.split(split))
        for stated, counted in zip(built.split(split).label_counts(), whole.split(split).label_counts(), strict=True):
            assert np.array_equal(stated, counted)


def test_a_manifest_is_one_file_up_to_the_limit(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest_files, "ONE_FILE_ROWS", 50)
    source.build()
    assert (source.built / "manifest.parquet").exists()
    assert not (source.built / "manifest").exists()


@settings(deadline=None)
@given(rows=st.lists(st.integers(0, 30), max_size=20))
def test_rows_read_from_parts_are_those_read_at_once_by_pyarrow(built_once: Source, in_parts: Path, rows: list[int]) -> None:
    table = pq.read_table(built_once.built / "manifest.parquet").slice(0, 31)
    train = Dataset.open(str(in_parts)).split("train")
    found = train.samples(np.array(rows, dtype=np.int64))
    stated = [table.slice(row, 1).to_pylist()[0] for row in rows]
    fields = [name for name in Sample._fields if name != "member"]
    assert [[getattr(sample, name) for name in fields] for sample in found] == [
        [row[name] for name in fields] for row in stated
    ]
    assert not any(sample.member for sample in found)
    assert train.sample_ids(np.array(rows, dtype=np.int64)).tolist() == [row["sample_id"] for row in stated]
    targets = train.targets(np.array(rows, dtype=np.int64))
    assert [np.flatnonzero(target).tolist() for target in targets] == [sorted(row["labels"]) for row in stated]


def test_only_parts_with_rows_that_are_asked_for_are_read_and_each_once(in_parts: Path, reads: list[int]) -> None:
    dataset = Dataset.open(str(in_parts))
    assert reads == [0]
    train, val = dataset.split("train"), dataset.split("val")
    for row in (30, 16, 0, 14):
        train.sample(row)
        train.targets(np.array([row]))
    assert reads == [0, 1]
    val.want(np.array([3, 7]))
    assert val.samples(np.array([3, 7]))[1] == val.sample(7)
    assert reads == [0, 1, 3]


def test_what_is_held_stays_within_its_bounds(in_parts: Path, monkeypatch: pytest.MonkeyPatch, reads: list[int]) -> None:
    monkeypatch.setattr(row_cache, "LEAST_NEEDED_ROWS", 8)
    monkeypatch.setattr(row_cache, "ONE_FILE_ROWS", 16)
    dataset = Dataset.open(str(in_parts))
    train = dataset.split("train")
    for row in (0, 30, 7, 15, 23, 1):
        assert train.sample(row).sample_id == train.sample_ids(np.array([row]))[0]
        assert sum(map(len, (*dataset.held._needed._rows.values(), *dataset.held._beside._rows.values()))) <= 8 + 16
    assert len(reads) > 3
    train.keep(4)
    reads.clear()
    for row in (0, 30, 7, 15, 23, 1, 8, 29) * 3:
        train.sample(row)
    assert len(reads) <= 2


def test_a_pickled_manifest_carries_no_rows_and_reads_the_same(in_parts: Path) -> None:
    train = Dataset.open(str(in_parts)).split("train")
    before = len(pickle.dumps(train))
    whole = train.targets()
    copy = pickle.loads(pickle.dumps(train))
    assert len(pickle.dumps(train)) < before + 1000 + train.sample_ids_N.nbytes
    assert np.array_equal(copy.targets(), whole)


def test_a_forked_process_reads_by_itself(in_parts: Path) -> None:
    train = Dataset.open(str(in_parts)).split("train")
    context = multiprocessing.get_context("fork")
    found = context.SimpleQueue()
    process = context.Process(target=lambda: found.put(train.sample_ids().tolist()))
    with train.held._lock:  # as another thread might hold it
        process.start()
    process.join(timeout=240)
    process.kill()
    assert not found.empty()
    assert found.get() == train.sample_ids().tolist()


def test_rows_spread_over_a_split_are_whole_shards_and_all_of_a_small_one(whole: Dataset) -> None:
    train = whole.split("train")
    assert train.spread(31).tolist() == list(range(31))
    assert train.spread(16).tolist() == [*range(7), *range(15, 23)]


def test_a_changed_part_is_an_error_where_its_rows_are_read(broken: Path) -> None:
    path = broken / "manifest" / "000001.parquet"
    pq.write_table(pq.read_table(path), path, compression="none")
    train = Dataset.open(str(broken)).split("train")
    assert train.sample(14).sample_id > 0
    with pytest.raises(DatasetError, match=r"was changed after it was built: its sha256 is \w+, manifest/000001.parquet"):
        train.sample(15)
    train.want(np.array([15]))
    with pytest.raises(DatasetError, match="was changed"):
        train.sample(15)
    path.unlink()
    with pytest.raises(DatasetError, match=r"cannot be read: no file at .*000001.parquet; check the path; build the dataset"):
        train.sample(15)


def test_samples_in_another_order_than_the_shards_are_an_error(built_once: Source, tmp_path: Path) -> None:
    root = Path(shutil.copytree(built_once.built, tmp_path / "copy"))
    table = pq.read_table(root / "manifest.parquet")
    for order in ([7, *range(7), *range(8, 50)], [*range(7, 15), *range(7), *range(15, 50)]):
        pq.write_table(table.take(pa.array(order)), root / "manifest.parquet")
        edit_facts(root, lambda facts: facts.pop("manifest_sha256", None))
        with pytest.raises(DatasetError, match=r"manifest.parquet does not list samples shard by shard as dataset.json"):
            Dataset.open(str(root))


def test_facts_that_do_not_fit_the_parts_are_an_error(broken: Path) -> None:
    edit_facts(broken, lambda facts: facts["manifest"]["shards"].append(1))
    with pytest.raises(DatasetError, match=r"lists 4 parts of a manifest for 8 shards, but there are 7 shards; build"):
        Dataset.open(str(broken))


def test_shards_that_were_changed_or_are_gone_are_an_error(broken: Path) -> None:
    table = pq.read_table(broken / "shards.parquet")
    pq.write_table(table.slice(1), broken / "shards.parquet")
    with pytest.raises(DatasetError, match=r"shards.parquet was changed after it was built; build the dataset again"):
        Dataset.open(str(broken))
    (broken / "shards.parquet").unlink()
    with pytest.raises(DatasetError, match=r"the shards of .* cannot be read: no file at .*; build the dataset again"):
        Dataset.open(str(broken))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda shards: shards[0].pop("sha256"), r"dataset.json: shards\[0\].sha256: required, but missing"),
        (lambda shards: shards.insert(0, shards.pop()), "are not listed split by split; build the dataset again"),
    ],
)
def test_shards_listed_in_another_way_are_an_error(
    built_once: Source, tmp_path: Path, edit: Callable[[list[Any]], object], message: str
) -> None:
    root = Path(shutil.copytree(built_once.built, tmp_path / "copy"))
    edit_facts(root, lambda facts: edit(facts["shards"]))
    with pytest.raises(DatasetError, match=message):
        Dataset.open(str(root))


def test_verify_looks_at_every_part(broken: Path) -> None:
    assert verify(str(broken)) == []
    (broken / "manifest" / "000009.parquet").write_bytes(b"")
    path = broken / "manifest" / "000002.parquet"
    table = pq.read_table(path)
    ids = pa.array([100 + 7, *table["sample_id"].to_pylist()[1:]])
    pq.write_table(table.set_column(0, SCHEMA.field("sample_id"), ids), path)
    found = [str(fault) for fault in verify(str(broken))]
    left = "is not listed in dataset.json: a part of another manifest, left by an earlier build; remove it"
    assert f"manifest/000009.parquet: {left}" in found
    assert any(fault.startswith("manifest/000002.parquet: has sha256") for fault in found)
    assert any(fault.startswith("holdout-000000.tar: sample 107 has sample_id") for fault in found)


def test_verify_counts_the_labels_that_dataset_json_states(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest_files, "ONE_FILE_ROWS", 0)
    source.build()
    edit_facts(source.built, lambda facts: facts["label_counts"]["val"]["present"].reverse())
    assert [str(fault) for fault in verify(str(source.built))] == ["dataset.json: has other label_counts than the samples"]


def test_a_part_that_changed_on_its_way_from_a_store_is_read_again(in_parts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_bytes, times = storage.read_bytes, dict[str, int]()

    def flipping(uri: str) -> bytes:
        content = read_bytes(uri.replace("s3://store", str(in_parts)))
        times[uri] = times.get(uri, 0) + 1
        return content if ".json" in uri or "shards" in uri or times[uri] == 2 else content[:500] + b"?" + content[501:]

    monkeypatch.setattr(storage, "read_bytes", flipping)
    dataset = Dataset.open("s3://store")
    assert times["s3://store/manifest/000000.parquet"] == 2
    times.clear()
    monkeypatch.setattr(storage, "is_local", lambda uri: True)
    with pytest.raises(DatasetError, match=r"the manifest of s3://store (was changed|cannot be read)"):
        dataset.split("train").sample(30)
    assert times == {"s3://store/manifest/000001.parquet": 1}


def test_reading_a_manifest_does_not_import_pandas(built_once: Source) -> None:
    body = """
import sys
from rayprob.data.manifest.dataset import Dataset
train = Dataset.open(str(source.built)).split("train")
train.samples(train.spread(31)), train.targets(), train.known(), train.label_counts(), train.label_areas_px2
print("pandas" in sys.modules)
"""
    process = run_script(body, built_once)
    assert process.communicate(timeout=240) == ("False\n", "")
