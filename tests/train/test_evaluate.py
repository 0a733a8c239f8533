"""From predictions to the numbers that a run records."""

import numpy as np

from rayprob.labels import LabelSpace
from rayprob.metrics.counting import top_k
from rayprob.metrics.protocols import published_metrics
from rayprob.probability.families import from_outputs
from rayprob.runs.predictions import Predictions
from rayprob.train.evaluate import evaluation_numbers, marginals, ranking_scores


def sure_mixture() -> Predictions:
    """Marginals that all round to 1 in the first label and to 0 in the second; the larger logits are right."""
    steps_N = np.arange(6, dtype=np.float32)
    logits_NL = np.stack([50 + steps_N, -800 + steps_N], axis=1)
    targets_NL = np.repeat(steps_N[:, None] >= 3, 2, axis=1)
    outputs = {"mixing_logits": np.zeros((6, 2), np.float32), "component_logits": np.repeat(logits_NL[:, None], 2, axis=1)}
    space = LabelSpace(("a", "b"), (0, 1))
    return Predictions(space, np.arange(6), targets_NL, np.ones_like(targets_NL), "mixture", outputs, {"split": "val"})


def test_a_mixture_is_ranked_where_its_marginals_saturate() -> None:
    predictions = sure_mixture()
    assert len(np.unique(marginals(predictions)[:, 0])) == 1
    numbers = evaluation_numbers(predictions)
    assert numbers["mAP"] == 1.0
    assert numbers["ap"] == {"a": 1.0, "b": 1.0}


def test_published_protocols_rank_by_scores_where_they_are_given() -> None:
    predictions = sure_mixture()
    truth, scores_NL = (marginals(predictions), predictions.targets_NL), ranking_scores(predictions)
    assert published_metrics("rayprob", *truth).mAP < 0.8
    assert published_metrics("rayprob", *truth, scores_NL=scores_NL).mAP == 1.0


def test_top_labels_of_a_mixture_are_told_apart_where_its_marginals_saturate() -> None:
    logits_BKL = np.array([[[40.0, 60.0, 50.0, 0.0]] * 2])
    mixture = from_outputs("mixture", {"mixing_logits": np.zeros((1, 2)), "component_logits": logits_BKL})
    assert top_k(mixture.ranking_scores(), 1).tolist() == [[False, True, False, False]]


def test_independent_labels_are_ranked_by_the_logits_as_they_are() -> None:
    logits_BL = np.array([[50.0, -1e4]], dtype=np.float32)
    assert from_outputs("bernoulli", {"logits": logits_BL}).ranking_scores() is logits_BL


def test_marginals_of_sure_components_do_not_exceed_one() -> None:
    # Three weights of 1/3 sum to 1 + 2e-16 in some orders, and calibration refuses marginals beyond 1.
    random = np.random.default_rng(0)
    mixture = from_outputs(
        "mixture", {"mixing_logits": random.normal(size=(500, 7)), "component_logits": np.full((500, 7, 1), 99.0)}
    )
    assert mixture.marginals().max() == 1.0
