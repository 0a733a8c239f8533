"""The head `powerset`: label sets of training with a probability each, and a remainder. F features, L labels."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from rayprob.models.heads import HeadSpec, Start, build_head
from rayprob.models.heads.head import Head, log_odds
from rayprob.models.heads.powerset import frequent_sets
from rayprob.models.losses import LossSpec, build_loss
from rayprob.probability.families import from_outputs

F, L = 5, 4
LOSS = build_loss(LossSpec(name="powerset"))
SETS = np.array(
    [[1, 1, 0, 0]] * 40 + [[0, 0, 1, 0]] * 30 + [[0, 0, 0, 0]] * 20 + [[1, 0, 0, 1], [0, 1, 1, 0], [1, 1, 1, 1]], dtype=bool
)


def start_of(targets_NL: np.ndarray) -> Start:
    return Start(targets_NL.mean(axis=0), label_sets=lambda: (targets_NL, np.ones_like(targets_NL)))


def head_of(targets_NL: np.ndarray = SETS, **options: object) -> Head:
    torch.manual_seed(0)
    return build_head(HeadSpec(name="powerset", **{"sets": 5, **options}), F, L, start_of(targets_NL))  # type: ignore[arg-type]


def batch(seed: int = 0, size: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    chance = torch.Generator().manual_seed(seed)
    draws = [torch.rand(size, columns, generator=chance) for columns in (F, L, L)]
    return draws[0] * 2 - 1, draws[1] < 0.4, draws[2] < 0.7


def test_a_fresh_head_has_the_frequencies_of_the_sets_and_the_prevalences() -> None:
    given = from_outputs("powerset", {k: v.detach() for k, v in head_of()(torch.zeros(1, F)).items()})
    others_L = (SETS[90:].sum(axis=0) + SETS.mean(axis=0)) / 4  # and one more sample, of the prevalences
    other = np.prod(np.where([1, 1, 0, 0], others_L, 1 - others_L))
    np.testing.assert_allclose(np.exp(given.log_prob(np.array([[1, 1, 0, 0]], bool))), [(40 + 4 * other) / 94], rtol=1e-5)
    np.testing.assert_allclose(given.marginals()[0], SETS.mean(axis=0), rtol=1e-5)


def test_sets_of_few_samples_are_left_to_the_remainder() -> None:
    sets_KL, count_K = frequent_sets(SETS, most=10, least_samples=2)
    assert (sets_KL.astype(int).tolist(), count_K.tolist()) == ([[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]], [40, 30, 20])
    assert len(frequent_sets(SETS, most=2, least_samples=1)[0]) == 2
    assert len(frequent_sets(SETS, most=10, least_samples=1)[0]) == 6


@pytest.mark.parametrize("own_weights", [False, True])
def test_scores_are_those_of_the_labels_and_an_offset(own_weights: bool) -> None:
    head = head_of(own_weights=own_weights).double()
    features_BF = batch()[0].double()
    if own_weights:
        torch.nn.init.normal_(head.get_parameter("own.weight"))
    out = {name: values.detach().numpy() for name, values in head(features_BF).items()}
    weights = {name: values.detach().numpy() for name, values in head.state_dict().items()}
    for b, f_F in enumerate(features_BF.numpy()):
        u_L = weights["linear.weight"] @ f_F + weights["linear.bias"]
        rest = np.log1p(np.exp(u_L)).sum() + weights["rest.weight"][0] @ f_F + weights["rest.bias"][0]
        np.testing.assert_allclose(out["rest_logit"][b, 0], rest, rtol=1e-10)
        for k in range(3):
            own = weights["own.weight"][k] @ f_F if own_weights else 0.0
            expected = sum(u for u, y in zip(u_L, out["sets"][k], strict=True) if y) + weights["offsets"][k] + own
            np.testing.assert_allclose(out["set_logits"][b, k], expected, rtol=1e-10)
    assert np.isneginf(out["set_logits"][:, 3:]).all()


def test_the_loss_is_the_likelihood_of_all_sets_that_agree_with_what_is_known() -> None:
    features_BF, targets_BL, known_BL = batch()
    outputs = {name: values.detach() for name, values in head_of().double()(features_BF.double()).items()}
    given = from_outputs("powerset", outputs)
    total_B = np.zeros(len(features_BF))
    for y in itertools.product([False, True], repeat=L):
        agrees_B = ((np.array(y) == targets_BL.numpy()) | ~known_BL.numpy()).all(axis=1)
        total_B += agrees_B * np.exp(given.log_prob(np.array([y])))
    np.testing.assert_allclose(LOSS(outputs, targets_BL, known_BL).numpy() * L, -np.log(total_B), rtol=1e-5)
    np.testing.assert_allclose(total_B, np.exp(given.log_prob(targets_BL.numpy(), known_BL.numpy())), rtol=1e-5)


@pytest.mark.parametrize("own_weights", [False, True])
def test_gradients_equal_differences(own_weights: bool) -> None:
    head = head_of(own_weights=own_weights).double()
    features_BF, targets_BL, known_BL = batch()
    names = [name for name, _ in head.named_parameters()]

    def loss(features: Tensor, *values: Tensor) -> Tensor:
        return LOSS(torch.func.functional_call(head, dict(zip(names, values, strict=True)), features), targets_BL, known_BL)

    inputs = [features_BF.double().requires_grad_(), *(p.detach().clone().requires_grad_() for p in head.parameters())]
    assert torch.autograd.gradcheck(loss, inputs)


def test_unknown_labels_change_neither_loss_nor_gradient() -> None:
    features_BF, targets_BL, known_BL = batch()
    found = []
    for targets in (targets_BL, targets_BL ^ ~known_BL):
        head = head_of()
        loss_B = LOSS(head(features_BF), targets, known_BL)
        loss_B.sum().backward()
        found.append((loss_B.detach(), [parameter.grad for parameter in head.parameters()]))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
    nothing_B = LOSS(head_of()(features_BF), targets_BL, torch.zeros_like(known_BL))
    torch.testing.assert_close(nothing_B, torch.zeros_like(nothing_B), atol=1e-6, rtol=0)


def test_a_trained_bernoulli_head_is_combined_with_the_frequencies() -> None:
    head = head_of().double()
    weight_LF, bias_L = torch.randn(L, F, dtype=torch.float64), torch.randn(L, dtype=torch.float64)
    with torch.no_grad():
        head.get_parameter("rest.weight").zero_()
    head.start_from_bernoulli(weight_LF, bias_L)
    features_BF = batch()[0].double()
    given = from_outputs("powerset", {k: v.detach() for k, v in head(features_BF).items()})
    tilt_BL = (features_BF @ weight_LF.T + bias_L).numpy() - log_odds(SETS.mean(axis=0))
    fresh = from_outputs("powerset", {k: v.detach() for k, v in head_of().double()(torch.zeros(1, F).double()).items()})
    every_SL = np.array(list(itertools.product([False, True], repeat=L)))
    weight_BS = np.exp(np.array([fresh.log_prob(y[None])[0] for y in every_SL]) + tilt_BL @ every_SL.T)
    expected_BS = weight_BS / weight_BS.sum(axis=1, keepdims=True)
    for y, expected_B in zip(every_SL, expected_BS.T, strict=True):
        np.testing.assert_allclose(np.exp(given.log_prob(y[None])), expected_B, rtol=1e-4)


def test_it_learns_sets_that_independent_labels_cannot() -> None:
    """Two labels that are always alike, whatever the image: 1 bit, where independent labels need 2."""
    torch.manual_seed(0)
    alike_N1 = torch.rand(200, 1) < 0.5
    targets_NL = torch.cat([alike_N1, alike_N1], dim=1)
    head = build_head(HeadSpec(name="powerset", sets=8), F, 2, start_of(targets_NL.numpy()))
    features_NF = torch.randn(200, F)
    for _ in range(60):
        head.zero_grad()
        loss = LOSS(head(features_NF), targets_NL, torch.ones_like(targets_NL)).mean() * 2
        loss.backward()
        with torch.no_grad():
            for parameter in head.parameters():
                if parameter.grad is not None:  # the label sets are given
                    parameter -= 0.5 * parameter.grad
    assert loss.item() < 0.75


def test_images_are_independent_of_their_batch() -> None:
    head, features_BF = head_of(), batch()[0]
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    for name, values in head(features_BF).items():
        again = head(features_BF[order])[name]
        torch.testing.assert_close(again, values if name == "sets" else values[order])


def test_the_label_sets_are_kept_with_the_weights() -> None:
    trained = head_of()
    loaded = build_head(HeadSpec(name="powerset", sets=5), F, L)
    loaded.load_state_dict(trained.state_dict())
    for name, values in trained(batch()[0]).items():
        assert torch.equal(loaded(batch()[0])[name], values)
