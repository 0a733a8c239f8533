"""Losses over the labels of an image together, against plain loops over pairs. B samples, L labels."""

import numpy as np
import pytest
import torch
from torch import Tensor

from rayprob.models.losses import LossSpec, build_loss

B, L = 5, 7


def a_batch() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    logits_BL = 2 * torch.randn(B, L, generator=generator, dtype=torch.float64)
    targets_BL = torch.rand(B, L, generator=generator) < 0.4
    known_BL = torch.rand(B, L, generator=generator) < 0.8
    targets_BL[0], targets_BL[1] = True, False  # no pairs
    return logits_BL, targets_BL, known_BL


def parts(row: tuple[Tensor, Tensor, Tensor]) -> tuple[list[float], list[float]]:
    """Return the logits of the known present and of the known absent labels."""
    z_L, present_L, known_L = (tensor.numpy() for tensor in row)
    return z_L[present_L & known_L].tolist(), z_L[~present_L & known_L].tolist()


def lsep(present: list[float], absent: list[float]) -> float:
    return float(np.log1p(sum(np.exp(v - u) for u in present for v in absent)))


def harmonic(rank: int) -> float:
    return sum(1 / i for i in range(1, rank + 1))


def warp(present: list[float], absent: list[float]) -> float:
    total = 0.0
    for u in present:
        excess = [1 - u + v for v in absent if v > u - 1]
        total += harmonic(len(excess)) * float(np.mean(excess)) if excess else 0.0
    return total


def zlpr(present: list[float], absent: list[float]) -> float:
    return float(np.log1p(np.exp(-np.array(present)).sum()) + np.log1p(np.exp(absent).sum()))


def of_one(t: float) -> float:
    return max(0.0, 1 - t) - 0.9 * max(0.0, -0.8 - t)


def ramp(present: list[float], absent: list[float]) -> float:
    total = sum(of_one(u) for u in present) + sum(of_one(-v) for v in absent)
    for u in present:
        violators = [v for v in absent if v > u - 1]
        total += 0.2 * harmonic(len(violators)) * float(np.mean([of_one(u - v) for v in violators])) if violators else 0.0
    return total


@pytest.mark.parametrize(
    ("spec", "formula"),
    [
        ({"name": "ranking"}, lsep),
        ({"name": "ranking", "pairs": "warp"}, warp),
        ({"name": "zlpr"}, zlpr),
        ({"name": "ramp"}, ramp),
    ],
)
def test_a_loss_over_pairs_equals_a_loop_over_them(spec: dict[str, str], formula: object) -> None:
    logits_BL, targets_BL, known_BL = batch = a_batch()
    loss_B = build_loss(LossSpec(**spec))({"logits": logits_BL}, targets_BL, known_BL)
    expected_B = [formula(*parts(row)) / L for row in zip(*batch, strict=True)]  # type: ignore[operator]
    np.testing.assert_allclose(loss_B.numpy(), expected_B, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("pairs", ["lsep", "warp"])
def test_a_ranking_has_no_threshold_and_no_loss_without_pairs(pairs: str) -> None:
    logits_BL, targets_BL, known_BL = a_batch()
    loss = build_loss(LossSpec(name="ranking", pairs=pairs))
    loss_B = loss({"logits": logits_BL}, targets_BL, known_BL)
    shifted_B = loss({"logits": logits_BL + 3 * torch.arange(B)[:, None]}, targets_BL, known_BL)
    torch.testing.assert_close(loss_B, shifted_B)
    assert (loss_B[:2].tolist(), bool((loss_B[2:] > 0).all())) == ([0.0, 0.0], True)


def test_a_ramp_bounds_the_pull_of_a_wrong_label() -> None:
    known = torch.ones(1, 1, dtype=torch.bool)
    slopes = []
    for logit in (-0.5, -50.0):
        z = torch.tensor([[logit]], requires_grad=True)
        build_loss(LossSpec(name="ramp"))({"logits": z}, known, known).sum().backward()
        assert z.grad is not None
        slopes.append(z.grad.item())
    assert slopes == pytest.approx([-1.0, -0.1], abs=1e-6)


def test_two_way_compares_labels_within_images_and_images_within_labels() -> None:
    logits_BL, targets_BL, known_BL = a_batch()

    def ranked(row: tuple[Tensor, Tensor, Tensor]) -> float:
        present, absent = parts(row)
        if not present or not absent:
            return 0.0
        return float(np.log1p(np.exp(absent).sum() * np.exp(-np.array(present) / 4).sum() ** 4))

    rows = [ranked(row) for row in zip(logits_BL, targets_BL, known_BL, strict=True)]
    columns = [ranked(column) for column in zip(logits_BL.T, targets_BL.T, known_BL.T, strict=True)]
    by_label = float(np.mean([value for value in columns if value]))
    loss_B = build_loss(LossSpec(name="two_way", by_label=0.5))({"logits": logits_BL}, targets_BL, known_BL)
    np.testing.assert_allclose(loss_B.numpy(), (np.array(rows) + 0.5 * by_label) / L, rtol=1e-10)
    one_way_B = build_loss(LossSpec(name="two_way", by_label=0.0))({"logits": logits_BL}, targets_BL, known_BL)
    np.testing.assert_allclose(one_way_B.numpy(), np.array(rows) / L, rtol=1e-10, atol=1e-14)
