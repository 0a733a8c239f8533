"""The predictions table: round trip to the last bit, atomic writing, and what each kind of bad file is told."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayprob.errors import MetricError, StorageError
from rayprob.labels import LabelSpace
from rayprob.probability.families import FAMILIES, family_of
from rayprob.runs import predictions as module
from rayprob.runs.predictions import Predictions

LABELS = LabelSpace(("cat", "dog", "fork"), (1, 2, 7))


def table(num_samples=5, components=2, seed=0):
    rng = np.random.default_rng(seed)
    shape = (num_samples, len(LABELS))
    return Predictions(
        label_space=LABELS,
        sample_ids_N=rng.permutation(num_samples).astype(np.int64) + 2**40,
        targets_NL=rng.random(shape) < 0.4,
        known_NL=rng.random(shape) < 0.7,
        family="mixture",
        outputs={
            "mixing_logits": rng.normal(size=(num_samples, components)).astype(np.float32),
            "component_logits": rng.normal(size=(num_samples, components, len(LABELS))).astype(np.float32),
        },
        facts={"split": "val", "step": 7, "run": {"lr": 0.1}},
    )


def assert_equal_bits(ours, theirs):
    assert (ours.label_space, ours.family, ours.facts) == (theirs.label_space, theirs.family, theirs.facts)
    arrays = [(p.sample_ids_N, p.targets_NL, p.known_NL, *p.outputs.values()) for p in (ours, theirs)]
    assert list(ours.outputs) == list(theirs.outputs)
    for left, right in zip(*arrays, strict=True):
        assert (left.dtype, left.shape, left.tobytes()) == (right.dtype, right.shape, right.tobytes())


@settings(deadline=None)
@given(st.integers(0, 12), st.integers(1, 4), st.integers(0, 99))
def test_a_table_reads_back_to_the_last_bit(tmp_path_factory, num_samples, components, seed):
    path = str(tmp_path_factory.getbasetemp() / "predictions.parquet")
    predictions = table(num_samples, components, seed)
    predictions.write(path)
    assert_equal_bits(Predictions.read(path), predictions)


def test_every_float32_survives(tmp_path):
    bits = np.array([0x7FC00001, 0xFF800000, 0x80000000, 0x00000001, 0x7F7FFFFF], dtype=np.uint32)
    predictions = table()
    predictions.outputs["mixing_logits"] = np.stack([bits, bits[::-1]], axis=1).view(np.float32)
    predictions.write(str(tmp_path / "p"))
    assert_equal_bits(Predictions.read(str(tmp_path / "p")), predictions)


def test_many_row_groups_join_without_a_seam(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROW_GROUP_BYTES", 300)
    predictions = table(50)
    predictions.write(str(tmp_path / "p"))
    assert pq.ParquetFile(tmp_path / "p").num_row_groups > 10
    assert_equal_bits(Predictions.read(str(tmp_path / "p")), predictions)


def test_the_file_is_plain_parquet_for_others(tmp_path):
    predictions = table()
    predictions.write(str(tmp_path / "p"))
    rows = pq.read_table(tmp_path / "p").to_pylist()
    for row, sample_id in enumerate(predictions.sample_ids_N):
        assert rows[row]["sample_id"] == sample_id
        assert LABELS.names_of(predictions.targets_NL[row]) == [LABELS.names[column] for column in rows[row]["labels"]]
        assert rows[row]["unknown_labels"] == np.flatnonzero(~predictions.known_NL[row]).tolist()
        assert rows[row]["component_logits"] == predictions.outputs["component_logits"][row].ravel().tolist()


def test_a_failed_write_leaves_the_old_table(tmp_path, monkeypatch):
    old = table(seed=1)
    old.write(str(tmp_path / "p"))

    def break_off(table, file, **_):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(pq, "write_table", break_off)
    with pytest.raises((OSError, StorageError)):
        table(seed=2).write(str(tmp_path / "p"))
    assert_equal_bits(Predictions.read(str(tmp_path / "p")), old)
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_what_all_samples_share_is_kept_once(tmp_path, monkeypatch):
    mixture = family_of("mixture")
    outputs = {"mixing_logits": "NK", "component_logits": "KL"}
    monkeypatch.setitem(FAMILIES, "mixture", replace(mixture, outputs=outputs))
    predictions = table(num_samples=5, components=2)
    predictions = replace(predictions, outputs={**predictions.outputs, "component_logits": np.ones((2, 3), np.float32)})
    predictions.write(str(tmp_path / "p"))
    again = Predictions.read(str(tmp_path / "p"))
    assert_equal_bits(again, predictions)
    some = again.rows(np.array([4, 1]))
    assert [values.shape for values in some.outputs.values()] == [(2, 2), (2, 3)]
    assert "component_logits" not in pq.read_table(str(tmp_path / "p")).column_names


def test_rows_are_taken_in_their_order():
    predictions = table()
    taken = predictions.rows(np.array([3, 1]))
    assert taken.sample_ids_N.tolist() == predictions.sample_ids_N[[3, 1]].tolist()
    np.testing.assert_array_equal(taken.outputs["component_logits"], predictions.outputs["component_logits"][[3, 1]])
    np.testing.assert_array_equal(taken.targets_NL, predictions.targets_NL[[3, 1]])


def altered(**changes):
    return Predictions(**(vars(table()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample_ids_N": np.array([5, 4, 5, 3, 3])}, "sample_id 3, 5 is in more than one row"),
        ({"targets_NL": np.zeros((5, 2), bool)}, r"targets_NL is bool \[5, 2\]; give bool \[5, 3\]"),
        ({"known_NL": np.ones((5, 3))}, r"known_NL is float64 \[5, 3\]; give bool \[5, 3\]"),
        ({"outputs": {"logits": np.zeros((5, 3))}}, r"output 'logits' is float64 \[5, 3\]; give float32 with 5 rows"),
        (
            {"outputs": {"logits": np.zeros((4, 3), np.float32)}},
            r"output 'logits' is float32 \[4, 3\]; give float32 with 5 rows",
        ),
        ({"outputs": {"labels": np.zeros((5, 3), np.float32)}}, "output 'labels' has the name of a reserved column"),
    ],
)
def test_tables_that_contradict_themselves_are_refused(changes, message):
    with pytest.raises(MetricError, match=message):
        altered(**changes)


def test_files_that_are_no_predictions_name_themselves_and_the_remedy(tmp_path):
    path = tmp_path / "p.parquet"
    with pytest.raises(StorageError, match=r"no file at .*p\.parquet"):
        Predictions.read(str(path))
    path.write_bytes(b"not parquet")
    with pytest.raises(MetricError, match=r"p\.parquet cannot be read as Parquet .*; write it again with `rayprob evaluate`"):
        Predictions.read(str(path))
    pq.write_table(pa.table({"x": [1], "y": [2]}), path)
    with pytest.raises(MetricError, match=r"p\.parquet is Parquet but not a predictions table; its columns are x, y; write it"):
        Predictions.read(str(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header: header | {"format_version": 9}, "has predictions format 9, but this version reads 1"),
        (lambda header: header | {"shapes": {"mixing_logits": [7]}}, r"is a damaged predictions table \(ValueError"),
        (lambda header: header | {"shapes": {"logits": [3]}}, r"is a damaged predictions table \(KeyError.*logits"),
        (
            lambda header: header | {"label_space": {"names": ["cat"]}},
            r"is a damaged predictions table: a label space",
        ),
        (
            lambda header: header | {"label_space": {"names": ["cat"], "category_ids": [1]}},
            r"is a damaged predictions table: label columns must be from 0 to 0; found 0 to 2",
        ),
        (
            lambda header: {key: header[key] for key in header if key != "family"},
            r"is a damaged predictions table: its header: family: required, but missing",
        ),
        (lambda header: header["family"] * 2, "is a damaged predictions table"),
    ],
)
def test_a_header_that_does_not_fit_names_the_file_and_the_remedy(tmp_path, change, message):
    path = tmp_path / "p.parquet"
    table().write(str(path))
    content = pq.read_table(path)
    header = json.dumps(change(json.loads(content.schema.metadata[b"rayprob"]))).encode()
    pq.write_table(content.replace_schema_metadata({b"rayprob": header}), path)
    with pytest.raises(MetricError, match=rf"p\.parquet {message}.*; write it again with `rayprob evaluate`"):
        Predictions.read(str(path))


def test_damaged_files_name_themselves_and_the_remedy(tmp_path):
    path = tmp_path / "p.parquet"
    table().write(str(path))
    content = pq.read_table(path)
    pq.write_table(content.replace_schema_metadata({b"rayprob": b"{half"}), path)
    with pytest.raises(
        MetricError, match=r"p\.parquet is a damaged predictions table: its header is not JSON.*; write it again"
    ):
        Predictions.read(str(path))
    pq.write_table(pa.concat_tables([content, content]), path)
    with pytest.raises(MetricError, match=r"p\.parquet is a damaged predictions table: sample_id .*; write it again"):
        Predictions.read(str(path))
    table().write(str(path))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(MetricError, match=r"p\.parquet cannot be read as Parquet .*; write it again"):
        Predictions.read(str(path))
