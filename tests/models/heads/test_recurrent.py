"""The head `recurrent`: labels one after another, frequent ones first. F features, L labels."""

import numpy as np
import pytest
import torch
from torch import Tensor

from rayprob.models.heads import HeadSpec, Start, build_head
from rayprob.models.heads.head import Head
from rayprob.models.losses import LossSpec, build_loss
from rayprob.probability.families import from_outputs

F, L = 5, 4
LOSS = build_loss(LossSpec(name="recurrent"))
PREVALENCE = np.array([0.1, 0.6, 0.3, 0.02])


def head_of(*, is_trained: bool = True, num_labels: int = L) -> Head:
    torch.manual_seed(0)
    head = build_head(HeadSpec(name="recurrent", embedding=3, state=2), F, num_labels, Start(PREVALENCE[:num_labels]))
    if is_trained:  # so that the network changes the logits
        for name in ("context.weight", "project", "start"):
            torch.nn.init.normal_(head.get_parameter(name))
    return head


def batch(seed: int = 0, size: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    chance = torch.Generator().manual_seed(seed)
    draws = [torch.rand(size, columns, generator=chance) for columns in (F, L, L)]
    return draws[0] * 2 - 1, draws[1] < 0.5, draws[2] < 0.7


def test_a_fresh_head_is_the_bernoulli_head() -> None:
    head, bernoulli = head_of(is_trained=False), build_head(HeadSpec(), F, L)
    bernoulli.load_state_dict({name: head.get_parameter(f"alone.{name}") for name in bernoulli.state_dict()})
    features_BF, targets_BL, known_BL = batch()
    expected_B = build_loss(LossSpec())(bernoulli(features_BF), targets_BL, known_BL)
    torch.testing.assert_close(LOSS(head(features_BF), targets_BL, known_BL), expected_B)
    given = from_outputs("recurrent", {name: values.detach() for name, values in head(features_BF).items()})
    expected_BL = torch.sigmoid(bernoulli(features_BF)["logits"]).detach().numpy()
    np.testing.assert_allclose(given.marginals(), expected_BL, rtol=1e-5)  # exact: each draw has the same chances


def test_labels_come_in_the_order_of_their_prevalence() -> None:
    assert head_of()(batch()[0])["order"].tolist() == [2, 0, 1, 3]


def test_the_loss_is_the_exact_likelihood_of_complete_label_sets() -> None:
    head, (features_BF, targets_BL, _) = head_of().double(), batch()
    outputs = {name: values.detach() for name, values in head(features_BF.double()).items()}
    given = from_outputs("recurrent", outputs)
    loss_B = LOSS(outputs, targets_BL, torch.ones_like(targets_BL))
    np.testing.assert_allclose(-loss_B.numpy() * L, given.log_prob(targets_BL.numpy()), rtol=1e-5)


def test_unknown_labels_are_read_as_absent_and_not_scored() -> None:
    head, (features_BF, targets_BL, known_BL) = head_of(), batch()
    outputs = head(features_BF)
    is_all_BL = torch.ones_like(known_BL)
    whole_B = LOSS(outputs, targets_BL & known_BL, is_all_BL)
    given = LOSS(outputs, targets_BL, known_BL)
    assert (given < whole_B)[~known_BL.all(dim=1)].all()  # terms are left out, each of which is positive
    single_BL = torch.zeros_like(known_BL)
    single_BL[:, 1] = True  # the first of the order: nothing comes before it
    state_BE = torch.tanh(outputs["context"] + outputs["start"] @ outputs["project"])
    logit_B = outputs["logits"][:, 1] + state_BE @ outputs["embedding"][:, 1]
    expected_B = torch.nn.functional.binary_cross_entropy_with_logits(logit_B, targets_BL[:, 1].float(), reduction="none")
    torch.testing.assert_close(LOSS(outputs, targets_BL, single_BL) * L, expected_B)


def test_unknown_labels_change_neither_loss_nor_gradient() -> None:
    features_BF, targets_BL, known_BL = batch()
    found = []
    for targets in (targets_BL, targets_BL ^ ~known_BL):
        head = head_of()
        loss_B = LOSS(head(features_BF), targets, known_BL)
        loss_B.sum().backward()
        found.append((loss_B.detach(), [parameter.grad for parameter in head.parameters()]))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


def test_gradients_equal_differences() -> None:
    head = head_of().double()
    features_BF, targets_BL, known_BL = batch(size=3)
    names = [name for name, _ in head.named_parameters()]

    def loss(features: Tensor, *values: Tensor) -> Tensor:
        return LOSS(torch.func.functional_call(head, dict(zip(names, values, strict=True)), features), targets_BL, known_BL)

    inputs = [features_BF.double().requires_grad_(), *(p.detach().clone().requires_grad_() for p in head.parameters())]
    assert torch.autograd.gradcheck(loss, inputs)


def test_a_trained_bernoulli_head_is_taken_over() -> None:
    head = head_of(is_trained=False)
    weight_LF, bias_L = torch.randn(L, F), torch.randn(L)
    head.start_from_bernoulli(weight_LF, bias_L)
    features_BF, targets_BL, known_BL = batch()
    expected_B = build_loss(LossSpec())({"logits": features_BF @ weight_LF.T + bias_L}, targets_BL, known_BL)
    torch.testing.assert_close(LOSS(head(features_BF), targets_BL, known_BL), expected_B)


def test_it_learns_that_labels_depend_on_each_other() -> None:
    """Two labels that are always alike, whatever the image: 1 bit, where independent labels need 2."""
    head = head_of(is_trained=False, num_labels=2)
    alike_N1 = torch.rand(40, 1) < 0.5
    targets_NL, features_NF = torch.cat([alike_N1, alike_N1], dim=1), torch.randn(40, F)
    for _ in range(80):
        head.zero_grad()
        loss = LOSS(head(features_NF), targets_NL, torch.ones_like(targets_NL)).mean() * 2
        loss.backward()
        with torch.no_grad():
            for parameter in head.parameters():
                if parameter.requires_grad:
                    parameter -= 1.0 * parameter.grad
    assert loss.item() < 0.8


@pytest.mark.parametrize("shape", [(F,), (F, 3)])
def test_images_are_independent_of_their_batch(shape: tuple[int, ...]) -> None:
    head, features = head_of(), torch.randn(6, *shape)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    shared = head.shared()
    for name, values in head(features).items():
        torch.testing.assert_close(head(features[order])[name], values if name in shared else values[order])


def test_the_order_is_kept_with_the_weights() -> None:
    loaded = build_head(HeadSpec(name="recurrent", embedding=3, state=2), F, L)
    loaded.load_state_dict(head_of().state_dict())
    for name, values in head_of()(batch()[0]).items():
        assert torch.equal(loaded(batch()[0])[name], values)
