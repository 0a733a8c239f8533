"""Losses against independent code: torchvision, plain numpy in float64, and brute force. B samples, K components, L labels."""

import itertools

import numpy as np
import pytest
import torch
from scipy.special import expit
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from rayprob.errors import ModelError, SpecError
from rayprob.models.heads import Start
from rayprob.models.losses import LOSSES, LossSpec, build_loss

B, K, L = 6, 3, 5
SPECS = {
    "bce": LossSpec(name="bce"),
    "smoothed bce": LossSpec(name="bce", label_smoothing=0.1),
    "focal": LossSpec(name="focal", gamma=2.0, alpha=0.25),
    "focal with a small gamma": LossSpec(name="focal", gamma=0.5),
    "asymmetric": LossSpec(name="asymmetric", gamma_pos=1.0),
    "asymmetric without a shift": LossSpec(name="asymmetric", gamma_pos=0.5, gamma_neg=0.5, clip=0),
    "mixture": LossSpec(name="mixture"),
    "zlpr": LossSpec(name="zlpr"),
    "log-sum-exp of pairs": LossSpec(name="ranking"),
    "warp": LossSpec(name="ranking", pairs="warp"),
    "ramp": LossSpec(name="ramp"),
    "hill": LossSpec(name="hill"),
    "two ways": LossSpec(name="two_way"),
    "one way": LossSpec(name="two_way", by_label=0.0),
    "pos_weight": LossSpec(name="pos_weight"),
    "logit_adjusted": LossSpec(name="logit_adjusted"),
    "balanced": LossSpec(name="balanced"),
}
START = Start(np.array([0.5, 0.2, 0.01, 0.0, 0.9]))


def outputs(spec: LossSpec, dtype: torch.dtype = torch.float64, scale: float = 2.0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = {"mixture": {"mixing_logits": (B, K), "component_logits": (B, K, L)}}.get(spec.name, {"logits": (B, L)})
    return {name: scale * torch.randn(shape, generator=generator, dtype=dtype) for name, shape in shapes.items()}


def labels() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.rand(B, L, generator=generator) < 0.4, torch.rand(B, L, generator=generator) < 0.7


def test_bce_is_the_mean_over_labels_of_the_paper() -> None:
    logits_BL, (targets_BL, _) = outputs(SPECS["bce"])["logits"], labels()
    p, y = expit(logits_BL.numpy()), targets_BL.numpy()
    expected = -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean(axis=1)
    loss_B = build_loss(SPECS["bce"])({"logits": logits_BL}, targets_BL, torch.ones_like(targets_BL))
    np.testing.assert_allclose(loss_B.numpy(), expected, rtol=1e-12)


def test_smoothing_moves_targets_towards_one_half() -> None:
    logits_BL, (targets_BL, _) = outputs(SPECS["bce"])["logits"], labels()
    p, y = expit(logits_BL.numpy()), np.where(targets_BL.numpy(), 0.95, 0.05)
    expected = -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean(axis=1)
    loss_B = build_loss(SPECS["smoothed bce"])({"logits": logits_BL}, targets_BL, torch.ones_like(targets_BL))
    np.testing.assert_allclose(loss_B.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("alpha", [None, 0.25])
def test_focal_loss_equals_torchvision(alpha: float | None) -> None:
    spec = LossSpec(name="focal", gamma=2.0, alpha=alpha)
    logits_BL, (targets_BL, known_BL) = outputs(spec)["logits"], labels()
    theirs_BL = sigmoid_focal_loss(logits_BL, targets_BL.double(), alpha=-1 if alpha is None else alpha, gamma=2.0)
    loss_B = build_loss(spec)({"logits": logits_BL}, targets_BL, known_BL)
    torch.testing.assert_close(loss_B, (theirs_BL * known_BL).sum(1) / L)


def asymmetric_loss(logit: float, present: bool, spec: LossSpec) -> float:
    """Return equations 4 to 7 of Ridnik et al. for one label."""
    p = expit(logit)
    shifted = max(p - spec.clip, 0)
    return float(-((1 - p) ** spec.gamma_pos * np.log(p)) if present else -(shifted**spec.gamma_neg * np.log(1 - shifted)))


@pytest.mark.parametrize(("gamma_pos", "gamma_neg", "clip"), [(0, 4, 0.05), (1, 4, 0.05), (1, 2, 0), (0, 0, 0.2)])
def test_asymmetric_loss_equals_its_published_formula(gamma_pos: float, gamma_neg: float, clip: float) -> None:
    spec = LossSpec(name="asymmetric", gamma_pos=gamma_pos, gamma_neg=gamma_neg, clip=clip)
    logits_BL, (targets_BL, known_BL) = outputs(spec)["logits"], labels()
    expected = [
        sum(asymmetric_loss(z, y, spec) for z, y, k in zip(*row, strict=True) if k) / L
        for row in zip(logits_BL.tolist(), targets_BL.tolist(), known_BL.tolist(), strict=True)
    ]
    loss_B = build_loss(spec)({"logits": logits_BL}, targets_BL, known_BL)
    np.testing.assert_allclose(loss_B.numpy(), expected, rtol=1e-10)


def test_no_gradient_flows_through_asymmetric_focusing_weights() -> None:
    spec = LossSpec(name="asymmetric", gamma_pos=1, gamma_neg=4, clip=0)
    z, known = 0.7, torch.ones(1, 1, dtype=torch.bool)
    for present, expected in ((True, -((1 - expit(z)) ** 1) * (1 - expit(z))), (False, expit(z) ** 4 * expit(z))):
        logit = torch.tensor([[z]], dtype=torch.float64, requires_grad=True)
        build_loss(spec)({"logits": logit}, torch.tensor([[present]]), known).sum().backward()
        assert logit.grad is not None
        np.testing.assert_allclose(logit.grad.item(), expected, rtol=1e-12)


def brute_force_nll(mixing_K: np.ndarray, p_KL: np.ndarray, targets_L: np.ndarray, known_L: np.ndarray) -> float:
    """Sum the mixture's table of all 2^L label sets over those that agree with the known labels."""
    total = 0.0
    for label_set in itertools.product((0, 1), repeat=p_KL.shape[1]):
        present_L = np.array(label_set, dtype=bool)
        if (present_L == targets_L)[known_L].all():
            total += float(mixing_K @ np.where(present_L, p_KL, 1 - p_KL).prod(axis=1))
    return -np.log(total)


def test_mixture_loss_equals_brute_force_over_all_label_sets() -> None:
    spec = LossSpec(name="mixture", usage_weight=0)
    out, (targets_BL, known_BL) = outputs(spec), labels()
    mixing_BK = np.exp(out["mixing_logits"].numpy())
    mixing_BK /= mixing_BK.sum(axis=1, keepdims=True)
    p_BKL = expit(out["component_logits"].numpy())
    expected = [brute_force_nll(mixing_BK[b], p_BKL[b], targets_BL[b].numpy(), known_BL[b].numpy()) / L for b in range(B)]
    np.testing.assert_allclose(build_loss(spec)(out, targets_BL, known_BL).numpy(), expected, rtol=1e-10)


def test_usage_term_is_the_divergence_of_uniform_from_mixing_weights() -> None:
    targets_BL, known_BL = labels()
    out = outputs(LossSpec(name="mixture"))
    without, with_term = (
        build_loss(LossSpec(name="mixture", usage_weight=weight))(out, targets_BL, known_BL) for weight in (0.0, 0.5)
    )
    mixing = torch.distributions.Categorical(logits=out["mixing_logits"])
    uniform = torch.distributions.Categorical(logits=torch.zeros(B, K, dtype=torch.float64))
    torch.testing.assert_close((with_term - without) * L / 0.5, torch.distributions.kl_divergence(uniform, mixing))


def test_every_loss_is_tested_here() -> None:
    """Those of families with a head of their own are tested with that head."""
    own = {name for name in LOSSES if LOSSES.origin[name] == "rayprob"}
    assert {spec.name for spec in SPECS.values()} == {
        name for name in own if LossSpec.of(name).family in ("bernoulli", "mixture")
    }


# An image without pairs has no loss, the shift of the asymmetric loss makes easy negatives free, and hinges have a margin.
SOMETIMES_FREE = ("asymmetric", "ranking", "two_way", "ramp")


@pytest.mark.parametrize("name", SPECS)
def test_unknown_labels_have_no_gradient(name: str) -> None:
    spec, (targets_BL, known_BL) = SPECS[name], labels()
    out = {key: tensor.requires_grad_() for key, tensor in outputs(spec).items()}
    loss_B = build_loss(spec, START)(out, targets_BL, known_BL)
    loss_B.sum().backward()
    gradient = out["component_logits" if name == "mixture" else "logits"].grad
    assert gradient is not None
    reaches_BL = gradient.abs().sum(1) > 0 if name == "mixture" else gradient != 0
    assert reaches_BL.any()
    if spec.name in SOMETIMES_FREE:
        known_BL = known_BL & reaches_BL
    assert torch.equal(reaches_BL, known_BL)
    _, known_BL = labels()
    assert torch.equal(loss_B, build_loss(spec, START)(out, targets_BL ^ ~known_BL, known_BL))


@pytest.mark.parametrize("name", [name for name in SPECS if not SPECS[name].compares_samples])
def test_loss_of_a_sample_does_not_depend_on_its_batch(name: str) -> None:
    spec, (targets_BL, known_BL) = SPECS[name], labels()
    out, loss = outputs(spec), build_loss(SPECS[name], START)
    whole_B = loss(out, targets_BL, known_BL)
    for b in range(B):
        alone = loss({key: tensor[b : b + 1] for key, tensor in out.items()}, targets_BL[b : b + 1], known_BL[b : b + 1])
        torch.testing.assert_close(alone, whole_B[b : b + 1], rtol=1e-13, atol=0)


@pytest.mark.parametrize("name", [name for name in SPECS if SPECS[name].name != "asymmetric"])
def test_gradients_equal_finite_differences(name: str) -> None:
    spec, (targets_BL, known_BL) = SPECS[name], labels()
    out = outputs(spec)
    keys, loss = list(out), build_loss(spec, START)

    def of_tensors(*tensors: Tensor) -> Tensor:
        return loss(dict(zip(keys, tensors, strict=True)), targets_BL, known_BL)

    assert torch.autograd.gradcheck(of_tensors, tuple(out[key].requires_grad_() for key in keys))


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_losses_are_finite_and_float32_under_autocast(name: str, scale: float) -> None:
    spec, (targets_BL, known_BL) = SPECS[name], labels()
    out = {key: tensor.requires_grad_() for key, tensor in outputs(spec, torch.bfloat16, scale).items()}
    with torch.autocast("cpu", torch.bfloat16):
        loss_B = build_loss(spec, START)(out, targets_BL, known_BL)
    assert loss_B.dtype == torch.float32
    assert torch.isfinite(loss_B).all()
    loss_B.sum().backward()
    assert all(tensor.grad is not None and torch.isfinite(tensor.grad).all() for tensor in out.values())
    exact_B = build_loss(spec, START)({key: tensor.double() for key, tensor in out.items()}, targets_BL, known_BL)
    torch.testing.assert_close(loss_B.double(), exact_B, rtol=1e-5, atol=1e-6)


def test_a_loss_and_a_head_of_different_families_do_not_go_together() -> None:
    targets_BL, known_BL = labels()
    with pytest.raises(ModelError, match=r"loss bce needs a head with logits; got mixing_logits.*\{name: bernoulli\}"):
        build_loss(LossSpec())(outputs(SPECS["mixture"]), targets_BL, known_BL)
    with pytest.raises(ModelError, match=r"loss mixture needs a head with mixing_logits, component_logits; got logits"):
        build_loss(SPECS["mixture"])(outputs(SPECS["bce"]), targets_BL, known_BL)


def test_parameters_of_another_loss_are_refused() -> None:
    with pytest.raises(
        SpecError,
        match="gamma_neg is an option of asymmetric, not of the loss bce, which takes label_smoothing; set name: asymm",
    ):
        LossSpec.parse({"name": "bce", "gamma_neg": 2.0})
    spec = LossSpec(name="focal", gamma=1.0)
    assert LossSpec.parse(spec.model_dump()) == spec
