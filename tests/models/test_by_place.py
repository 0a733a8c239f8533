"""What every head and pooling states of places: sums that are the logits, attention, and log-odds with gradients."""

import numpy as np
import pytest
import torch
from torch import Tensor

from rayprob.models.heads import HEADS, HeadSpec
from rayprob.models.necks import JoinedPooling, build_neck
from rayprob.models.pooling import POOLINGS, build_pooling
from rayprob.probability.families import FAMILIES, family_of
from tests.models.systems import TEST, L, P, distribution, fresh, head_spec

SUMS = {"bernoulli", "compressed", "csra", "graph"}
ATTENTIVE = {"decoder", "srn"}
MAPS = torch.randn(2, 5, 8, 9, generator=torch.Generator().manual_seed(0)) + 0.3


def moved(spec: HeadSpec) -> torch.nn.Module:
    """A head whose parameters are away from their start, so that no part of its sums is 0."""
    head, chance = fresh(spec), torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in filter(lambda one: one.requires_grad, head.parameters()):
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=chance, dtype=parameter.dtype))
    return head


def test_the_heads_that_state_sums_or_attention_are_these() -> None:
    heads = {name: fresh(head_spec(name)) for name in HEADS}
    assert {name for name, head in heads.items() if head.is_sum_over_places} == SUMS
    assert {name for name, head in heads.items() if head.has_attention} == ATTENTIVE


@pytest.mark.parametrize(
    "spec",
    [*map(head_spec, sorted(SUMS)), HeadSpec(attention=0.7), HeadSpec(name="csra", attention=0.4, temperatures=[0, "max"])],
    ids=str,
)
def test_sums_over_places_are_the_logits(spec: HeadSpec) -> None:
    head = moved(spec)
    found = head.by_place(TEST.features_NFP)
    assert found.added_BLP.shape == (len(TEST.targets_NL), L, P)
    assert (found.added_BLP.abs().amax(dim=(0, 2)) > 0.01).all()  # of every label, some place adds something
    torch.testing.assert_close(found.added_BLP.sum(dim=2) + found.rest_BL, head(TEST.features_NFP)["logits"])


@pytest.mark.parametrize("name", sorted(ATTENTIVE))
def test_attention_follows_the_place_that_matters(name: str) -> None:
    features_BFP = TEST.features_NFP[:4]
    weights_BLP = moved(head_spec(name)).attention_to_places(features_BFP)
    assert weights_BLP.shape == (4, L, P)
    assert (weights_BLP >= 0).all()
    if name == "decoder":  # its places have no order, so attention moves with them; srn's convolutions see neighbours
        order = [2, 0, 3, 1]
        reordered_BLP = moved(head_spec(name)).attention_to_places(features_BFP[:, :, order])
        torch.testing.assert_close(reordered_BLP, weights_BLP[..., order])
        torch.testing.assert_close(weights_BLP.sum(dim=2), torch.ones(4, L).double())


def test_labels_that_share_a_query_share_its_attention() -> None:
    spec = HeadSpec(name="decoder", queries=2, width=32, feedforward=64, layers=2, self_attention=True)
    weights_BLP = moved(spec).attention_to_places(TEST.features_NFP[:4])
    torch.testing.assert_close(weights_BLP[:, 0], weights_BLP[:, 2])
    assert (weights_BLP[:, 0] - weights_BLP[:, 5]).abs().max() > 1e-3


def test_the_attention_of_a_decoder_is_that_of_its_forward_pass() -> None:
    head = moved(head_spec("decoder"))
    layer, places_BPD = head.layers[0], torch.randn(3, P, 32, generator=torch.Generator().manual_seed(1)).double()
    queries = layer._asking(head.queries.unsqueeze(0))
    values = layer.to_places.value(places_BPD).unflatten(2, (layer.to_places.heads, -1))
    values[:] = torch.arange(P)[None, :, None, None].double()  # a mix of place numbers is the mean place of the weights
    weights = layer.to_places.weights(queries, places_BPD)
    key = layer.to_places.key(places_BPD).unflatten(2, (layer.to_places.heads, -1)).transpose(1, 2)
    query = layer.to_places.query(queries).unflatten(2, (layer.to_places.heads, -1)).transpose(1, 2).expand(3, -1, -1, -1)
    mixed = torch.nn.functional.scaled_dot_product_attention(query, key, values.transpose(1, 2))
    torch.testing.assert_close(weights @ torch.arange(P).double(), mixed[..., 0].mean(dim=1))


@pytest.mark.parametrize("name", POOLINGS)
def test_parts_have_the_features_as_their_mean(name: str) -> None:
    pooling = build_pooling(name)
    features, parts_BFP = pooling(MAPS), pooling.parts(MAPS)
    torch.testing.assert_close(parts_BFP if pooling.keeps_places else parts_BFP.mean(dim=2), features)


def test_maps_of_several_stages_are_joined_before_they_are_pooled() -> None:
    stages = [torch.randn(2, 3, 8, 8), torch.randn(2, 5, 4, 4)]
    pooling = JoinedPooling(build_neck("concatenation", [3, 5]), build_pooling("gem"))
    maps_BFhw = pooling.joined(stages)
    assert maps_BFhw.shape == (2, 8, 4, 4)
    torch.testing.assert_close(pooling.plain(maps_BFhw), pooling(stages))


def test_the_maximum_belongs_to_one_place() -> None:
    parts_BFP = build_pooling("gmp").parts(MAPS)
    assert ((parts_BFP != 0).sum(dim=2) == 1).all()
    assert (parts_BFP.argmax(dim=2) == MAPS.flatten(2).argmax(dim=2)).float().mean() == 1


def test_the_parts_of_a_generalised_mean_are_its_derivatives_times_the_maps() -> None:
    maps, pooling = MAPS.abs().double().requires_grad_(), build_pooling("gem").double()
    (gradient,) = torch.autograd.grad(pooling(maps).sum(), maps)
    torch.testing.assert_close(pooling.parts(maps) / 72, (gradient * maps).flatten(2))  # Euler: sum of x df/dx is f


@pytest.mark.parametrize("name", HEADS)
def test_log_odds_are_those_of_the_marginals_and_have_gradients(name: str) -> None:
    head, spec = moved(head_spec(name)), head_spec(name)
    compute = family_of(head.family).log_odds
    if compute is None:
        assert head.family == "recurrent"
        return
    features: Tensor = (TEST.features_NFP if spec.why_places else TEST.features_NFP.mean(dim=2))[:8].clone().requires_grad_()
    log_odds_BL = compute(head(features))
    marginals_NL = distribution(head, features.detach()).marginals()
    np.testing.assert_allclose(torch.sigmoid(log_odds_BL).detach().numpy(), marginals_NL, atol=1e-5)
    (gradient,) = torch.autograd.grad(log_odds_BL.sum(), features)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() > 0


def test_log_odds_of_a_mixture_do_not_saturate() -> None:
    outputs = {"mixing_logits": torch.zeros(1, 2), "component_logits": torch.tensor([[[60.0, -60.0], [60.0, -60.0]]])}
    found = FAMILIES["mixture"].log_odds
    assert found is not None
    torch.testing.assert_close(found(outputs), torch.tensor([[60.0, -60.0]]).double())


def test_a_head_that_states_no_sum_raises() -> None:
    with pytest.raises(NotImplementedError):
        fresh(head_spec("semantic")).by_place(TEST.features_NFP)
