"""Optimizer groups and learning-rate schedules."""

import math

import numpy as np
import pytest
import torch

from rayprob.errors import SpecError
from rayprob.models.build import ModelSpec, build_classifier
from rayprob.runs.optimizers import OptimizerSpec
from rayprob.runs.schedules import ScheduleSpec, lr_factor
from rayprob.train.optimizer import build_optimizer, clip_gradients, set_lr

CPU = torch.device("cpu")


def factors(total_steps: int = 200, **values: object) -> np.ndarray:
    spec = ScheduleSpec.parse(dict(values))
    return np.array([lr_factor(spec, step, total_steps) for step in range(total_steps)])


@pytest.mark.parametrize("name", ["one_cycle", "cosine", "multi_step", "constant"])
def test_every_schedule_rises_to_the_peak_and_never_above(name: str) -> None:
    found = factors(name=name, warmup=0.1)
    assert found.max() == pytest.approx(1.0, abs=1e-3)
    assert (np.diff(found[:20]) > 0).all()
    assert (np.diff(found[21:]) <= 0).all()


def test_annealing_schedules_end_at_their_end_factor() -> None:
    for name in ("one_cycle", "cosine"):
        assert factors(name=name, end_factor=0.01)[-1] == pytest.approx(0.01)


def test_one_cycle_equals_torchs() -> None:
    total, peak = 100, 0.5
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    torchs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, peak, total_steps=total, pct_start=0.3, div_factor=25, final_div_factor=400, cycle_momentum=False
    )
    theirs = []
    for _ in range(total):
        theirs.append(optimizer.param_groups[0]["lr"] / peak)
        optimizer.step()
        torchs.step()
    ours = factors(total, name="one_cycle", warmup=0.3, start_factor=1 / 25, end_factor=1 / 10_000)
    # torch's peak lies at step pct * total - 1, ours one later: never more than one step apart.
    shifted = np.minimum(np.abs(ours[1:] - theirs[:-1]), np.abs(ours[1:] - theirs[1:]))
    assert shifted.max() < 0.02


def test_multi_step_decays_at_its_milestones() -> None:
    found = factors(name="multi_step", warmup=0.0, milestones=[0.5, 0.75], decay=0.1)
    assert found[[99, 100, 149, 150]] == pytest.approx([1, 0.1, 0.1, 0.01])


def test_an_exponential_schedule_multiplies_by_one_factor_from_its_start_to_the_peak() -> None:
    found = factors(50, name="exponential", start_factor=1e-7, warmup=0.5)
    assert found[[0, -1]] == pytest.approx([1e-7, 1.0])
    assert found[1:] / found[:-1] == pytest.approx(np.full(49, 1e7 ** (1 / 49)))


def test_milestones_out_of_order_are_refused() -> None:
    with pytest.raises(SpecError, match="milestones are shares of the run: ascending"):
        ScheduleSpec.parse({"name": "multi_step", "milestones": [0.8, 0.5]})


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_groups_hold_every_parameter_once_and_decay_matrices_only(name: str) -> None:
    classifier = build_classifier(ModelSpec(backbone="resnet18"), 5)
    spec = OptimizerSpec(name=name, lr=0.2, backbone_lr_factor=0.1, weight_decay=0.01)
    optimizer = build_optimizer(classifier, spec, CPU)
    members = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert len(members) == len({id(p) for p in members}) == len(list(classifier.parameters()))
    for group in optimizer.param_groups:
        assert all((p.ndim >= 2) == (group["weight_decay"] > 0) for p in group["params"])
    head = {id(p) for p in classifier.head.parameters()}
    for group in optimizer.param_groups:
        peak = 0.2 if id(group["params"][0]) in head else 0.02
        assert group["peak_lr"] == pytest.approx(peak)
    set_lr(optimizer, 0.5)
    assert {round(group["lr"], 6) for group in optimizer.param_groups} == {0.1, 0.01}


def test_a_frozen_backbone_has_no_group() -> None:
    classifier = build_classifier(ModelSpec(backbone="resnet18", frozen="backbone"), 5)
    optimizer = build_optimizer(classifier, OptimizerSpec(), CPU)
    assert sum(p.numel() for group in optimizer.param_groups for p in group["params"]) == 512 * 5 + 5


def test_clipping_bounds_the_global_norm() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.zeros(4))]
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 10.0)
    clip_gradients(parameters, 1.0)
    assert math.sqrt(sum(float((p.grad**2).sum()) for p in parameters if p.grad is not None)) == pytest.approx(1.0, rel=1e-4)
