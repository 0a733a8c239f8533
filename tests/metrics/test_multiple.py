"""Adjusted p-values against the procedure written out, and what it must hold for one, equal and constant differences."""

import numpy as np
import pytest

from rayprob.metrics.multiple import adjusted_p_values


def step_down(differences: np.ndarray, drawn: np.ndarray) -> list[float]:
    """The step-down maxT procedure, difference by difference."""
    errors = drawn.std(axis=0)
    ratios, noise = abs(differences) / errors, abs(drawn - differences) / errors
    remaining, last, p = list(range(len(ratios))), 0.0, {}
    while remaining:
        largest = max(remaining, key=lambda m: ratios[m])
        exceeded = sum(row[remaining].max() >= ratios[largest] for row in noise)
        last = p[largest] = max(last, (1 + exceeded) / (1 + len(drawn)))
        remaining.remove(largest)
    return [p[m] for m in range(len(ratios))]


@pytest.mark.parametrize("seed", range(5))
def test_p_values_are_those_of_the_procedure(seed: int) -> None:
    random = np.random.default_rng(seed)
    differences = random.normal(scale=2, size=7)
    drawn = differences + random.normal(size=(60, 7)) @ random.normal(size=(7, 7))
    assert adjusted_p_values(differences, drawn).tolist() == pytest.approx(step_down(differences, drawn))


def test_the_same_difference_twice_costs_nothing_and_another_one_does() -> None:
    random = np.random.default_rng(0)
    drawn = 2 + random.normal(size=(2000, 1))
    alone = adjusted_p_values(np.array([2.0]), drawn)[0]
    assert alone == pytest.approx(0.0455, abs=0.015)
    twice = adjusted_p_values(np.array([2.0, 2.0]), np.repeat(drawn, 2, axis=1))
    assert twice.tolist() == [alone, alone]
    beside = np.concatenate([drawn, random.normal(size=(2000, 1))], axis=1)
    assert adjusted_p_values(np.array([2.0, 0.0]), beside)[0] > 1.5 * alone


def test_a_difference_of_equal_tables_is_chance_and_undefined_draws_are_left_out() -> None:
    drawn = np.column_stack([np.zeros(99), np.full(99, np.nan), 5 + np.tile([-1.0, 0.0, 1.0], 33)])
    drawn[:3, 2] = np.nan
    assert adjusted_p_values(np.array([0.0, np.nan, 5.0]), drawn).tolist() == [1.0, 1.0, 0.01]
    assert len(adjusted_p_values(np.empty(0), np.empty((9, 0)))) == 0
