"""How many components held-out label sets ask for, and what components are called."""

import numpy as np
import pytest

from rayprob.errors import DataError
from rayprob.probability.distributions.mixture import LabelMixture
from rayprob.probability.priors.fit import fit_prior, scene_names

TRUE = LabelMixture(np.array([0.6, 0.4]), np.array([[0.8, 0.7, 0.05, 0.05, 0.3], [0.05, 0.05, 0.8, 0.6, 0.3]]))


def test_held_out_label_sets_find_the_number_of_components() -> None:
    tried: list[int] = []
    fit = fit_prior(TRUE.sample(3000, seed=1), components=(1, 2, 5, 10, 20, 50), on_fit=tried.append)
    assert fit.num_components == len(fit.mixture.mixing_weights_K) == tried[-1]
    assert fit.num_components in (2, 5)
    assert fit.nats_by_components[2] < fit.independent_nats - 0.2
    assert fit.nats_by_components[2] < fit.chow_liu_nats
    assert 50 not in tried  # two in a row were worse before


def test_label_sets_of_independent_labels_ask_for_one() -> None:
    independent = np.random.default_rng(0).random((2000, 6)) < np.linspace(0.1, 0.6, 6)
    assert fit_prior(independent, components=(1, 2, 5)).num_components == 1


def test_partly_known_label_sets_are_fitted_to_what_is_known() -> None:
    targets_NL = TRUE.sample(4000, seed=2)
    known_NL = np.random.default_rng(3).random(targets_NL.shape) < 0.5
    fit = fit_prior(targets_NL & known_NL, known_NL, components=(1, 2))
    assert fit.num_components == 2
    assert fit.chow_liu_nats is None
    fresh_NL = TRUE.sample(2000, seed=4)
    assert fit.mixture.log_prob(fresh_NL).mean() == pytest.approx(TRUE.log_prob(fresh_NL).mean(), abs=0.05)


def test_a_handful_of_label_sets_is_refused() -> None:
    with pytest.raises(DataError, match="19 label sets are too few for a label prior; give at least 20"):
        fit_prior(TRUE.sample(19, seed=0))


def test_a_component_is_called_by_what_it_has_more_of_than_others() -> None:
    assert scene_names(TRUE, ["fork", "knife", "car", "bus", "person"]) == ["fork, knife", "car, bus"]
