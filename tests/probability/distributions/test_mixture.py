"""The label-only mixture and its fit, against enumeration of all label sets and against mixtures that are known."""

from itertools import product
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from rayprob.errors import DataError, ModelError, SpecError
from rayprob.labels import from_label_lists
from rayprob.probability.distributions.mixture import LabelMixture, distinct_rows, fit_label_mixture


def random_mixture(num_components: int, num_labels: int, seed: int) -> LabelMixture:
    random = np.random.default_rng(seed)
    return LabelMixture(random.dirichlet(np.ones(num_components) * 3), random.beta(0.4, 0.8, (num_components, num_labels)))


def brute_log_prob(mixture: LabelMixture, target_L: tuple[bool, ...], known_L: tuple[bool, ...]) -> float:
    total = 0.0
    for weight, p_L in zip(mixture.mixing_weights_K, mixture.probabilities_KL, strict=True):
        for p, present, known in zip(p_L, target_L, known_L, strict=True):
            weight *= (p if present else 1 - p) if known else 1
        total += weight
    return float(np.log(total))


def test_log_prob_sums_to_one_over_all_label_sets() -> None:
    mixture = random_mixture(3, 8, 0)
    sets_NL = np.array(list(product([False, True], repeat=8)))
    assert np.exp(mixture.log_prob(sets_NL)).sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(np.exp(mixture.log_prob(sets_NL)) @ sets_NL, mixture.marginals_L, atol=1e-12)


def test_log_prob_equals_the_product_written_out_with_and_without_unknown_labels() -> None:
    mixture, random = random_mixture(3, 6, 1), np.random.default_rng(1)
    targets_NL, known_NL = random.random((20, 6)) < 0.4, random.random((20, 6)) < 0.6
    expected = [brute_log_prob(mixture, tuple(t), tuple(k)) for t, k in zip(targets_NL, known_NL, strict=True)]
    np.testing.assert_allclose(mixture.log_prob(targets_NL, known_NL), expected, atol=1e-12)
    expected = [brute_log_prob(mixture, tuple(t), (True,) * 6) for t in targets_NL]
    np.testing.assert_allclose(mixture.log_prob(targets_NL), expected, atol=1e-12)


def test_restricted_mixture_sums_the_other_labels_out() -> None:
    mixture = random_mixture(4, 7, 2)
    sets_NL = np.array(list(product([False, True], repeat=7)))
    probability_N = np.exp(mixture.log_prob(sets_NL))
    columns = [5, 0, 2]
    for wanted in product([False, True], repeat=3):
        summed = probability_N[(sets_NL[:, columns] == wanted).all(axis=1)].sum()
        assert np.exp(mixture.restricted(columns).log_prob(np.array([wanted])))[0] == pytest.approx(summed, abs=1e-12)


def test_mixture_answers_questions_as_a_distribution_of_one_image() -> None:
    mixture = random_mixture(3, 6, 10)
    sets_NL = np.array(list(product([False, True], repeat=6)))
    given = mixture.distribution()
    assert len(given) == 1
    np.testing.assert_allclose(given.marginals()[0], mixture.marginals_L, atol=1e-12)
    np.testing.assert_allclose(given.log_prob(sets_NL[37:38]), mixture.log_prob(sets_NL[37:38]), atol=1e-12)


def test_responsibilities_are_bayes_rule() -> None:
    mixture = random_mixture(3, 4, 3)
    target_L = np.array([True, False, False, True])
    likelihood_K = np.where(target_L, mixture.probabilities_KL, 1 - mixture.probabilities_KL).prod(axis=1)
    expected_K = mixture.mixing_weights_K * likelihood_K
    np.testing.assert_allclose(mixture.responsibilities(target_L[None])[0], expected_K / expected_K.sum(), atol=1e-12)


def test_samples_have_the_pairwise_frequencies_of_the_mixture() -> None:
    mixture = random_mixture(4, 5, 4)
    drawn_NL = mixture.sample(200_000, seed=0).astype(float)
    expected_LL = np.einsum("k,ki,kj->ij", mixture.mixing_weights_K, mixture.probabilities_KL, mixture.probabilities_KL)
    off_diagonal = ~np.eye(5, dtype=bool)
    np.testing.assert_allclose((drawn_NL.T @ drawn_NL / len(drawn_NL))[off_diagonal], expected_LL[off_diagonal], atol=0.006)
    assert np.array_equal(mixture.sample(50, seed=7), mixture.sample(50, seed=7))


def test_distinct_rows_keep_every_sample_and_ignore_values_of_unknown_labels() -> None:
    targets_NL = np.array([[1, 0, 1], [1, 0, 1], [0, 0, 1], [1, 1, 1]], dtype=bool)
    assert sorted(distinct_rows(targets_NL, None).count_M) == [1, 1, 2]
    known_NL = np.array([[1, 0, 1]] * 4, dtype=bool)
    assert sorted(distinct_rows(targets_NL, known_NL).count_M) == [1, 3]
    assert distinct_rows(targets_NL, np.ones_like(targets_NL)).features_MF.shape == (3, 3)


def test_one_component_is_the_prevalence() -> None:
    targets_NL = np.random.default_rng(0).random((500, 6)) < 0.3
    fitted = fit_label_mixture(targets_NL, num_components=1, seed=0, smoothing=1e-9)
    np.testing.assert_allclose(fitted.probabilities_KL[0], targets_NL.mean(axis=0), atol=1e-12)


def test_fit_comes_as_near_to_new_samples_as_the_mixture_that_drew_them() -> None:
    truth = random_mixture(4, 12, 5)
    fitted = fit_label_mixture(truth.sample(20_000, seed=0), num_components=4, seed=0, restarts=3)
    unseen_NL = truth.sample(20_000, seed=1)
    assert truth.log_prob(unseen_NL).mean() - fitted.log_prob(unseen_NL).mean() < 0.005


def test_fit_gains_on_the_independent_model_by_restarts_and_is_repeatable() -> None:
    drawn_NL = random_mixture(6, 15, 6).sample(3_000, seed=0)
    scores = [
        fit_label_mixture(drawn_NL, num_components=k, seed=1, restarts=r).log_prob(drawn_NL).mean()
        for k, r in ((1, 1), (6, 1), (6, 4))
    ]
    assert scores[0] < scores[1] <= scores[2]
    again = fit_label_mixture(drawn_NL, num_components=6, seed=1).log_prob(drawn_NL).mean()
    assert again == scores[1]


def test_labels_unknown_at_random_do_not_bias_the_fit() -> None:
    truth = random_mixture(3, 10, 7)
    targets_NL, known_NL = truth.sample(20_000, seed=0), np.random.default_rng(0).random((20_000, 10)) < 0.5
    masked = fit_label_mixture(targets_NL, known_NL, num_components=3, seed=0, restarts=2)
    as_absent = fit_label_mixture(targets_NL & known_NL, num_components=3, seed=0, restarts=2)
    np.testing.assert_allclose(masked.marginals_L, truth.marginals_L, atol=0.03)
    unseen_NL = truth.sample(10_000, seed=1)
    assert truth.log_prob(unseen_NL).mean() - masked.log_prob(unseen_NL).mean() < 0.02
    assert truth.log_prob(unseen_NL).mean() - as_absent.log_prob(unseen_NL).mean() > 0.3


def test_retention_undoes_dropped_labels() -> None:
    truth = random_mixture(3, 10, 8)
    kept_NL = truth.sample(30_000, seed=0) & (np.random.default_rng(0).random((30_000, 10)) < 0.5)
    corrected = fit_label_mixture(kept_NL, num_components=3, seed=0, restarts=3, retention=0.5)
    np.testing.assert_allclose(corrected.marginals_L, truth.marginals_L, atol=0.03)
    unseen_NL = truth.sample(10_000, seed=1)
    assert truth.log_prob(unseen_NL).mean() - corrected.log_prob(unseen_NL).mean() < 0.05


def test_fifty_components_come_below_8_7_nats_on_coco(shared: Path) -> None:
    lists = pq.read_table(shared / "labels" / "coco_train2014_labels.parquet")["labels"].to_pylist()
    targets_NL = from_label_lists(lists, 80)[np.random.default_rng(0).permutation(len(lists))]
    fitted = fit_label_mixture(targets_NL[:65_000], num_components=50, seed=0, tolerance=1e-3)
    assert -fitted.log_prob(targets_NL[65_000:]).mean() <= 8.7


def test_saved_mixture_is_the_same(tmp_path: Path) -> None:
    mixture, uri = random_mixture(3, 5, 9), str(tmp_path / "mixture.npz")
    mixture.save(uri)
    for name, array in LabelMixture.load(uri).to_arrays().items():
        assert np.array_equal(array, mixture.to_arrays()[name])


def test_what_is_no_mixture_is_refused(tmp_path: Path) -> None:
    half_K, p_KL = np.full(2, 0.5), np.full((2, 3), 0.5)
    with pytest.raises(ModelError, match=r"weights \[K\] and probabilities \[K, L\], found \(2,\), \(3, 2\)"):
        LabelMixture(half_K, p_KL.T)
    with pytest.raises(ModelError, match=r"positive and sum to 1; smallest 0.6, sum 1.2"):
        LabelMixture(half_K + 0.1, p_KL)
    with pytest.raises(ModelError, match=r"strictly between 0 and 1, found 0.5 to 1.0; clip them"):
        LabelMixture(half_K, np.array([[0.5, 1.0], [0.5, 0.5]]))
    with pytest.raises(ModelError, match="lacks mixing_weights_K; found probabilities_KL"):
        LabelMixture.from_arrays({"probabilities_KL": p_KL})
    (tmp_path / "text.npz").write_text("no arrays")
    with pytest.raises(ModelError, match=r"is not a label mixture .*; write one with LabelMixture.save"):
        LabelMixture.load(str(tmp_path / "text.npz"))


def test_faulty_fits_are_refused() -> None:
    targets_NL = np.zeros((4, 3), dtype=bool)
    with pytest.raises(SpecError, match="num_components 0, restarts 1 and max_iterations 300 must be at least 1"):
        fit_label_mixture(targets_NL, num_components=0, seed=0)
    with pytest.raises(SpecError, match=r"retention 1.5 must be in \(0, 1\]"):
        fit_label_mixture(targets_NL, num_components=1, seed=0, retention=1.5)
    with pytest.raises(DataError, match=r"bool \[N, L\] with N >= 1, found int64 \(4, 3\)"):
        fit_label_mixture(targets_NL.astype(np.int64), num_components=1, seed=0)
    with pytest.raises(DataError, match=r"known must be bool \(4, 3\) like the targets, found bool \(3, 3\)"):
        fit_label_mixture(targets_NL, targets_NL[:3], num_components=1, seed=0)
