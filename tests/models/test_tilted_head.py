"""The mixture head that starts from a label prior: what it is before the first step. B samples, F features, K, L as ever."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rayprob.errors import LabelError, ModelError, SpecError
from rayprob.labels import LabelSpace
from rayprob.models.build import ModelSpec, build_classifier
from rayprob.models.head_prior import prior_mixture
from rayprob.models.heads import HeadSpec, Start, build_head
from rayprob.models.heads.mixture import MixtureHead, TiltedHead
from rayprob.models.losses import LossSpec, build_loss
from rayprob.probability.distributions.mixture import LabelMixture
from rayprob.probability.families import from_outputs
from rayprob.probability.priors.file import LabelPriorFile
from tests.probability.brute_force import all_sets

F, L = 7, 4
WEIGHTS_K = np.array([0.5, 0.3, 0.2])
P_KL = np.array([[0.9, 0.2, 0.01, 0.5], [0.1, 0.3, 0.4, 0.5], [0.2, 0.7, 0.1, 0.5]])
P_L = WEIGHTS_K @ P_KL
MINE = LabelSpace(("cat", "dog", "fork", "knife"), (1, 2, 3, 4))


def features(batch: int = 5) -> Tensor:
    return torch.randn(batch, F, generator=torch.Generator().manual_seed(3))


def head(prevalence_L: np.ndarray = P_L, **spec: float) -> TiltedHead:
    built = build_head(
        HeadSpec(name="mixture", prior="a.safetensors", components=3, **spec), F, L, Start(prevalence_L, WEIGHTS_K, P_KL)
    )
    assert isinstance(built, TiltedHead)
    return built


def prior_file(folder: Path) -> str:
    path = str(folder / "mine.safetensors")
    LabelPriorFile(("fork", "knife", "cat", "spoon"), LabelMixture(WEIGHTS_K, P_KL), "a test").save(path)
    return path


def test_a_fresh_head_is_the_label_mixture_where_the_prevalences_are_the_priors() -> None:
    out = head()(torch.zeros(2, F))
    torch.testing.assert_close(torch.softmax(out["mixing_logits"], 1)[0], torch.tensor(WEIGHTS_K).float())
    torch.testing.assert_close(torch.sigmoid(out["component_logits"])[1], torch.tensor(P_KL).float())


@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0])
def test_over_a_trained_head_it_is_the_prior_of_that_strength_by_the_written_out_formula(strength: float) -> None:
    paper = build_head(HeadSpec(), F, L)
    torch.nn.init.normal_(paper.linear.weight)
    built = head(strength=strength)
    built.start_from_bernoulli(paper.linear.weight, torch.arange(float(L)))
    p_BL = torch.sigmoid(features() @ paper.linear.weight.T + torch.arange(float(L))).detach().double().numpy()
    found = from_outputs("mixture", built(features()))
    weight_BY = np.stack([_unnormalised(y_L, p_BL, strength) for y_L in all_sets(L)], axis=1)
    expected_BY = weight_BY / weight_BY.sum(axis=1, keepdims=True)
    for place, y_L in enumerate(all_sets(L)):
        np.testing.assert_allclose(np.exp(found.log_prob(y_L[None])), expected_BY[:, place], rtol=1e-4)


def _unnormalised(y_L: np.ndarray, p_BL: np.ndarray, strength: float) -> np.ndarray:
    """`probability/prior.py`'s product, label by label and component by component."""
    by_image_B = np.where(y_L, p_BL, 1 - p_BL).prod(axis=1)
    ratio_KL = np.where(y_L, P_KL / P_L, (1 - P_KL) / (1 - P_L))
    return by_image_B * float((WEIGHTS_K * (ratio_KL**strength).prod(axis=1)).sum())


def test_a_label_that_the_prior_does_not_know_stays_independent_of_its_components(tmp_path: Path) -> None:
    spec = HeadSpec.parse({"name": "mixture", "prior": prior_file(tmp_path)})
    mixture = prior_mixture(spec, MINE)
    assert mixture is not None
    prevalence_L = np.array([0.4, 0.13, 0.2, 0.3])
    built = build_head(spec, F, L, Start(prevalence_L, mixture.mixing_weights_K, mixture.probabilities_KL))
    distribution = from_outputs("mixture", built(torch.zeros(1, F)))
    np.testing.assert_allclose(mixture.probabilities_KL[:, [2, 3, 0]], P_KL[:, :3], rtol=1e-6)  # by name, not by place
    assert distribution.marginals()[0, 1] == pytest.approx(0.13, rel=1e-5)
    others = [distribution.mutual_information()[0, 1, column] for column in (0, 2, 3)]
    assert others == pytest.approx([0, 0, 0], abs=1e-8)
    assert distribution.mutual_information()[0, 0, 2] > 0.01


def test_all_of_it_is_trained() -> None:
    built = head(rank=2)
    loss_B = build_loss(LossSpec(name="mixture"))(built(features()), features()[:, :L] > 0, torch.ones(5, L, dtype=torch.bool))
    loss_B.mean().backward()
    assert {name for name, value in built.named_parameters() if value.grad is None or not value.grad.any()} == set()


def test_a_spec_takes_its_components_from_the_prior_and_is_read_back_without_the_file(tmp_path: Path) -> None:
    spec = HeadSpec.parse({"name": "mixture", "prior": prior_file(tmp_path), "strength": 0.5})
    assert spec.components == 3
    Path(str(spec.prior)).unlink()
    assert HeadSpec.parse(spec.model_dump()) == spec
    assert HeadSpec(name="mixture", prior="coco").components == len(LabelPriorFile.load("coco").mixture.mixing_weights_K)


def test_a_head_without_a_prior_is_written_as_before_there_were_priors() -> None:
    assert HeadSpec(name="mixture", components=8).model_dump() == {
        "name": "mixture",
        "dropout": 0.0,
        "components": 8,
        "rank": 0,
        "attention": 0.0,
    }


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"unknown label prior 'cocoo'.*coco.*or the path of a file"):
        HeadSpec.parse({"name": "mixture", "prior": "cocoo"})
    with pytest.raises(SpecError, match=r"missing\.safetensors.*set components to its number"):
        HeadSpec.parse({"name": "mixture", "prior": str(tmp_path / "missing.safetensors")})
    with pytest.raises(SpecError, match="prior is an option of mixture, not of the head bernoulli"):
        HeadSpec.parse({"prior": "coco"})
    with pytest.raises(SpecError, match=r"strength 0\.5 needs a prior; set prior or leave out strength"):
        HeadSpec.parse({"name": "mixture", "components": 3, "strength": 0.5})


def test_a_prior_of_other_labels_or_components_is_named(tmp_path: Path) -> None:
    spec = HeadSpec.parse({"name": "mixture", "prior": prior_file(tmp_path)})
    with pytest.raises(LabelError, match="the label prior from a test knows 1 of the 2 labels, but needs at least 2"):
        prior_mixture(spec, LabelSpace(("fork", "whale"), (1, 2)))
    other = HeadSpec.parse({"name": "mixture", "prior": spec.prior, "components": 5})
    with pytest.raises(SpecError, match=r"head.components is 5, but the label prior .* has 3; set head.components to 3"):
        prior_mixture(other, MINE)


def test_weights_of_a_mixture_without_a_prior_are_no_weights_of_one_with() -> None:
    tilted = build_classifier(ModelSpec(backbone="squeezenet1_1", head=HeadSpec(name="mixture", prior="coco")), 80)
    assert isinstance(tilted.head, TiltedHead)
    plain = MixtureHead(512, 80, HeadSpec(name="mixture", components=tilted.head.num_components), Start())
    assert tilted.head.state_dict().keys() - plain.state_dict().keys() == {"bias"}
    with pytest.raises(ModelError, match="prevalence_L"):
        head(prevalence_L=P_L[:3])
