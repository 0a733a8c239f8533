"""Sample ids: the source's numbers where they can be, else hashes that never change."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayprob.data.sources import sample_ids as module
from rayprob.data.sources.batch_file import BatchFile
from rayprob.data.sources.rows import ROWS, ImageRow, batch_of
from rayprob.data.sources.sample_ids import Keys, sample_ids, shared_keys
from rayprob.errors import SourceError
from rayprob.seeds import derive, derive_all


def keys(*batches: list[str]) -> Keys:
    rows = BatchFile(ROWS)
    for some in batches:
        rows.append(batch_of([ImageRow(key, f"{key}.jpg") for key in some]))
    return Keys(rows)


def test_numbers_stay_and_anything_else_is_hashed_with_its_split() -> None:
    found = sample_ids({"train": keys(["7", "9223372036854775807"], ["8"]), "val": keys(["9"])})
    assert [found["train"].tolist(), found["val"].tolist()] == [[7, 2**63 - 1, 8], [9]]
    for odd in ("x", "07", "9223372036854775808", "-3", "٣", ""):
        found = sample_ids({"train": keys(["7"]), "val": keys([odd])})
        hashes = [derive(0, "sample", "train", "7"), derive(0, "sample", "val", odd)]
        assert [*found["train"].tolist(), *found["val"].tolist()] == hashes, odd


def test_equal_hashes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "derive_each", lambda *_, last: (1 for _ in last))
    with pytest.raises(SourceError, match="two images have the same 63-bit hash of split and name"):
        sample_ids({"train": keys(["a", "b"])})


@given(st.lists(st.sampled_from("abcdef"), max_size=12), st.lists(st.sampled_from("abcdef"), max_size=12))
def test_doubles_are_found_also_where_all_hashes_collide(first: list[str], second: list[str]) -> None:
    some = [one for one in (first, second) if one]
    every = first + second
    expected = [key for place, key in enumerate(every) if every.count(key) > 1 and every.index(key) == place]
    with pytest.MonkeyPatch.context() as patch:
        for hashed in (hash, len):
            patch.setattr(module, "hash", hashed, raising=False)
            assert keys(*some).doubles() == expected


def test_keys_of_two_splits_are_counted_and_the_first_is_named() -> None:
    splits = {"train": keys(["a", "b"], ["c"]), "val": keys(["x", "c", "b"]), "test": keys(["b", "y"])}
    assert shared_keys(splits) == (3, "c", "train", "val")
    assert shared_keys({"train": keys(["a"]), "val": keys(["b"])}) is None
    assert shared_keys({"train": splits["train"], "val": keys(["z"]), "test": splits["test"]}) == (1, "b", "train", "test")


def test_seeds_of_an_array_are_those_of_its_numbers() -> None:
    last = np.array([0, 5, 2**62, 10**12])
    assert derive_all(3, "shard", last=last).tolist() == [derive(3, "shard", one) for one in last.tolist()]
    assert pa.array(derive_all(3, "shard", last=last[:0])).to_pylist() == []
