"""Sorted tars are told from mixed ones."""

import logging

import numpy as np
import pyarrow as pa
import pytest

from rayprob.data.building.mixing import share_between, warn_of_sorted


def tables(tars: list[list[list[int]]]) -> list[pa.Table]:
    return [pa.table({"labels": pa.array(labels, pa.list_(pa.int32()))}) for labels in tars]


def test_a_tar_per_class_explains_everything_and_mixed_tars_nothing() -> None:
    assert share_between(np.array([[50, 0], [0, 50]]), np.array([50, 50])) == pytest.approx(1.0)
    labels_NL = np.random.default_rng(0).random((10_000, 5)) < 0.3
    mixed_TL = np.array([part.sum(axis=0) for part in np.split(labels_NL, 100)])
    assert abs(share_between(mixed_TL, np.full(100, 100))) < 0.01


def test_one_tar_no_variance_and_a_tar_per_sample_say_nothing() -> None:
    assert share_between(np.array([[3, 0]]), np.array([6])) == 0
    assert share_between(np.array([[3], [3]]), np.array([3, 3])) == 0
    assert share_between(np.array([[1], [0]]), np.array([1, 1])) == 0


def test_only_sorted_tars_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        warn_of_sorted("val", tables([[[0], [1], [0, 1]] * 9, [[0], [1], [0, 1]] * 9]), 2)
    assert not caplog.records
    warn_of_sorted("train", tables([[[0]] * 9, [[1]] * 9]), 2)
    assert "train: its tars are sorted: they explain 100 % of the variance of its labels" in caplog.text
    assert "raise window_shards, or copy the images" in caplog.text
