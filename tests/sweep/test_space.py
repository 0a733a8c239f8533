"""Parameters, their faults, and what they make of a run file."""

from typing import Any

import pytest

from rayprob.errors import SpecError
from rayprob.sweep.space import Parameter, applies, at_resolution, grid_cells, shrunk, with_params

RUN: dict[str, Any] = {
    "loss": {"name": "bce", "gamma": 2.0},
    "transforms": {"train": {"size_px": 100}, "evaluate": {"size_px": 150}},
    "model": {"image_size_px": None},
    "placement": {"micro_batch": 12},
    "evaluation": {"micro_batch": 64},
}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "exactly one of choice, grid, uniform, loguniform, quniform; found none"),
        ({"choice": [1], "uniform": [0, 1]}, "found choice, uniform"),
        ({"choice": []}, "is empty; list at least one value"),
        ({"grid": [1, 1]}, "lists a value twice"),
        ({"uniform": [1, 1]}, "uniform from 1 to 1 is empty"),
        ({"loguniform": [0.1, 0.001]}, "loguniform from 0.1 to 0.001 is empty"),
        ({"loguniform": [0, 1]}, "loguniform from 0: both ends must be above 0"),
        ({"quniform": [0, 1, 2]}, "quniform's step 2 is not between 0 and 1"),
        ({"quniform": [0, 1, 1e-9]}, "quniform has 1,000,000,000 values; allowed: at most 10,000"),
        ({"quniform": [0, 1e300, 1e-300]}, "quniform has .* values; allowed: at most 10,000"),
        ({"uniform": [-1.7e308, 1.7e308]}, r"uniform from -1.7e\+308 to 1.7e\+308 is wider than the largest number"),
        ({"uniform": [0, float("inf")]}, r"uniform\[1\]: expected a finite number"),
        ({"choice": [1, 1.0]}, "lists a value twice"),
    ],
)
def test_a_parameter_without_values_is_refused_with_its_reason(value: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Parameter.parse(value)


def test_numbers_without_a_point_are_numbers_and_quoted_ones_text() -> None:
    listed = Parameter.read_text("choice: [1e-4, 3, '1e-4', bce, true]", "here").values
    assert listed == [1e-4, 3, "1e-4", "bce", True]
    assert [type(value) for value in listed] == [float, int, str, str, bool]
    assert Parameter.read_text("loguniform: [1e-4, 1e-2]", "here").bounds == (1e-4, 1e-2)


def test_a_stepped_range_holds_both_ends() -> None:
    assert Parameter.parse({"quniform": [0.1, 0.5, 0.1]}).steps == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])


def test_a_grid_has_every_combination_once() -> None:
    space = {
        "a": Parameter.parse({"grid": [1, 2, 3]}),
        "b": Parameter.parse({"uniform": [0, 1]}),
        "c": Parameter.parse({"grid": [True, False]}),
    }
    cells = grid_cells(space)
    assert len(cells) == 6
    assert {(cell["a"], cell["c"]) for cell in cells} == {(a, c) for a in (1, 2, 3) for c in (True, False)}


def test_a_conditional_parameter_follows_what_was_chosen_or_else_the_run_file() -> None:
    gamma = Parameter.parse({"uniform": [0, 4], "when": {"loss.name": ["focal", "asymmetric"]}})
    assert not applies(gamma, {}, RUN)
    assert applies(gamma, {"loss.name": "focal"}, RUN)
    assert not applies(gamma, {"loss.name": "mixture"}, RUN)


def test_named_parts_set_several_keys_and_leave_the_run_file_as_it_was() -> None:
    space = {"kind": Parameter.parse({"choice": {"focal": {"loss.name": "focal", "loss.gamma": 1.5}}})}
    assert with_params(RUN, {"kind": "focal"}, space, "trial")["loss"] == {"name": "focal", "gamma": 1.5}
    assert RUN["loss"] == {"name": "bce", "gamma": 2.0}


def test_a_run_file_is_told_by_the_name_of_the_part_that_it_has() -> None:
    parts = {"focal": {"loss.name": "focal"}, "bce": {"loss.name": "bce", "loss.gamma": 2.0}}
    assert Parameter.parse({"choice": parts}).found_in(RUN, "loss") == "bce"
    assert Parameter.parse({"choice": {"focal": parts["focal"]}}).found_in(RUN, "loss") is None
    assert Parameter.parse({"uniform": [0, 1]}).found_in(RUN, "loss.gamma") == 2.0
    assert Parameter.parse({"choice": [1, 2]}).found_in(RUN, "resolution_px") == 100


def test_a_key_below_a_plain_value_is_refused() -> None:
    with pytest.raises(SpecError, match=r"trial 3: 'name' is 'bce', which has no keys below it"):
        with_params(RUN, {"loss.name.x": 1}, {}, "trial 3")


def test_a_resolution_is_trained_and_evaluated_at_and_its_batches_fit_the_memory() -> None:
    twice = at_resolution(RUN, 200, "trial")
    assert (twice["transforms"]["train"]["size_px"], twice["transforms"]["evaluate"]["size_px"]) == (200, 300)
    # Four times the pixels: 12 // 4 = 3 divides 12, and 64 // 4 = 16.
    assert (twice["placement"]["micro_batch"], twice["evaluation"]["micro_batch"]) == (3, 16)
    half = at_resolution(RUN, 50, "trial")
    assert half["transforms"]["evaluate"]["size_px"] == 75
    assert half["placement"]["micro_batch"] == 12


@pytest.mark.parametrize("micro_batch", [1, 7, 12, 32, 48])
@pytest.mark.parametrize("growth", [1.3, 2.25, 4.0, 100.0])
def test_a_shrunk_micro_batch_divides_the_old_one_and_needs_no_more_memory(micro_batch: int, growth: float) -> None:
    smaller = shrunk(micro_batch, growth)
    assert micro_batch % smaller == 0
    assert smaller * growth <= micro_batch or smaller == 1
