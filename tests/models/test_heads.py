"""Heads: what they start from, and that one component is the paper's head. B samples, F features, K components, L labels."""

import numpy as np
import pytest
import torch
from torch import Tensor

from rayprob.errors import ModelError, SpecError
from rayprob.models.heads import HeadSpec, Start, build_head
from rayprob.models.heads.mixture import MixtureHead
from rayprob.models.losses import LossSpec, build_loss
from rayprob.probability.families.mixture import components_in_use

F, L = 7, 4
PREVALENCE = np.array([0.5, 0.1, 0.02, 0.9])


def features(batch: int = 3) -> Tensor:
    return torch.randn(batch, F, generator=torch.Generator().manual_seed(3))


def test_bernoulli_head_starts_at_the_prevalences() -> None:
    head = build_head(HeadSpec(), F, L, Start(prevalence_L=PREVALENCE))
    np.testing.assert_allclose(torch.sigmoid(head(torch.zeros(1, F))["logits"])[0].detach().numpy(), PREVALENCE, rtol=1e-5)
    marginals = torch.sigmoid(head(features(200))["logits"]).mean(0).detach().numpy()
    np.testing.assert_allclose(marginals, PREVALENCE, atol=0.01)


def test_prevalences_of_0_and_1_stay_possible() -> None:
    head = build_head(HeadSpec(), F, 2, Start(prevalence_L=np.array([0.0, 1.0])))
    assert torch.isfinite(head(features())["logits"]).all()


def test_mixture_head_starts_at_the_fitted_mixture() -> None:
    weights_K, p_KL = np.array([0.7, 0.3]), np.array([[0.9, 0.2, 0.01, 0.5], [0.1, 0.3, 0.4, 0.99]])
    head = build_head(HeadSpec(name="mixture", components=2, rank=3), F, L, Start(PREVALENCE, weights_K, p_KL))
    out = head(torch.zeros(1, F))
    np.testing.assert_allclose(torch.softmax(out["mixing_logits"], 1)[0].detach().numpy(), weights_K, rtol=1e-5)
    np.testing.assert_allclose(torch.sigmoid(out["component_logits"])[0].detach().numpy(), p_KL, rtol=1e-5)


def test_mixture_head_without_a_fitted_mixture_starts_with_different_components() -> None:
    head = build_head(HeadSpec(name="mixture", components=5), F, L, Start(prevalence_L=PREVALENCE))
    component_logits_BKL = head(features())["component_logits"]
    assert component_logits_BKL.shape == (3, 5, L)
    assert component_logits_BKL.std(dim=1).min() > 0.05


@pytest.mark.parametrize("rank", [0, 2])
def test_component_logits_equal_their_written_out_sum(rank: int) -> None:
    head = build_head(HeadSpec(name="mixture", components=3, rank=rank), F, L)
    weights = {name: tensor.double().numpy() for name, tensor in head.state_dict().items()}
    f_BF = features().double().numpy()
    found = head(features())["component_logits"].detach().numpy()
    for b, k, label in np.ndindex(3, 3, L):
        logit = weights["linear.weight"][label] @ f_BF[b] + weights["offsets"][k * L + label]
        if rank:
            factors_R = weights["factors.weight"][k * rank : (k + 1) * rank] @ f_BF[b]
            logit += factors_R @ weights["basis"][:, label]
        np.testing.assert_allclose(found[b, k, label], logit, rtol=1e-4, atol=1e-6)


def test_one_component_trains_exactly_as_the_bernoulli_head() -> None:
    paper = build_head(HeadSpec(), F, L, Start(prevalence_L=PREVALENCE))
    single = build_head(HeadSpec(name="mixture", components=1), F, L, Start(prevalence_L=PREVALENCE))
    single.load_state_dict({"linear.weight": paper.get_parameter("linear.weight")}, strict=False)
    targets_BL = features(8)[:, :L] > 0
    known_BL = features(8)[:, -L:] > -1
    for _ in range(20):
        losses = [step(paper, LossSpec(), targets_BL, known_BL), step(single, LossSpec(name="mixture"), targets_BL, known_BL)]
        assert torch.equal(losses[0], losses[1])
    assert torch.equal(paper(features())["logits"], single(features())["component_logits"][:, 0])


def step(head: torch.nn.Module, spec: LossSpec, targets_BL: Tensor, known_BL: Tensor) -> Tensor:
    loss_B = build_loss(spec)(head(features(8)), targets_BL, known_BL)
    head.zero_grad()
    loss_B.mean().backward()
    with torch.no_grad():
        for parameter in head.parameters():
            assert parameter.grad is not None
            parameter -= 0.5 * parameter.grad
    return loss_B.detach()


def test_a_mixture_that_starts_from_one_trained_component_gives_its_outputs() -> None:
    paper = build_head(HeadSpec(), F, L)
    single = MixtureHead(F, L, HeadSpec(name="mixture"), Start(prevalence_L=PREVALENCE))
    single.start_from_bernoulli(paper.get_parameter("linear.weight").detach(), torch.arange(float(L)))
    logits = paper(features())["logits"] - paper.get_parameter("linear.bias") + torch.arange(float(L))
    torch.testing.assert_close(single(features())["component_logits"][:, 0], logits)


def test_a_mixture_that_starts_from_a_trained_head_keeps_its_components_apart() -> None:
    weights_K, p_KL = np.array([0.5, 0.5]), np.array([[0.8, 0.2, 0.1, 0.5], [0.2, 0.2, 0.3, 0.5]])
    head = MixtureHead(F, L, HeadSpec(name="mixture", components=2), Start(None, weights_K, p_KL))
    head.start_from_bernoulli(torch.zeros(L, F), torch.zeros(L))
    offsets_KL = head(torch.zeros(1, F))["component_logits"][0]
    apart = np.log(p_KL[0] / (1 - p_KL[0])) - np.log(p_KL[1] / (1 - p_KL[1]))
    np.testing.assert_allclose((offsets_KL[0] - offsets_KL[1]).detach().numpy(), apart, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(offsets_KL[0, [1, 3]].detach().numpy(), 0, atol=1e-6)


def test_a_mixture_learns_that_labels_exclude_each_other_and_independent_labels_cannot() -> None:
    features_BF, first_B = features(256), torch.rand(256, generator=torch.Generator().manual_seed(4)) < 0.5
    targets_BL = torch.stack([first_B, ~first_B], dim=1)
    nll = {}
    for spec, loss in ((HeadSpec(), LossSpec()), (HeadSpec(name="mixture", components=2), LossSpec(name="mixture"))):
        head = build_head(spec, F, 2)
        optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
        for _ in range(150):
            loss_B = build_loss(loss)(head(torch.zeros_like(features_BF)), targets_BL, torch.ones_like(targets_BL))
            optimizer.zero_grad()
            loss_B.mean().backward()
            optimizer.step()
        nll[spec.name] = 2 * loss_B.mean().item()
    assert nll["bernoulli"] == pytest.approx(2 * np.log(2), abs=0.02)  # 1.386 nats: two fair coins
    assert nll["mixture"] == pytest.approx(np.log(2), abs=0.02)  # 0.693 nats: one


def test_offsets_are_no_matrix_so_that_weight_decay_spares_them() -> None:
    head = build_head(HeadSpec(name="mixture", components=3, rank=2), F, L)
    matrices = {name for name, parameter in head.named_parameters() if parameter.ndim >= 2}
    assert matrices == {"linear.weight", "mixing.weight", "factors.weight", "basis"}


def test_ten_thousand_labels_cost_megabytes_not_gigabytes() -> None:
    with torch.device("meta"):
        head = MixtureHead(2048, 10_000, HeadSpec(name="mixture", components=32, rank=8), Start())
    extra = sum(p.numel() for p in head.parameters()) - 2048 * 10_000
    assert extra == 2048 * 32 + 32 + 32 * 10_000 + 2048 * 32 * 8 + 8 * 10_000


def test_attention_adds_the_best_places_score_to_the_average() -> None:
    head = build_head(HeadSpec(attention=0.3), F, L, Start(prevalence_L=PREVALENCE))
    features_BFP = torch.randn(3, F, 6, generator=torch.Generator().manual_seed(4))
    weight_LF, bias_L = (parameter.detach().numpy() for parameter in (head.linear.weight, head.linear.bias))
    scores_BLP = np.einsum("lf,bfp->blp", weight_LF, features_BFP.numpy())
    expected = scores_BLP.mean(2) + bias_L + 0.3 * scores_BLP.max(2)
    np.testing.assert_allclose(head(features_BFP)["logits"].detach().numpy(), expected, rtol=1e-4, atol=1e-6)


def test_a_mixture_of_one_component_attends_as_the_bernoulli_head() -> None:
    bernoulli = build_head(HeadSpec(attention=0.4), F, L)
    mixture = build_head(HeadSpec(name="mixture", components=1, attention=0.4), F, L)
    mixture.start_from_bernoulli(bernoulli.linear.weight.detach(), bernoulli.linear.bias.detach())
    features_BFP = torch.randn(3, F, 6, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(mixture(features_BFP)["component_logits"][:, 0], bernoulli(features_BFP)["logits"])


@pytest.mark.parametrize("head", [HeadSpec(), HeadSpec(name="mixture", components=3, rank=2)])
def test_places_without_attention_are_averaged(head: HeadSpec) -> None:
    built = build_head(head, F, L)
    features_BFP = torch.randn(3, F, 6, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(built(features_BFP), built(features_BFP.mean(2)))


def test_dropout_drops_a_feature_at_all_places_or_at_none() -> None:
    head = build_head(HeadSpec(dropout=0.5, attention=0.3), F, L)
    kept_BFP = head.dropout(torch.ones(50, F, 6))
    assert set(kept_BFP.unique().tolist()) == {0.0, 2.0}
    assert (kept_BFP.std(dim=2) == 0).all()


def test_components_in_use_counts_shares() -> None:
    even, one = torch.zeros(6, 4), torch.tensor([[50.0, 0, 0, 0]] * 6)
    each_its_own = 50 * torch.eye(4)
    torch.testing.assert_close(components_in_use(even).item(), 4.0)
    torch.testing.assert_close(components_in_use(one).item(), 1.0)
    torch.testing.assert_close(components_in_use(each_its_own).item(), 4.0)


def test_dropout_acts_in_training_only() -> None:
    head = build_head(HeadSpec(dropout=0.5), F, L)
    assert not torch.equal(head(features())["logits"], head(features())["logits"])
    head.eval()
    assert torch.equal(head(features())["logits"], head(features())["logits"])


def test_starts_of_another_shape_are_refused() -> None:
    with pytest.raises(ModelError, match=r"prevalence_L has shape \(3,\), but the head needs \(4,\)"):
        build_head(HeadSpec(), F, L, Start(prevalence_L=PREVALENCE[:3]))
    with pytest.raises(ModelError, match=r"probabilities_KL has shape \(2, 4\), but the head needs \(3, 4\)"):
        build_head(HeadSpec(name="mixture", components=3), F, L, Start(None, np.full(2, 0.5), np.full((2, 4), 0.5)))


def test_parameters_of_the_mixture_are_refused_elsewhere() -> None:
    with pytest.raises(
        SpecError, match=r"components is an option of mixture, not of the head bernoulli, .*; set name: mixture, or leave out"
    ):
        HeadSpec.parse({"components": 8})
