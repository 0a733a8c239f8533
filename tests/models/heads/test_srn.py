"""The head `srn`: its formula in numpy, its start, and what it learns. B images, F features, L labels, P places, W channels."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from rayprob.models.heads import Head, HeadSpec, Start, build_head
from rayprob.models.pooling import grid_of
from tests.models.heads.learning import away_from_start, gradients_per_target, has_exact_gradients, loss_after_training

B, F, L = 2, 3, 2
PREVALENCE = np.array([0.5, 0.1])
SMALL = HeadSpec(name="srn", width=2, grid=2)
Array = NDArray[np.float64]


def features(places: int = 4) -> Tensor:
    return torch.randn(B, F, places, generator=torch.Generator().manual_seed(3))


def trained(spec: HeadSpec = SMALL) -> Head:
    return away_from_start(build_head(spec, F, L, Start(PREVALENCE)))


@pytest.mark.parametrize("side", [2, 4])
def test_logits_equal_the_formula(side: int) -> None:
    head = trained()
    values = {name: value.numpy() for name, value in head.state_dict().items()}
    found_BL = head(features(side * side).double())["logits"].detach().numpy()
    for maps_FP, found_L in zip(features(side * side).double().numpy(), found_BL, strict=True):
        np.testing.assert_allclose(found_L, expected_L(values, maps_FP, side), rtol=1e-9)


def expected_L(values: dict[str, Array], maps_FP: Array, side: int) -> Array:
    def layer(name: str) -> tuple[Array, Array]:
        return values[f"{name}.weight"], values[f"{name}.bias"]

    def at_each_place(name: str, maps: Array) -> Array:
        weight, bias = layer(name)
        return weight[:, :, 0, 0] @ maps + bias[:, None]

    hidden_Whw = np.maximum(at_each_place("attention.0", maps_FP), 0).reshape(-1, side, side)
    weight, bias = layer("attention.2")
    wide_Whw = np.zeros_like(hidden_Whw) + bias[:, None, None]
    for w, y, x, dy, dx in np.ndindex(*hidden_Whw.shape, 3, 3):
        if 0 <= y + dy - 1 < side and 0 <= x + dx - 1 < side:
            wide_Whw[w, y, x] += weight[w, :, dy, dx] @ hidden_Whw[:, y + dy - 1, x + dx - 1]
    attention_LP = np.exp(at_each_place("attention.4", np.maximum(wide_Whw, 0).reshape(-1, side * side)))
    attention_LP /= attention_LP.sum(1, keepdims=True)
    maps_LP = side * side * attention_LP / (1 + np.exp(-at_each_place("confidence", maps_FP)))
    maps_WP = normed(at_each_place("relations.0", maps_LP), *layer("relations.1"))
    maps_WP = normed(at_each_place("relations.3", maps_WP), *layer("relations.4"))
    pooled_Whw = maps_WP.reshape(-1, 2, side // 2, 2, side // 2).mean((2, 4))
    weight, bias = layer("relations.7")
    filtered = [bias[c] + (weight[c, 0] * pooled_Whw[c // 4]).sum() for c in range(4 * len(pooled_Whw))]
    weight, bias = layer("second")
    second_L = weight @ normed(np.array(filtered)[:, None], *layer("relations.8"))[:, 0] + bias
    weight, bias = layer("first.linear")
    return (weight @ maps_FP.mean(1) + bias + second_L) / 2


def normed(maps_CP: Array, weight_C: Array, bias_C: Array) -> Array:
    """Layer norm over channels and places, and the rectifier."""
    centred_CP = maps_CP - maps_CP.mean()
    scaled_CP = centred_CP / np.sqrt((centred_CP**2).mean() + 1e-5)
    return np.maximum(scaled_CP * weight_C[:, None] + bias_C[:, None], 0)


def test_the_grid_of_an_image_is_its_square_and_of_other_places_the_nearest() -> None:
    assert [grid_of(places) for places in (196, 49, 12, 7, 1)] == [(14, 14), (7, 7), (3, 4), (1, 7), (1, 1)]


def test_a_fresh_head_answers_with_the_prevalences() -> None:
    head = build_head(SMALL, F, L, Start(PREVALENCE))
    torch.manual_seed(0)
    np.testing.assert_allclose(torch.sigmoid(head(torch.randn(200, F, 9))["logits"]).mean(0).detach(), PREVALENCE, atol=0.01)


def test_a_trained_bernoulli_head_keeps_its_answers() -> None:
    bernoulli, head = build_head(HeadSpec(), F, L, Start(PREVALENCE)), build_head(SMALL, F, L, Start(PREVALENCE))
    torch.nn.init.normal_(bernoulli.linear.weight)
    head.start_from_bernoulli(bernoulli.linear.weight.detach(), torch.tensor([0.3, -2.0]))
    bernoulli.linear.bias.data = torch.tensor([0.3, -2.0])
    torch.testing.assert_close(head(features())["logits"], bernoulli(features())["logits"])


def test_gradients_in_float64() -> None:
    assert has_exact_gradients(trained(), features(9))


def test_its_size_is_what_it_states() -> None:
    head, width, grid = build_head(HeadSpec(name="srn", width=6, grid=3), F, L), 6, 3
    size = F * (2 * L + width) + width * (9 * width + L) + width * (L + width + 4 * (grid * grid + L))
    assert sum(parameter.numel() for parameter in head.parameters() if parameter.ndim > 1) == size


def test_an_image_is_judged_by_itself_and_unknown_labels_teach_nothing() -> None:
    head, order = trained().float(), torch.tensor([1, 0])
    torch.testing.assert_close(head(features()[order])["logits"], head(features())["logits"][order])
    known_BL = torch.tensor([[True, False], [False, True]])
    assert all(map(torch.equal, *gradients_per_target(head, features(), known_BL)))


@pytest.mark.parametrize(
    ("spec", "learns"),
    [(HeadSpec(name="csra"), False), (HeadSpec(name="srn", width=8, grid=2), True)],
    ids=["csra", "srn"],
)
def test_it_learns_a_label_that_says_which_of_two_others_is_left(spec: HeadSpec, learns: bool) -> None:
    chance = torch.Generator().manual_seed(5)
    rows, is_left_N = torch.randint(2, (2, 128), generator=chance), torch.rand(128, generator=chance) < 0.5
    maps_NFhw = torch.zeros(128, 2, 2, 2)
    images = torch.arange(128)
    maps_NFhw[images, 0, rows[0], (~is_left_N).long()] = 3
    maps_NFhw[images, 1, rows[1], is_left_N.long()] = 3
    loss = loss_after_training(spec, maps_NFhw.flatten(2), is_left_N[:, None], steps=60, lr=0.03)
    assert (loss < 0.1) is learns
