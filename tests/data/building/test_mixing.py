"""Sorted tars are told from mixed ones."""

import logging

import numpy as np
import pyarrow as pa
import pytest

from rayprob.data.building.mixing import Mixing, warn_of_sorted

Tar = list[list[int]]  # the labels of each sample


def table_of(tar: Tar, split: str = "train") -> pa.Table:
    return pa.table({"split": [split] * len(tar), "labels": pa.array(tar, pa.list_(pa.int32()))})


def share_between(tars: list[Tar], num_labels: int) -> float:
    mixing = Mixing(num_labels)
    for tar in tars:
        mixing.add(table_of(tar))
    return mixing.share_between


def test_a_tar_per_class_explains_everything_and_mixed_tars_nothing() -> None:
    assert share_between([[[0]] * 50, [[1]] * 50], 2) == pytest.approx(1.0)
    labels_NL = np.random.default_rng(0).random((2000, 5)) < 0.3
    mixed = [[np.flatnonzero(row).tolist() for row in part] for part in np.split(labels_NL, 40)]
    assert abs(share_between(mixed, 5)) < 0.02


def test_it_is_that_of_an_analysis_of_variance() -> None:
    random = np.random.default_rng(1)
    tars = [random.random((size, 3)) < level for size, level in ((30, 0.1), (7, 0.8), (12, 0.4))]
    every_NL = np.concatenate(tars)
    within = sum(((tar - tar.mean(axis=0)) ** 2).sum() for tar in tars) / (len(every_NL) - len(tars))
    total = ((every_NL - every_NL.mean(axis=0)) ** 2).sum() / (len(every_NL) - 1)
    found = share_between([[np.flatnonzero(row).tolist() for row in tar] for tar in tars], 3)
    assert found == pytest.approx(1 - within / total)


def test_one_tar_no_variance_and_a_tar_per_sample_say_nothing() -> None:
    assert share_between([[[0]] * 6], 2) == 0
    assert share_between([[[0]] * 3, [[0]] * 3], 1) == 0
    assert share_between([[[0]], [[]]], 1) == 0


def test_only_sorted_tars_in_place_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    mixed, of_cats, of_dogs = [[0], [1], [0, 1]] * 9, [[0]] * 9, [[1]] * 9
    tables = [table_of(mixed, "val"), table_of(mixed, "val"), table_of(of_cats), table_of(of_dogs)]
    with caplog.at_level(logging.WARNING):
        warn_of_sorted(tables, ["val"], 2)
        warn_of_sorted(tables, [], 2)
    assert not caplog.records
    warn_of_sorted(tables, ["train", "val"], 2)
    assert len(caplog.records) == 1
    assert "train: its tars are sorted: they explain 100 % of the variance of its labels" in caplog.text
    assert "raise window_shards, or copy the images" in caplog.text
