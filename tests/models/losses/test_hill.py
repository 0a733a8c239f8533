"""The Hill loss against its formula, and what it is for."""

import math

import pytest
import torch
from scipy.special import expit

from rayprob.models.losses import LossSpec, build_loss


@pytest.mark.parametrize("z", [-3.0, 0.2, 4.0])
def test_hill_loss_equals_its_formula(z: float) -> None:
    known = torch.ones(1, 1, dtype=torch.bool)
    outputs = {"logits": torch.tensor([[z]], dtype=torch.float64)}
    loss, p, q = build_loss(LossSpec(name="hill")), expit(z), expit(z - 1)
    assert loss(outputs, ~known, known).item() == pytest.approx((1.5 - p) * p**2, rel=1e-12)
    assert loss(outputs, known, known).item() == pytest.approx(-((1 - q) ** 2) * math.log(q), rel=1e-12)


def test_absent_labels_that_look_present_pull_less_than_doubtful_ones() -> None:
    z = torch.tensor([[0.0], [4.0], [8.0]], requires_grad=True)
    known = torch.ones(3, 1, dtype=torch.bool)
    build_loss(LossSpec(name="hill"))({"logits": z}, ~known, known).sum().backward()
    assert z.grad is not None
    doubtful, likely, certain = z.grad[:, 0].tolist()
    assert 0 < certain < likely < doubtful / 4
