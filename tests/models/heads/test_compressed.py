"""The head `compressed`: its decoding against Gaussian densities, and what it starts from. B, F, M, L as in the head."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import multivariate_normal, norm
from torch import Tensor
from torch.func import functional_call

from rayprob.models.heads import Head, HeadSpec, Start, build_head
from rayprob.models.heads.head import set_values
from rayprob.models.losses import LossSpec, build_loss

F, L, M = 6, 7, 3
PREVALENCE = np.array([0.5, 0.1, 0.02, 0.9, 0.3, 0.0, 0.25])
Array = NDArray[np.float64]


def features(batch: int = 4) -> Tensor:
    return torch.randn(batch, F, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def head(prevalence_L: Array = PREVALENCE, codes: int = M) -> Head:
    return build_head(HeadSpec(name="compressed", codes=codes), F, len(prevalence_L), Start(prevalence_L)).double()


def informed(built: Head) -> Head:
    """Give the head weights and noise as after training."""
    torch.nn.init.normal_(built.get_parameter("codes.weight"), std=0.5)
    torch.nn.init.normal_(built.get_parameter("codes.bias"))
    torch.nn.init.normal_(built.get_parameter("log_noise"), mean=-2)
    torch.nn.init.normal_(built.get_parameter("bias"), std=0.1)
    return built


def values(built: Head, name: str) -> Array:
    return np.asarray(built.get_parameter(name).detach().numpy())


def odds_of_gaussians(built: Head, features_BF: Array) -> Array:
    """Return the logits [B, L] as written: the density of the stated code with the label over that without, label by label."""
    phi_ML, p_L, noise_M = (values(built, name) for name in ("projection", "prevalence", "log_noise"))
    codes_BM = features_BF @ values(built, "codes.weight").T + values(built, "codes.bias")
    logits_BL = np.empty((len(features_BF), len(p_L)))
    for label, p in enumerate(p_L):
        others = [other for other in range(len(p_L)) if other != label]
        covariance_MM = np.diag(np.exp(noise_M))
        for j in others:
            covariance_MM += p_L[j] * (1 - p_L[j]) * np.outer(phi_ML[:, j], phi_ML[:, j])
        absent, present = (multivariate_normal((y - p) * phi_ML[:, label], covariance_MM) for y in (0, 1))
        logits_BL[:, label] = [present.logpdf(code_M) - absent.logpdf(code_M) for code_M in codes_BM]
    return logits_BL + values(built, "bias")


def test_logits_are_the_odds_of_two_gaussians_in_the_space_of_codes() -> None:
    built = informed(head())
    expected = odds_of_gaussians(built, features().numpy())
    np.testing.assert_allclose(built(features())["logits"].detach().numpy(), expected, rtol=1e-4, atol=1e-4)


def test_one_label_has_its_exact_posterior() -> None:
    built = informed(head(np.array([0.2])))
    set_values(built.get_parameter("bias"), np.log([0.2 / 0.8]), "bias")
    code_B = (features() @ built.get_parameter("codes.weight").T + built.get_parameter("codes.bias"))[:, 0].detach().numpy()
    phi, noise = values(built, "projection")[0, 0], np.exp(values(built, "log_noise")[0] / 2)
    present_B, absent_B = 0.2 * norm(0.8 * phi, noise).pdf(code_B), 0.8 * norm(-0.2 * phi, noise).pdf(code_B)
    marginals_B = torch.sigmoid(built(features())["logits"])[:, 0].detach().numpy()
    np.testing.assert_allclose(marginals_B, present_B / (present_B + absent_B), rtol=1e-5)


def test_gradients_are_those_of_finite_differences() -> None:
    built = informed(head())
    trained = {name: parameter for name, parameter in built.named_parameters() if parameter.requires_grad}

    def logits(features_BF: Tensor, *parameters: Tensor) -> Tensor:
        found: dict[str, Tensor] = functional_call(built, dict(zip(trained, parameters, strict=True)), features_BF)
        return found["logits"]

    assert torch.autograd.gradcheck(logits, (features(2).requires_grad_(), *trained.values()), fast_mode=True)


def test_a_fresh_head_answers_with_the_prevalences() -> None:
    marginals_BL = torch.sigmoid(head()(features(200))["logits"]).detach().numpy()
    np.testing.assert_allclose(marginals_BL.mean(0), np.clip(PREVALENCE, 1e-6, 1), atol=0.01)


def test_a_sparse_label_set_is_decoded_from_fewer_codes_than_labels() -> None:
    """An image that states the code of its label set, 2 of 60 labels in 40 codes, has these labels first."""
    p_L, sets_BL = np.full(60, 2 / 60), np.zeros((50, 60))
    for image, set_L in enumerate(sets_BL):
        set_L[np.random.default_rng(image).choice(60, 2, replace=False)] = 1
    built = build_head(HeadSpec(name="compressed", codes=40), 60, 60, Start(p_L))
    set_values(built.get_parameter("codes.weight"), values(built, "projection"), "projection")
    torch.nn.init.constant_(built.get_parameter("log_noise"), -6)
    logits_BL = built(torch.from_numpy(sets_BL - p_L).float())["logits"].detach().numpy()
    first_B2 = np.argsort(-logits_BL, axis=1)[:, :2]
    assert np.take_along_axis(sets_BL, first_B2, axis=1).mean() > 0.97


def test_with_as_many_codes_as_labels_it_takes_over_a_bernoulli_head_exactly() -> None:
    bernoulli = build_head(HeadSpec(), F, L, Start(PREVALENCE)).double()
    torch.nn.init.normal_(bernoulli.get_parameter("linear.weight"))
    built = head(codes=100)
    built.start_from_bernoulli(bernoulli.get_parameter("linear.weight"), bernoulli.get_parameter("linear.bias"))
    torch.testing.assert_close(built(features())["logits"], bernoulli(features())["logits"], rtol=1e-6, atol=1e-6)


def test_with_fewer_codes_it_takes_over_the_nearest_weights() -> None:
    built, weight_LF = head(), torch.randn(L, F, dtype=torch.float64)
    built.start_from_bernoulli(weight_LF, torch.zeros(L))

    def distance() -> float:
        zero_1F, each_FF = torch.zeros(1, F, dtype=torch.float64), torch.eye(F, dtype=torch.float64)
        slopes_LF = (built(each_FF)["logits"] - built(zero_1F)["logits"]).T
        squares: float = (slopes_LF - weight_LF).square().sum().item()
        return squares

    nearest, found = distance(), built.get_parameter("codes.weight").detach().clone()
    for code, feature in np.ndindex(M, F):
        for change in (-0.01, 0.01):
            changed = found.numpy().copy()
            changed[code, feature] += change
            set_values(built.get_parameter("codes.weight"), changed, "codes")
            assert distance() > nearest


def test_it_learns_sparse_label_sets_with_fewer_codes_than_labels() -> None:
    generator = torch.Generator().manual_seed(0)
    targets_BL = torch.rand(256, 30, generator=generator) < 0.06
    features_BF = targets_BL.float() @ torch.randn(30, 40, generator=generator)
    built = build_head(HeadSpec(name="compressed", codes=20), 40, 30, Start(targets_BL.double().mean(0).numpy()))
    loss, optimizer = build_loss(LossSpec()), torch.optim.Adam(built.parameters(), lr=0.1)
    nll = []
    for _ in range(30):
        loss_B: Tensor = loss(built(features_BF), targets_BL, torch.ones_like(targets_BL))
        optimizer.zero_grad()
        torch.autograd.backward(loss_B.mean())
        optimizer.step()
        nll.append(loss_B.mean().item())
    assert nll[-1] < 0.2 * nll[0]


def test_a_bundle_keeps_the_projection() -> None:
    built = head()
    again = build_head(HeadSpec(name="compressed", codes=M), F, L).double()
    assert not torch.equal(again(features())["logits"], built(features())["logits"])
    again.load_state_dict(built.state_dict())
    assert torch.equal(again(features())["logits"], built(features())["logits"])


def test_images_do_not_depend_on_each_other() -> None:
    built = informed(head())
    torch.testing.assert_close(built(features()[[2, 0, 3, 1]])["logits"], built(features())["logits"][[2, 0, 3, 1]])


@pytest.mark.parametrize(("num_labels", "codes"), [(80, 80), (9_600, 256)])
def test_what_it_trains_grows_with_codes_and_not_with_features_times_labels(num_labels: int, codes: int) -> None:
    with torch.device("meta"):
        built = build_head(HeadSpec(name="compressed"), 2_048, num_labels)
        assert built(torch.zeros(2, 2_048))["logits"].shape == (2, num_labels)
    trained = sum(parameter.numel() for parameter in built.parameters() if parameter.requires_grad)
    assert trained == 2_048 * codes + 2 * codes + num_labels
