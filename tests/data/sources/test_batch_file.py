"""Rows that wait on disk come back as they were, in any order that is asked for."""

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayprob.data.sources import batch_file, rows
from rayprob.data.sources.batch_file import BatchFile, arranged, scratch_folder
from rayprob.errors import StorageError

SCHEMA = pa.schema([("number", pa.int64()), ("name", pa.string()), ("labels", pa.list_(pa.int32()))])


def batch(numbers: list[int]) -> pa.RecordBatch:
    rows = [{"number": number, "name": f"é{number}" * (number % 3), "labels": list(range(number % 4))} for number in numbers]
    return pa.RecordBatch.from_pylist(rows, schema=SCHEMA)


def numbers_in(batches: Any) -> list[list[int]]:
    return [one.column("number").to_pylist() for one in batches]


def test_batches_come_back_from_memory_and_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for held_bytes in (2**20, 1):
        monkeypatch.setattr(batch_file, "HELD_BYTES", held_bytes)
        file = BatchFile(SCHEMA, str(tmp_path))
        for start in (0, 5, 12):
            file.append(batch(list(range(start, start + 5))))
        assert [one.to_pylist() for one in file] == [batch(list(range(s, s + 5))).to_pylist() for s in (0, 5, 12)]
        assert file[-1].equals(file[2])
        assert [start for start, _ in file.with_starts()] == [0, 5, 10]
        found, place = file.row(11)
        assert found.column("number")[place].as_py() == 13
        assert not list(tmp_path.iterdir())  # nothing that a stop could leave behind


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 8), st.integers(0, 99), st.integers(1, 5000))
def test_rows_are_arranged_as_a_take_of_all_of_them_would(
    num_rows: int, per_batch: int, num_ends: int, seed: int, group_bytes: int
) -> None:
    random = np.random.default_rng(seed)
    file = BatchFile(SCHEMA)
    for start in range(0, num_rows, per_batch):
        file.append(batch(list(range(start, min(start + per_batch, num_rows)))))
    order = random.permutation(num_rows)[: random.integers(1, num_rows + 1)]
    ends = sorted({*random.integers(1, len(order) + 1, num_ends).tolist(), len(order)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_file, "GROUP_BYTES", group_bytes)
        found = arranged(file, order, ends)
    assert numbers_in(found) == [part.tolist() for part in np.split(order, ends[:-1])]
    assert [row for one in found for row in one.to_pylist()] == batch(order.tolist()).to_pylist()


def test_a_full_disk_is_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = BatchFile(SCHEMA, str(tmp_path))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(file._file, "write", full)
    with pytest.raises(
        StorageError, match=r"cannot keep rows in .* while planning: No space left on device; free some space there"
    ):
        file.append(batch([1]))


def test_rows_wait_on_the_disk_of_the_dataset(tmp_path: Path) -> None:
    assert scratch_folder(str(tmp_path / "deep" / "built")) == str(tmp_path)
    assert scratch_folder("s3://bucket/built") is None


def test_batches_of_rows_with_images_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "BATCH_CONTENT_BYTES", 100)
    images = [rows.ImageRow(str(n), f"{n}.jpg", content=b"x" * 40) for n in range(7)]
    batches = list(rows.batches_of(images))
    assert [batch.num_rows for batch in batches] == [3, 3, 1]
    assert list(rows.rows_of(batches)) == images
