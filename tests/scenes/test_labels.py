"""The label sets of drawn scenes: sampling against the exact mixture, restriction, noise, and COCO's real prevalences."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from rayprob.errors import SpecError
from rayprob.labels import COCO_80
from rayprob.scenes.labels import SceneLabels

NUM_SCENES = 40_000


@pytest.fixture(scope="module")
def labels() -> SceneLabels:
    return SceneLabels.load()


def pair_probabilities(labels: SceneLabels) -> np.ndarray:
    """P(both labels present) [L, L], off the diagonal."""
    p_KL = labels.probabilities_KL
    return np.einsum("k,kl,km->lm", labels.weights_K, p_KL, p_KL)


def assert_frequencies(found: np.ndarray, exact: np.ndarray | float, num_scenes: int) -> None:
    sigma = np.sqrt(np.asarray(exact) * (1 - np.asarray(exact)) / num_scenes)
    few = 8 / num_scenes  # what is rare is Poisson distributed, whose tail is longer than five sigma
    assert (np.abs(found - exact) < 5 * sigma + few).all()


def assert_sampled_from(labels: SceneLabels, present_NL: np.ndarray) -> None:
    num_scenes, num_labels = present_NL.shape
    off_diagonal = ~np.eye(num_labels, dtype=bool)
    both_LL = present_NL.T.astype(np.float32) @ present_NL.astype(np.float32) / num_scenes
    assert_frequencies(present_NL.mean(axis=0), labels.marginals_L, num_scenes)
    assert_frequencies(both_LL[off_diagonal], pair_probabilities(labels)[off_diagonal], num_scenes)
    assert_frequencies((~present_NL.any(axis=1)).mean(), labels.probability_of_empty, num_scenes)


def test_shipped_mixture_is_a_distribution_over_the_80_labels(labels: SceneLabels) -> None:
    assert labels.label_space == COCO_80
    assert labels.weights_K.shape == (30,)
    assert labels.weights_K.sum() == pytest.approx(1, abs=1e-12)
    assert ((labels.probabilities_KL > 0) & (labels.probabilities_KL < 1)).all()


def test_prevalences_and_pairs_are_those_of_coco(labels: SceneLabels, shared: Path) -> None:
    lists = pq.read_table(shared / "labels" / "coco_train2014_labels.parquet")["labels"].combine_chunks()
    num_images = len(lists) + 702  # train2014 has 702 images without a label, which the file leaves out
    assert np.abs(labels.marginals_L - np.bincount(lists.flatten(), minlength=80) / num_images).max() < 1e-3
    some = lists.slice(0, 20_000)
    present_NL = np.zeros((len(some), 80), np.float32)
    present_NL[pc.list_parent_indices(some), some.flatten()] = 1
    both_LL = present_NL.T @ present_NL / len(present_NL)
    off_diagonal, independent_LL = ~np.eye(80, dtype=bool), np.outer(labels.marginals_L, labels.marginals_L)
    mixture_error, independent_error = (
        np.abs(both_LL - guess_LL)[off_diagonal].sum() for guess_LL in (pair_probabilities(labels), independent_LL)
    )
    assert mixture_error < 0.3 * independent_error


def test_samples_follow_the_mixture(labels: SceneLabels) -> None:
    component_N, present_NL = labels.sample(3, NUM_SCENES)
    assert_frequencies(np.bincount(component_N, minlength=30) / NUM_SCENES, labels.weights_K, NUM_SCENES)
    assert_sampled_from(labels, present_NL)


def test_more_scenes_begin_with_the_same_ones(labels: SceneLabels) -> None:
    few, many = labels.sample(3, 10), labels.sample(3, 50)
    assert (few[0] == many[0][:10]).all()
    assert (few[1] == many[1][:10]).all()
    assert (labels.sample(4, 50)[1] != many[1]).any()


def test_restriction_keeps_the_most_prevalent_labels_and_their_joint_distribution(labels: SceneLabels) -> None:
    few = labels.restricted(20)
    columns = [COCO_80.column(name) for name in few.label_space.names]
    assert few.label_space.category_ids == tuple(COCO_80.category_ids[column] for column in columns)
    assert few.marginals_L.min() > np.delete(labels.marginals_L, columns).max()
    assert_sampled_from(few, labels.sample(5, NUM_SCENES)[1][:, columns])
    assert_sampled_from(few, few.sample(6, NUM_SCENES)[1])


@pytest.mark.parametrize("num_labels", [0, 81])
def test_restriction_names_what_is_allowed(labels: SceneLabels, num_labels: int) -> None:
    with pytest.raises(SpecError, match=rf"num_labels is {num_labels}; allowed: 1 to 80"):
        labels.restricted(num_labels)


def test_label_noise_falsifies_its_fraction_and_keeps_every_prevalence(labels: SceneLabels) -> None:
    few = labels.restricted(10)
    present_NL = few.sample(7, NUM_SCENES)[1]
    stated_NL = few.add_noise(present_NL, 0.2, seed=8)
    assert_frequencies((present_NL & ~stated_NL).sum() / present_NL.sum(), 0.2, int(present_NL.sum()))
    assert_frequencies((stated_NL & ~present_NL).sum() / stated_NL.sum(), 0.2, int(stated_NL.sum()))
    dropped, added_L = few.noise_rates(0.2)
    stated = replace(few, probabilities_KL=few.probabilities_KL * (1 - dropped) + (1 - few.probabilities_KL) * added_L)
    np.testing.assert_allclose(stated.marginals_L, few.marginals_L, rtol=1e-12)
    assert_sampled_from(stated, stated_NL)
    assert (few.add_noise(present_NL, 0.0, seed=8) == present_NL).all()
