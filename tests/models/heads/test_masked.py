"""The head `masked`: what it starts from, its loss, and what it learns. B images, F features, P places, L labels."""

from itertools import permutations

import numpy as np
import pytest
import torch
from scipy.special import expit
from torch import Tensor

from rayprob.errors import SpecError
from rayprob.models.heads import Head, HeadSpec, Start, build_head
from rayprob.models.losses import LossSpec, build_loss
from rayprob.probability.distributions.masked import MaskedDistribution

B, F, P, L = 5, 7, 3, 4
PREVALENCE = np.array([0.1, 0.5, 0.02, 0.9])


def fresh(num_labels: int = L, **options: object) -> Head:
    torch.manual_seed(0)
    return build_head(HeadSpec(name="masked", width=8, **options), F, num_labels, Start(PREVALENCE[:num_labels]))


def trained_looking() -> Head:
    """Return a head in which every weight matters."""
    head = fresh(blocks=2).double()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
    return head.eval()


def features(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def labels() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.rand(B, L, generator=generator) < 0.4, torch.rand(B, L, generator=generator) < 0.7


def loss_of(evidence: float, outputs: dict[str, Tensor], targets_BL: Tensor, known_BL: Tensor) -> Tensor:
    """Return the loss per image, in nats."""
    return build_loss(LossSpec(name="masked", evidence=evidence))(outputs, targets_BL, known_BL) * L


def test_a_fresh_head_predicts_the_prevalences_whatever_is_known() -> None:
    distribution = MaskedDistribution.of_outputs(fresh().eval()(torch.zeros(2, F)))
    np.testing.assert_allclose(distribution.marginals(), [PREVALENCE] * 2, rtol=1e-5)
    np.testing.assert_allclose(distribution.condition({0: True}).marginals()[:, 1:], [PREVALENCE[1:]] * 2, rtol=1e-5)


def test_a_head_that_starts_from_a_trained_one_gives_its_probabilities() -> None:
    head = fresh().eval()
    weight_LF, bias_L = torch.randn(L, F), torch.randn(L)
    head.start_from_bernoulli(weight_LF, bias_L)
    x_BF = features(B, F).float()
    found_BL = MaskedDistribution.of_outputs(head(x_BF)).marginals()
    np.testing.assert_allclose(found_BL, torch.sigmoid(x_BF @ weight_LF.T + bias_L).numpy(), rtol=1e-5)


def test_the_chain_begins_with_the_most_frequent_labels() -> None:
    assert fresh().shared()["turns"].tolist() == [2, 1, 3, 0]


def test_training_draws_another_order_from_torchs_random_numbers_and_evaluation_does_not() -> None:
    head, x_BF = fresh(), features(B, F).float()

    def turns(seed: int) -> list[float]:
        torch.manual_seed(seed)
        return list(head.train()(x_BF)["turns"].tolist())

    assert turns(1) == turns(1) != turns(2)
    assert torch.equal(head.eval()(x_BF)["turns"], head.shared()["turns"])


def test_the_loss_is_the_likelihood_of_the_labels_alone_and_of_the_chain() -> None:
    outputs, (targets_BL, known_BL) = trained_looking()(features(B, F, P)), labels()
    distribution = MaskedDistribution.of_outputs({name: tensor.detach().numpy() for name, tensor in outputs.items()})
    p_BL, y_BL = distribution.marginals(), targets_BL.numpy()
    alone_B = -np.where(y_BL, np.log(p_BL), np.log(1 - p_BL)).sum(axis=1, where=known_BL.numpy())
    chain_B = -distribution.log_prob(y_BL, known_BL.numpy())
    for evidence in (0.0, 0.3, 1.0):
        found_B = loss_of(evidence, outputs, targets_BL, known_BL).detach().numpy()
        np.testing.assert_allclose(found_B, (1 - evidence) * alone_B + evidence * chain_B, rtol=1e-9)


def test_over_all_orders_each_label_is_predicted_from_all_numbers_of_others_equally_often() -> None:
    """The mean over orders is that over sizes 0 to L - 1, and subsets of that size, of the labels shown."""
    outputs, (targets_BL, _) = trained_looking()(features(1, F)), labels()
    y_1L, everything = targets_BL[:1], torch.ones(1, L, dtype=torch.bool)
    orders = [torch.tensor(order, dtype=torch.float64) for order in permutations(range(L))]
    found = np.mean([loss_of(1.0, outputs | {"turns": turns}, y_1L, everything).item() for turns in orders])
    plain = MaskedDistribution.of_outputs({name: tensor.detach().numpy() for name, tensor in outputs.items()})
    expected = 0.0
    for label in range(L):
        others = [other for other in range(L) if other != label]
        by_size: dict[int, list[float]] = {}
        for bits in range(2 ** len(others)):
            shown = {other: bool(y_1L[0, other]) for place, other in enumerate(others) if bits >> place & 1}
            logit = float(plain.condition(shown).marginal_logits()[0, label])
            by_size.setdefault(len(shown), []).append(-np.log(expit(logit if y_1L[0, label] else -logit)))
        expected += np.mean([np.mean(values) for values in by_size.values()])
    assert found == pytest.approx(expected, rel=1e-9)


def test_gradients_equal_finite_differences() -> None:
    (targets_BL, known_BL), head = labels(), trained_looking()
    names, outputs = zip(*head(features(B, F, P)).items(), strict=True)

    def loss_B(*values: Tensor) -> Tensor:
        return loss_of(0.5, dict(zip(names, values, strict=True)), targets_BL, known_BL)

    leaves = [tensor.detach().requires_grad_(name != "turns") for name, tensor in zip(names, outputs, strict=True)]
    assert torch.autograd.gradcheck(loss_B, leaves, fast_mode=True)
    x_BFP = features(B, F, P).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss_of(0.5, head(x), targets_BL, known_BL), [x_BFP], fast_mode=True)


def test_unknown_labels_change_neither_loss_nor_gradient() -> None:
    head, (targets_BL, known_BL) = trained_looking(), labels()
    found = []
    for shown_BL in (targets_BL, targets_BL ^ ~known_BL):
        head.zero_grad()
        loss_B = loss_of(0.5, head(features(B, F, P)), shown_BL, known_BL)
        loss_B.sum().backward()
        found.append([loss_B.detach(), *(parameter.grad for parameter in head.parameters() if parameter.grad is not None)])
    assert len(found[0]) == 9
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_an_image_does_not_depend_on_its_batch_nor_on_the_order_of_its_places() -> None:
    head, order = trained_looking(), torch.tensor([3, 0, 4, 2, 1])
    whole, shuffled = (
        MaskedDistribution.of_outputs(head(x)) for x in (features(B, F, P), features(B, F, P)[order][:, :, [2, 0, 1]])
    )
    np.testing.assert_allclose(shuffled.marginals(), whole.marginals()[order], rtol=1e-5)
    np.testing.assert_allclose(
        shuffled.condition({1: True}).marginals(), whole.condition({1: True}).marginals()[order], rtol=1e-5
    )


def test_it_learns_that_labels_exclude_each_other_and_what_evidence_then_means() -> None:
    first_B = torch.arange(64) % 2 == 0
    targets_BL, known_BL = torch.stack([first_B, ~first_B], dim=1), torch.ones(64, 2, dtype=torch.bool)
    head = fresh(2)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.03)
    loss = build_loss(LossSpec(name="masked"))
    for step in range(60):
        torch.manual_seed(step)
        loss_B = loss(head.train()(torch.zeros(64, F)), targets_BL, known_BL)
        optimizer.zero_grad()
        loss_B.mean().backward()
        optimizer.step()
    distribution = MaskedDistribution.of_outputs(head.eval()(torch.zeros(64, F)))
    nll = -distribution.log_prob(targets_BL.numpy()).mean()
    assert nll == pytest.approx(np.log(2), abs=0.03)  # one fair coin; independent labels cannot be below two
    assert distribution.marginals()[0] == pytest.approx([0.5, 0.5], abs=0.1)
    assert distribution.condition({0: True}).marginals()[0] == pytest.approx([1, 0], abs=0.05)
    assert distribution.condition({0: False}).marginals()[0] == pytest.approx([0, 1], abs=0.05)


def test_a_width_that_the_attention_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(SpecError, match="multiple of 4"):
        HeadSpec.parse({"name": "masked", "width": 10})
