"""Both families of distributions, against sums over all 2^L label sets."""

import numpy as np
import pytest
import torch

from rayprob.errors import ModelError, QueryError
from rayprob.probability.distributions import distribution as distribution_module
from rayprob.probability.distributions import information
from rayprob.probability.distributions.counts import count_probabilities
from rayprob.probability.distributions.distribution import (
    BernoulliDistribution,
    LabelDistribution,
    MixtureDistribution,
)
from rayprob.probability.distributions.evidence import Evidence
from rayprob.probability.families import from_outputs
from tests.probability.brute_force import Floats, all_sets, both_families, random_bernoulli, random_mixture, set_probabilities

EXACT = {"rtol": 0, "atol": 1e-10}
CASES = [case for seed, size in enumerate((1, 2, 5, 8, 12)) for case in both_families(seed, num_labels=size)]


def entropy_of(probability_S: np.ndarray) -> float:
    positive = probability_S[probability_S > 0]
    return float(-(positive * np.log(positive)).sum())


@pytest.mark.parametrize("given", CASES)
def test_marginals_equal_brute_force(given: LabelDistribution) -> None:
    expected_BL = set_probabilities(given) @ all_sets(given.num_labels)
    np.testing.assert_allclose(given.marginals(), expected_BL, **EXACT)
    np.testing.assert_allclose(given.marginal_logits(), np.log(expected_BL / (1 - expected_BL)), rtol=1e-9)


@pytest.mark.parametrize("given", CASES)
def test_log_prob_equals_brute_force_with_and_without_unknown_labels(given: LabelDistribution) -> None:
    random, sets_SL, p_BS = np.random.default_rng(0), all_sets(given.num_labels), set_probabilities(given)
    for _ in range(3):
        rows_B = random.integers(len(sets_SL), size=len(given))
        np.testing.assert_allclose(np.exp(given.log_prob(sets_SL[rows_B])), p_BS[np.arange(len(given)), rows_B], **EXACT)
        known_BL = random.random((len(given), given.num_labels)) < 0.5
        agrees_BS = ((sets_SL[None] == sets_SL[rows_B][:, None]) | ~known_BL[:, None]).all(axis=2)
        expected_B = (p_BS * agrees_BS).sum(axis=1)
        np.testing.assert_allclose(np.exp(given.log_prob(sets_SL[rows_B], known_BL)), expected_B, **EXACT)


@pytest.mark.parametrize("given", CASES)
def test_conditioned_distribution_is_bayes_rule_on_every_label_set(given: LabelDistribution) -> None:
    sets_SL, p_BS = all_sets(given.num_labels), set_probabilities(given)
    for evidence in ({0: True}, {0: False, given.num_labels - 1: False}):
        holds_S = np.all([sets_SL[:, column] == value for column, value in evidence.items()], axis=0)
        expected_BS = p_BS * holds_S / (p_BS * holds_S).sum(axis=1, keepdims=True)
        conditioned = given.condition(evidence)
        assert type(conditioned) is type(given)
        np.testing.assert_allclose(set_probabilities(conditioned), expected_BS, **EXACT)
        np.testing.assert_allclose(conditioned.marginals(), expected_BS @ sets_SL, **EXACT)


def test_evidence_may_differ_between_images() -> None:
    given, random = random_mixture(0), np.random.default_rng(0)
    values_BL, known_BL = random.random((2, 4, 8)) < 0.5
    conditioned = given.condition(Evidence(values_BL, known_BL))
    for image in range(4):
        own = {int(column): bool(values_BL[image, column]) for column in np.flatnonzero(known_BL[image])}
        np.testing.assert_allclose(conditioned[[image]].marginals(), given[[image]].condition(own).marginals(), **EXACT)


def test_conditioning_twice_equals_conditioning_at_once() -> None:
    given = random_mixture(1)
    twice = given.condition({1: True}).condition({4: False, 1: True})
    np.testing.assert_allclose(twice.marginals(), given.condition({1: True, 4: False}).marginals(), **EXACT)


def test_very_unlikely_evidence_keeps_its_digits() -> None:
    logits_BKL = np.array([[[-800.0, -600.0, 3.0], [-790.0, -620.0, -3.0]]])
    conditioned = MixtureDistribution(np.zeros((1, 2)), logits_BKL).condition({0: True, 1: True})
    weight = 1 / (1 + np.exp(-10.0))  # the first component: e^-1400 against e^-1410
    sigmoid = 1 / (1 + np.exp(-3.0))
    assert conditioned.marginals()[0, 2] == pytest.approx(weight * sigmoid + (1 - weight) * (1 - sigmoid), abs=1e-12)


@pytest.mark.parametrize("given", CASES)
def test_count_distribution_equals_brute_force(given: LabelDistribution) -> None:
    counts_S = all_sets(given.num_labels).sum(axis=1)
    expected_BN = set_probabilities(given) @ (counts_S[:, None] == np.arange(given.num_labels + 1))
    np.testing.assert_allclose(given.count_distribution(), expected_BN, **EXACT)


@pytest.mark.parametrize("given", CASES)
def test_entropy_of_up_to_twelve_labels_equals_brute_force_exactly(given: LabelDistribution) -> None:
    found = given.entropy()
    np.testing.assert_allclose(found.value_B, [entropy_of(p_S) for p_S in set_probabilities(given)], **EXACT)
    assert not found.standard_error_B.any()


def test_entropy_of_many_labels_is_estimated_within_its_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    given = random_mixture(3, num_images=40, num_labels=10)
    exact_B = given.entropy().value_B
    monkeypatch.setattr(information, "ENUMERATED_LABELS", 4)
    found = given.entropy(num_samples=400, seed=1)
    z_B = (found.value_B - exact_B) / found.standard_error_B
    assert 0.6 < z_B.std() < 1.5
    assert abs(z_B.mean()) < 0.5
    assert np.array_equal(found.value_B, given.entropy(num_samples=400, seed=1).value_B)
    assert np.isnan(given.entropy(num_samples=1).standard_error_B).all()
    certain = given.condition({0: True, 3: False})
    assert abs(certain.entropy(num_samples=2000).value_B - [entropy_of(p) for p in set_probabilities(certain)]).max() < 0.1


@pytest.mark.parametrize("given", CASES)
def test_mutual_information_and_pairs_equal_brute_force(given: LabelDistribution) -> None:
    sets_SL, p_BS = all_sets(given.num_labels), set_probabilities(given)
    found_BLL, pairs_BLL = given.mutual_information(), given.pair_probabilities()
    for i in range(given.num_labels):
        for j in range(given.num_labels):
            codes_S = 2 * sets_SL[:, i] + sets_SL[:, j]
            joint_B4 = np.stack([(p_BS * (codes_S == code)).sum(axis=1) for code in range(4)], axis=1)
            first_B2 = np.stack([joint_B4[:, :2].sum(axis=1), joint_B4[:, 2:].sum(axis=1)], axis=1)
            second_B2 = np.stack([joint_B4[:, ::2].sum(axis=1), joint_B4[:, 1::2].sum(axis=1)], axis=1)
            expected_B = [
                entropy_of(f) + entropy_of(s) - entropy_of(q) for f, s, q in zip(first_B2, second_B2, joint_B4, strict=True)
            ]
            np.testing.assert_allclose(found_BLL[:, i, j], expected_B, **EXACT)
            np.testing.assert_allclose(pairs_BLL[:, i, j], joint_B4[:, 3], **EXACT)


@pytest.mark.parametrize("given", [given for given in CASES if given.num_labels <= 8])
def test_expected_f1_set_equals_trying_every_prediction_on_every_truth(given: LabelDistribution) -> None:
    sets_SL = all_sets(given.num_labels).astype(float)
    size_S = sets_SL.sum(axis=1)
    f1_SS = 2 * sets_SL @ sets_SL.T / np.maximum(size_S[:, None] + size_S, 1)
    f1_SS[0, 0] = 1  # nothing predicted, nothing true
    expected_BS = set_probabilities(given) @ f1_SS
    found = given.best_f1_sets()
    np.testing.assert_allclose(found.expected_f1_B, expected_BS.max(axis=1), **EXACT)
    place_B = found.sets_BL @ (2 ** np.arange(given.num_labels)[::-1])
    np.testing.assert_allclose(expected_BS[np.arange(len(given)), place_B], expected_BS.max(axis=1), **EXACT)


def expected_f1_by_counting(logits_KL: Floats, weights_K: Floats) -> Floats:
    """The largest expected F1 of a set of each size [L + 1], from the count of the other labels beside each label."""
    num_labels = logits_KL.shape[1]
    present_KL, absent_KL = 1 / (1 + np.exp(-logits_KL)), 1 / (1 + np.exp(logits_KL))
    joint_LN = np.empty((num_labels, num_labels))
    for label in range(num_labels):
        others = [np.delete(side_KL, label, axis=1).T for side_KL in (present_KL, absent_KL)]
        joint_LN[label] = count_probabilities(*others, num_labels - 1) @ (weights_K * present_KL[:, label])
    sizes = np.arange(1, num_labels + 1)
    score_LM = joint_LN @ (2 / (sizes[:, None] + sizes))
    best_M = [np.sort(score_LM[:, m])[::-1][: m + 1].sum() for m in range(num_labels)]
    return np.array([weights_K @ absent_KL.prod(axis=1), *best_M])


@pytest.mark.parametrize("mean", [-8.0, -3.0, 0.0, 4.0])
def test_expected_f1_sets_of_eighty_labels_equal_those_by_counting(mean: float) -> None:
    random = np.random.default_rng(0)
    weights_K, logits_KL = random.dirichlet(np.ones(3)), random.normal(mean, 2, (3, 80))
    logits_KL[1] = mean  # labels that are all alike, of which a good set takes many
    given = MixtureDistribution(np.log(weights_K)[None], logits_KL[None])
    expected_M = expected_f1_by_counting(logits_KL, weights_K)
    found = given.best_f1_sets()
    np.testing.assert_allclose(found.expected_f1_B, [expected_M.max()], atol=1e-12)
    assert expected_M[found.sets_BL.sum()] == pytest.approx(expected_M.max(), abs=1e-12)


def test_a_large_set_of_doubtful_labels_may_be_the_best() -> None:
    given = BernoulliDistribution(np.full((1, 80), -3.0))
    found, expected_M = given.best_f1_sets(), expected_f1_by_counting(np.full((1, 80), -3.0), np.ones(1))
    assert found.sets_BL.sum() == expected_M.argmax() == 80
    np.testing.assert_allclose(found.expected_f1_B, [expected_M.max()], atol=1e-12)


def test_samples_have_the_pairwise_frequencies_of_the_distribution() -> None:
    for given in both_families(2, num_images=2, num_labels=5):
        drawn_SBL = given.sample(60_000, seed=0).astype(float)
        pairs_BLL = np.einsum("sbi,sbj->bij", drawn_SBL, drawn_SBL) / len(drawn_SBL)
        np.testing.assert_allclose(pairs_BLL, given.pair_probabilities(), atol=0.012)
        assert np.array_equal(given.sample(5, seed=3), given.sample(5, seed=3))


def test_a_mixture_of_one_component_is_the_independent_model() -> None:
    independent = random_bernoulli(4)
    mixture = MixtureDistribution(np.full((4, 1), 7.0), independent.logits_BL[:, None])
    targets_BL = np.random.default_rng(0).random((4, 8)) < 0.5
    np.testing.assert_allclose(mixture.marginals(), independent.marginals(), **EXACT)
    np.testing.assert_allclose(mixture.log_prob(targets_BL), independent.log_prob(targets_BL), **EXACT)
    np.testing.assert_allclose(mixture.entropy().value_B, independent.entropy().value_B, **EXACT)
    np.testing.assert_allclose(mixture.condition({2: True}).marginals(), independent.condition({2: True}).marginals(), **EXACT)
    assert np.array_equal(mixture.top_sets(3).sets_BTL, independent.top_sets(3).sets_BTL)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    given = random_mixture(5, num_images=7)
    sets_BL = given.marginals() > 0.4
    whole = (given.marginals(), given.log_prob(sets_BL), given.mutual_information(), given.condition({1: True}).marginals())
    monkeypatch.setattr(distribution_module, "CHUNK_BYTES", 500)
    assert len(list(given.chunks())) > 3
    parts = (given.marginals(), given.log_prob(sets_BL), given.mutual_information(), given.condition({1: True}).marginals())
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, **EXACT)


def test_no_images_have_no_answers() -> None:
    for given in (random_mixture(0)[:0], random_bernoulli(0)[:0]):
        assert given.marginals().shape == (0, 8)
        assert given.top_sets(2).sets_BTL.shape == (0, 2, 8)
        assert given.best_f1_sets().sets_BL.shape == (0, 8)
        assert given.entropy().value_B.shape == (0,)
        assert given.condition({0: True}).marginals().shape == (0, 8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_outputs_of_heads_become_distributions(dtype: torch.dtype) -> None:
    mixing_BK, logits_BKL = torch.randn(3, 2, dtype=dtype, requires_grad=True), torch.randn(3, 2, 5, dtype=dtype)
    mixture = from_outputs("mixture", {"mixing_logits": mixing_BK, "component_logits": logits_BKL})
    expected = (mixing_BK.double().softmax(1)[:, :, None] * logits_BKL.double().sigmoid()).sum(1)
    np.testing.assert_allclose(mixture.marginals(), expected.detach().numpy(), rtol=1e-6)
    independent = from_outputs("bernoulli", {"logits": logits_BKL[:, 0]})
    np.testing.assert_allclose(independent.marginals(), logits_BKL[:, 0].double().sigmoid().numpy(), rtol=1e-6)


def test_faulty_outputs_are_refused() -> None:
    with pytest.raises(ModelError, match=r"unknown family 'bernouli'; nearest: bernoulli; allowed: bernoulli, .*mixture"):
        from_outputs("bernouli", {})
    with pytest.raises(ModelError, match="'mixture' needs outputs mixing_logits, component_logits; found logits"):
        from_outputs("mixture", {"logits": np.zeros((1, 2))})
    with pytest.raises(ModelError, match=r"logits \[B, L\] expected, found shape \(2,\)"):
        BernoulliDistribution(np.zeros(2))
    with pytest.raises(ModelError, match=r"mixing logits \(3, 2\) and component logits \(3, 4, 5\) do not fit"):
        MixtureDistribution(np.zeros((3, 2)), np.zeros((3, 4, 5)))
    with pytest.raises(ModelError, match=r"contain nan, first in image 1; the model diverged"):
        BernoulliDistribution(np.array([[0.0, np.inf], [np.nan, -np.inf]]))


def test_impossible_evidence_is_refused_and_names_the_image() -> None:
    for given in both_families(0):
        certain = given.condition({1: True})
        with pytest.raises(QueryError, match="the evidence has probability 0 for 4 of 4 images, first image 0: it contradicts"):
            certain.condition({1: False})
    logits_BL = np.zeros((3, 2))
    logits_BL[2, 0] = -np.inf
    with pytest.raises(QueryError, match="for 1 of 3 images, first image 2"):
        BernoulliDistribution(logits_BL).condition({0: True})


def test_evidence_of_the_wrong_shape_is_refused() -> None:
    with pytest.raises(QueryError, match=r"shape \(1, 5\); these distributions have 4 images and 8 labels"):
        random_mixture(0).condition(Evidence.of({0: True}, 5))
    with pytest.raises(QueryError, match=r"values and known flags \[B, L\], found \(8,\), \(8,\)"):
        Evidence(np.zeros(8, dtype=bool), np.zeros(8, dtype=bool))
