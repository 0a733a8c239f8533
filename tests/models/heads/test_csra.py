"""The head `csra`: its formula, today's attention as its one-head case, and what it learns. B images, F features, P places."""

import numpy as np
import pytest
import torch
from torch import Tensor

from rayprob.errors import SpecError
from rayprob.models.build import ModelSpec
from rayprob.models.heads import HeadSpec, Start, build_head
from tests.models.heads.learning import away_from_start, gradients_per_target, has_exact_gradients, loss_after_training

B, F, L, P = 3, 7, 4, 6
PREVALENCE = np.array([0.5, 0.1, 0.02, 0.9])


def features(batch: int = B) -> Tensor:
    return torch.randn(batch, F, P, generator=torch.Generator().manual_seed(3))


def test_logits_equal_their_written_out_sums() -> None:
    head = build_head(HeadSpec(name="csra", attention=0.3, temperatures=[0.5, 2, "max"]), F, L, Start(PREVALENCE)).double()
    torch.nn.init.normal_(head.linear.weight)
    weight_HLF, bias_L = head.linear.weight.detach().numpy().reshape(3, L, F), head.bias.detach().numpy()
    found_BL = head(features().double())["logits"].detach().numpy()
    for b, label in np.ndindex(B, L):
        logit = bias_L[label]
        for h, temperature in enumerate((0.5, 2, None)):
            s_P = [weight_HLF[h, label] @ features().double().numpy()[b, :, p] for p in range(P)]
            odds_P = [np.exp(temperature * s) if temperature else float(s == max(s_P)) for s in s_P]
            logit += sum(s_P) / P + 0.3 * sum(o * s for o, s in zip(odds_P, s_P, strict=True)) / sum(odds_P)
        np.testing.assert_allclose(found_BL[b, label], logit, rtol=1e-9)


def test_one_head_of_the_best_place_is_the_bernoulli_head_with_attention() -> None:
    bernoulli = build_head(HeadSpec(attention=0.4), F, L, Start(PREVALENCE))
    csra = build_head(HeadSpec(name="csra", attention=0.4, temperatures=["max"]), F, L)
    csra.start_from_bernoulli(bernoulli.linear.weight.detach(), bernoulli.linear.bias.detach())
    torch.testing.assert_close(csra(features()), bernoulli(features()))


def test_temperature_0_attends_to_all_places_alike_and_a_high_one_to_the_best() -> None:
    def logits_BL(attention: float, temperature: float | str) -> Tensor:
        torch.manual_seed(0)
        return build_head(HeadSpec(name="csra", attention=attention, temperatures=[temperature]), F, L)(features())["logits"]

    torch.testing.assert_close(logits_BL(1.0, 0), 2 * logits_BL(0.0, "max"))
    torch.testing.assert_close(logits_BL(1.0, 1e6), logits_BL(1.0, "max"))


def test_a_fresh_head_answers_with_the_prevalences() -> None:
    head = build_head(HeadSpec(name="csra"), F, L, Start(PREVALENCE))
    np.testing.assert_allclose(torch.sigmoid(head(features(200))["logits"]).mean(0).detach().numpy(), PREVALENCE, atol=0.02)


def test_several_heads_share_the_weights_of_a_bernoulli_head() -> None:
    bernoulli = build_head(HeadSpec(), F, L, Start(PREVALENCE))
    csra = build_head(HeadSpec(name="csra", attention=0), F, L)
    csra.start_from_bernoulli(bernoulli.linear.weight.detach(), bernoulli.linear.bias.detach())
    torch.testing.assert_close(csra(features()), bernoulli(features()))


def test_gradients_in_float64() -> None:
    assert has_exact_gradients(away_from_start(build_head(HeadSpec(name="csra"), F, 2)), features(2))


def test_its_size_is_what_it_states() -> None:
    head = build_head(HeadSpec(name="csra"), F, L)
    assert sum(parameter.numel() for parameter in head.parameters()) == F * 4 * L + L


@pytest.mark.parametrize(("spec", "learns"), [(HeadSpec(), False), (HeadSpec(name="csra", temperatures=[1, "max"]), True)])
def test_it_finds_a_label_that_the_average_over_places_hides(spec: HeadSpec, learns: bool) -> None:
    chance = torch.Generator().manual_seed(5)
    targets_BL = torch.rand(128, 1, generator=chance) < 0.5
    images_BFP = 0.1 * torch.randn(128, F, P, generator=chance)
    images_BFP[:, 0, :2] += targets_BL * torch.tensor([2.0, -2.0])  # the average is the same with and without the label
    assert (loss_after_training(spec, images_BFP, targets_BL, steps=100, lr=0.1) < 0.1) is learns


def test_an_image_is_judged_by_itself_and_unknown_labels_teach_nothing() -> None:
    head = build_head(HeadSpec(name="csra"), F, L)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(head(features()[order])["logits"], head(features())["logits"][order])
    known_BL = torch.rand(B, L, generator=torch.Generator().manual_seed(1)) < 0.5
    assert all(map(torch.equal, *gradients_per_target(head, features(), known_BL)))


def test_it_needs_places() -> None:
    with pytest.raises(SpecError, match=r"head.name csra needs .* pooling gap .* set pooling: places, or use another head"):
        ModelSpec.parse({"head": {"name": "csra"}})


@pytest.mark.parametrize("temperatures", [[], ["best"], [-1]])
def test_temperatures_that_it_does_not_have_are_refused(temperatures: list[object]) -> None:
    with pytest.raises(SpecError, match="temperatures"):
        HeadSpec.parse({"name": "csra", "temperatures": temperatures})


def test_its_spec_survives_being_written() -> None:
    spec = HeadSpec(name="csra", temperatures=[1, "max"])
    assert HeadSpec.parse(spec.model_dump(mode="json")) == spec
