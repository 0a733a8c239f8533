"""Losses that know how frequent labels are, against plain formulas for one label at a time. B samples, L labels."""

import math

import numpy as np
import pytest
import torch
from scipy.special import expit, logit

from rayprob.errors import ModelError
from rayprob.models.heads import Start
from rayprob.models.losses import LossSpec, build_loss

PREVALENCE_L = np.array([0.5, 0.1, 0.002, 0.9])
START = Start(PREVALENCE_L)
L = len(PREVALENCE_L)


def a_batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    logits_BL = 2 * torch.randn(6, L, generator=generator, dtype=torch.float64)
    targets_BL, known_BL = torch.rand(6, L, generator=generator) < 0.5, torch.rand(6, L, generator=generator) < 0.8
    targets_BL[0] = False
    return logits_BL, targets_BL, known_BL


def cross_entropy(z: float, present: bool, positive: float = 1.0) -> float:
    return -positive * math.log(expit(z)) if present else -math.log(expit(-z))


def expected(one_label: object) -> list[float]:
    """Return the mean over L of a loss of one known label."""
    rows = zip(*(tensor.tolist() for tensor in a_batch()), strict=True)
    return [
        sum(one_label(z, y, label, ys, ks) for label, (z, y, k) in enumerate(zip(zs, ys, ks, strict=True)) if k) / L  # type: ignore[operator]
        for zs, ys, ks in rows
    ]


@pytest.mark.parametrize(("power", "highest"), [(1.0, 20.0), (0.5, 5.0)])
def test_positives_of_rare_labels_weigh_more_up_to_a_limit(power: float, highest: float) -> None:
    logits_BL, targets_BL, known_BL = a_batch()
    weights = [min(highest, max(1 / highest, ((1 - p) / p) ** power)) for p in PREVALENCE_L]
    loss_B = build_loss(LossSpec(name="pos_weight", power=power, highest=highest), START)(
        {"logits": logits_BL}, targets_BL, known_BL
    )
    np.testing.assert_allclose(loss_B, expected(lambda z, y, label, ys, ks: cross_entropy(z, y, weights[label])), rtol=1e-10)


def test_logit_adjustment_adds_the_log_odds_of_the_prevalence() -> None:
    logits_BL, targets_BL, known_BL = a_batch()
    loss_B = build_loss(LossSpec(name="logit_adjusted", tau=0.7), START)({"logits": logits_BL}, targets_BL, known_BL)
    odds = logit(PREVALENCE_L)
    np.testing.assert_allclose(
        loss_B, expected(lambda z, y, label, ys, ks: cross_entropy(z + 0.7 * odds[label], y)), rtol=1e-10
    )


def balanced(z: float, present: bool, label: int, ys: list[bool], ks: list[bool]) -> float:
    """Return the distribution-balanced focal loss of one label, from label counts of 10,000 images."""
    n_L = 10_000 * PREVALENCE_L
    sampled_for_all = sum(1 / (L * n_L[other]) for other, (y, k) in enumerate(zip(ys, ks, strict=True)) if y and k)
    ratio = 1 / (L * n_L[label]) / sampled_for_all if sampled_for_all else math.inf
    weight = 0.1 + expit(10 * (ratio - 0.2))
    z -= 0.05 * math.log(10_000 / n_L[label] - 1)
    scaled = z if present else 2 * z
    right = expit(scaled) if present else expit(-scaled)
    return float(weight * (1 - right) ** 2 * cross_entropy(scaled, present) / (1 if present else 2))


def test_balanced_loss_equals_the_papers_formula() -> None:
    logits_BL, targets_BL, known_BL = a_batch()
    loss_B = build_loss(LossSpec(name="balanced"), START)({"logits": logits_BL}, targets_BL, known_BL)
    np.testing.assert_allclose(loss_B, expected(balanced), rtol=1e-10)


@pytest.mark.parametrize(
    ("spec", "at_optimum"),
    [
        (LossSpec(name="pos_weight", highest=1000.0), lambda p: logit(p) - logit(PREVALENCE_L)),
        (LossSpec(name="logit_adjusted"), lambda p: logit(p) - logit(PREVALENCE_L)),
        (LossSpec(name="bce"), logit),
    ],
)
def test_logits_are_off_by_the_shift_that_the_docs_state(spec: LossSpec, at_optimum: object) -> None:
    p_L = np.array([0.3, 0.3, 0.01, 0.6])
    logits_L = torch.from_numpy(at_optimum(p_L))[None].requires_grad_()  # type: ignore[operator]
    known = torch.ones(1, L, dtype=torch.bool)
    loss = build_loss(spec, START)
    present, absent = (loss({"logits": logits_L}, targets, known) for targets in (known, ~known))
    by_label = [torch.autograd.grad(part.sum(), logits_L)[0] for part in (present, absent)]
    expected_L = torch.from_numpy(p_L) * by_label[0] + torch.from_numpy(1 - p_L) * by_label[1]
    np.testing.assert_allclose(expected_L, np.zeros((1, L)), atol=1e-12)


@pytest.mark.parametrize("name", ["pos_weight", "logit_adjusted", "balanced"])
def test_prevalences_are_required_and_those_of_the_head(name: str) -> None:
    with pytest.raises(ModelError, match=f"the loss {name} needs the prevalences of the training labels; build it with Start"):
        build_loss(LossSpec(name=name))
    logits = torch.zeros(2, 3)
    with pytest.raises(ModelError, match="prevalences of 4 labels, but the head has 3"):
        build_loss(LossSpec(name=name), START)({"logits": logits}, logits > 0, logits > -1)
