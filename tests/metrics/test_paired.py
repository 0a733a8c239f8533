"""Models compared on the same images: values are those of the metrics, equal models differ by chance, better ones are found."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, log_expit

from rayprob.errors import MetricError
from rayprob.metrics.counting import count_metrics
from rayprob.metrics.paired import LEAST_POSITIVES, ModelTables, PairedComparison, compare_models
from rayprob.metrics.ranking import mean_average_precision
from rayprob.metrics.reliability import expected_calibration_error

NAMES = ("often", "half", "rare", "never")
PREVALENCES = (0.7, 0.5, 0.03, 0.0)


def tables(logits_NL: np.ndarray, targets_NL: np.ndarray) -> ModelTables:
    marginals_NL = expit(logits_NL)
    log_prob_N = log_expit(np.where(targets_NL, logits_NL, -logits_NL)).sum(axis=1)
    return ModelTables(logits_NL, marginals_NL, log_prob_N, {"at 0.5": marginals_NL >= 0.5})


def drawn(seed: int, *noises: float, num_images: int = 200) -> tuple[list[ModelTables], np.ndarray]:
    """Return a model for each noise, and the targets."""
    random = np.random.default_rng(seed)
    targets_NL = random.random((num_images, len(NAMES))) < PREVALENCES
    signal_NL = np.where(targets_NL, 1.0, -1.0) + random.normal(size=targets_NL.shape)
    return [tables(signal_NL + noise * random.normal(size=signal_NL.shape), targets_NL) for noise in noises], targets_NL


def compared(models: list[ModelTables], targets_NL: np.ndarray, **options: int) -> PairedComparison:
    return compare_models(models, NAMES, targets_NL, np.ones_like(targets_NL), **options)


def test_values_are_those_of_the_metrics_and_differences_are_of_them() -> None:
    models, targets_NL = drawn(0, 0.2, 1.0, 0.5)
    found = compared(models, targets_NL, draws=50)
    assert [row.name for row in found.numbers] == ["mAP", "OF1 at 0.5", "CF1 at 0.5", "ECE", "NLL"]
    for place, model in enumerate(models):
        counted = count_metrics(model.sets["at 0.5"], targets_NL)
        ece = expected_calibration_error(model.marginals_NL, targets_NL)
        means = mean_average_precision(model.scores_NL, targets_NL)
        expected = [means.value, counted.OF1, counted.CF1, ece, -model.log_prob_N.mean()]
        assert [row.values[place].value for row in found.numbers] == pytest.approx(expected)
        assert [row.values[place].value for row in found.labels] == pytest.approx(means.ap_L[:3].tolist())
    for row in (*found.numbers, *found.labels):
        assert [each.value for each in row.differences] == [value.value - row.values[0].value for value in row.values[1:]]
        assert all(value.low <= value.high for value in row.values)


def test_a_planted_difference_is_found_in_every_number_and_label_with_enough_positives() -> None:
    models, targets_NL = drawn(0, 0.2, 3.0, num_images=250)
    found = compared(models, targets_NL, draws=200)
    assert all(row.differences[0].is_clear for row in found.numbers)
    assert [row.differences[0].value > 0 for row in found.numbers] == [row.is_better_lower for row in found.numbers]
    often, half, rare = found.labels  # and not the label without a positive
    assert often.differences[0].is_clear
    assert half.differences[0].is_clear
    assert rare.positives is not None
    assert rare.positives < LEAST_POSITIVES
    assert (rare.differences[0].p_value, rare.differences[0].is_clear) == (None, False)


def test_a_model_equals_itself() -> None:
    (model,), targets_NL = drawn(0, 1.0)
    found = compared([model, model], targets_NL, draws=20)
    differences = [row.differences[0] for row in (*found.numbers, *found.labels[:2])]
    assert {(each.value, each.low, each.high, each.p_value) for each in differences} == {(0.0, 0.0, 0.0, 1.0)}


def test_equal_models_are_rarely_found_to_differ() -> None:
    # The seeds are fixed; benchmarks/compare_calibration.py measures the rate.
    found = [compared(*drawn(seed, 0.7, 0.7, num_images=100), draws=100) for seed in range(25)]
    assert sum(any(row.differences[0].is_clear for row in (*one.numbers, *one.labels)) for one in found) <= 2


def test_unknown_targets_change_nothing_whatever_they_are() -> None:
    models, targets_NL = drawn(0, 0.2, 1.0)
    known_NL = np.random.default_rng(1).random(targets_NL.shape) < 0.8
    models = [replace(model, log_prob_N=np.zeros(len(targets_NL))) for model in models]
    one, other = (compare_models(models, NAMES, t, known_NL, draws=20) for t in (targets_NL, targets_NL ^ ~known_NL))
    assert one == other


def test_what_cannot_be_compared_is_named() -> None:
    models, targets_NL = drawn(0, 0.2, 1.0)
    with pytest.raises(MetricError, match="at least two models; got 1"):
        compared(models[:1], targets_NL)
    with pytest.raises(MetricError, match="no label has a known positive"):
        compared(models, np.zeros_like(targets_NL))
    with pytest.raises(MetricError, match=r"label sets with the same names; got at 0\.5; tuned"):
        compared([models[0], replace(models[1], sets={"tuned": models[1].sets["at 0.5"]})], targets_NL)
    with pytest.raises(MetricError, match="at least 1 image and 1 draw"):
        compared(models, targets_NL, draws=0)
