"""The head `semantic`: its formula, its start, and what it learns. B images, F features, L labels."""

import numpy as np
import pytest
import torch
from torch import Tensor

from rayprob.models.heads import Head, HeadSpec, Start, build_head
from tests.models.heads.learning import away_from_start, gradients_per_target, has_exact_gradients, loss_after_training

B, F, L = 3, 5, 4
PREVALENCE = np.array([0.5, 0.1, 0.02, 0.9])
SMALL = HeadSpec(name="semantic", width=6)


def features(*places: int) -> Tensor:
    return torch.randn(B, F, *places, generator=torch.Generator().manual_seed(3))


def trained(spec: HeadSpec) -> Head:
    return away_from_start(build_head(spec, F, L, Start(PREVALENCE)))


@pytest.mark.parametrize("depth", [1, 3])
def test_logits_equal_their_written_out_sum(depth: int) -> None:
    head = trained(HeadSpec(name="semantic", width=6, depth=depth))
    values = {name: value.numpy() for name, value in head.state_dict().items()}
    z_BL = features().double().numpy() @ values["independent.linear.weight"].T + values["independent.linear.bias"]
    layer_BW = z_BL
    for position in range(depth):
        weight, bias = values[f"correction.{2 * position}.weight"], values[f"correction.{2 * position}.bias"]
        layer_BW = np.maximum(layer_BW @ weight.T + bias, 0)
    weight, bias = values[f"correction.{2 * depth}.weight"], values[f"correction.{2 * depth}.bias"]
    found_BL = head(features().double())["logits"].detach().numpy()
    np.testing.assert_allclose(found_BL, z_BL + layer_BW @ weight.T + bias, rtol=1e-9)


def test_a_fresh_head_is_the_bernoulli_head_that_it_starts_from() -> None:
    bernoulli, head = build_head(HeadSpec(), F, L, Start(PREVALENCE)), build_head(SMALL, F, L)
    head.start_from_bernoulli(bernoulli.linear.weight.detach(), bernoulli.linear.bias.detach())
    assert torch.equal(head(features())["logits"], bernoulli(features())["logits"])


def test_places_are_averaged() -> None:
    head = build_head(SMALL, F, L)
    torch.testing.assert_close(head(features(6)), head(features(6).mean(2)))


def test_gradients_in_float64() -> None:
    assert has_exact_gradients(trained(SMALL), features())


def test_its_size_is_what_it_states() -> None:
    head, width = build_head(HeadSpec(name="semantic", width=6, depth=3), F, L), 6
    size = F * L + L + 2 * L * width + 2 * width * width + 3 * width + L
    assert sum(parameter.numel() for parameter in head.parameters()) == size


def test_unknown_labels_teach_nothing_although_the_network_reads_their_logits() -> None:
    known_BL = torch.rand(B, L, generator=torch.Generator().manual_seed(1)) < 0.5
    assert all(map(torch.equal, *gradients_per_target(trained(SMALL).float(), features(), known_BL)))


def test_an_image_is_judged_by_itself() -> None:
    head, order = trained(SMALL).float(), torch.tensor([2, 0, 1])
    torch.testing.assert_close(head(features()[order])["logits"], head(features())["logits"][order])


@pytest.mark.parametrize(("spec", "learns"), [(HeadSpec(), False), (HeadSpec(name="semantic", width=16), True)])
def test_it_learns_a_label_that_needs_exactly_one_of_two_others(spec: HeadSpec, learns: bool) -> None:
    first_B, second_B = torch.rand(2, 128, generator=torch.Generator().manual_seed(5)) < 0.5
    targets_BL = torch.stack([first_B, second_B, first_B ^ second_B], dim=1)
    loss = loss_after_training(spec, targets_BL[:, :2].float(), targets_BL, steps=150, lr=0.05)
    assert (loss < 0.05) is learns
