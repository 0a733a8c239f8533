"""Why a label is believed, against conditional probabilities by brute force."""

import numpy as np
import pytest

from rayprob.errors import QueryError
from rayprob.labels import LabelSpace
from rayprob.probability.distributions.distribution import MixtureDistribution
from rayprob.probability.queries.explain import component_names, explain
from tests.probability.brute_force import ask, letters, random_bernoulli, random_mixture

KITCHEN_AND_STREET = MixtureDistribution(
    np.log([[0.3, 0.7]]), np.array([[[3.0, 2.0, -6.0, -6.0, 0.0], [-6.0, -6.0, 3.0, 1.0, 0.0]]])
)
SPACE = LabelSpace(("fork", "cup", "car", "bus", "person"), (1, 2, 3, 4, 5))


def brute_log_odds(given: MixtureDistribution, column: int, evidence: dict[int, bool]) -> float:
    p = ask(given, lambda s: column in s, lambda s: all((c in s) == value for c, value in evidence.items()))[0]
    return float(np.log(p / (1 - p)))


def test_pieces_are_differences_of_log_odds() -> None:
    given, evidence = random_mixture(0, num_images=1), {1: True, 4: False, 6: True}
    why = explain(given, 2, evidence, letters(8))
    assert why.log_odds_before == pytest.approx(brute_log_odds(given, 2, {}), abs=1e-9)
    assert why.log_odds == pytest.approx(brute_log_odds(given, 2, evidence), abs=1e-9)
    for piece in why.pieces:
        column = "abcdefgh".index(piece.name)
        alone = brute_log_odds(given, 2, {column: evidence[column]}) - why.log_odds_before
        others = {other: value for other, value in evidence.items() if other != column}
        assert piece.alone == pytest.approx(alone, abs=1e-9)
        assert piece.last == pytest.approx(why.log_odds - brute_log_odds(given, 2, others), abs=1e-9)
        assert piece.is_present == evidence[column]
    assert [abs(piece.last) for piece in why.pieces] == sorted((abs(piece.last) for piece in why.pieces), reverse=True)


def test_responsible_components_are_named_by_their_labels() -> None:
    why = explain(KITCHEN_AND_STREET, 1, {0: True}, SPACE)
    assert why.label == "cup"
    assert why.log_odds > 1.9
    assert why.log_odds_before < 0
    first, second = why.scenes
    assert (first.component, first.name) == (0, "fork, cup")
    assert (second.component, second.name) == (1, "car, bus")
    assert first.weight_before == pytest.approx(0.3)
    assert first.weight > 0.99
    assert first.share + second.share == pytest.approx(1)
    assert first.probability == pytest.approx(1 / (1 + np.exp(-2.0)))
    named = explain(KITCHEN_AND_STREET, 1, {0: True}, SPACE, names_K=["kitchen", "street"], num_scenes=1)
    assert [scene.name for scene in named.scenes] == ["kitchen"]


def test_components_without_character_say_so() -> None:
    assert component_names(np.full((2, 5), 0.3), np.full(2, 0.5), SPACE) == ["nothing in particular"] * 2
    assert component_names(np.array([[0.9, 0.0, 0.9, 0.1, 0.5], [0.1, 0.0, 0.1, 0.8, 0.5]]), np.full(2, 0.5), SPACE, 1) == [
        "fork",
        "bus",
    ]


def test_independent_labels_explain_nothing() -> None:
    why = explain(random_bernoulli(0, num_images=1), 0, {1: True, 2: False}, letters(8))
    assert all(abs(piece.alone) < 1e-9 and abs(piece.last) < 1e-9 for piece in why.pieces)
    assert why.scenes[0].share == 1


def test_what_cannot_be_explained_is_refused() -> None:
    with pytest.raises(QueryError, match="'c' is itself evidence, so there is nothing to explain"):
        explain(random_mixture(0, num_images=1), 2, {2: True}, letters(8))
    with pytest.raises(QueryError, match=r"one image is explained at a time, found 4; pass distribution\[\[image\]\]"):
        explain(random_mixture(0), 2, {1: True}, letters(8))
