"""Families: each states outputs from which its distribution, calibrators and graph all follow."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rayprob.errors import BundleError, ModelError
from rayprob.models.heads import HEADS, HeadSpec
from rayprob.models.losses import LOSSES, LossSpec
from rayprob.probability.calibration.candidates import Candidates
from rayprob.probability.families import FAMILIES, Family, family_of, from_outputs

SIZES = {"N": 4, "K": 3, "L": 5, "P": 2, "T": 1, "D": 4, "E": 2, "H": 6}
NOT_EXPORTED = ("recurrent",)  # whose marginals are estimated from samples


def outputs_of(family: Family) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    return {
        name: rng.normal(size=[SIZES.get(letter) or int(letter) for letter in shape]).astype(np.float32)
        for name, shape in family.outputs.items()
    }


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_hangs_together(name: str) -> None:
    family = family_of(name)
    outputs = outputs_of(family)
    distribution = from_outputs(name, outputs)
    assert (len(distribution), distribution.num_labels, distribution.family) == (4, 5, name)
    assert distribution.is_sampled == family.is_sampled
    assert LossSpec.of(family.loss).family == name
    assert all(isinstance(value, float) for value in family.numbers(outputs).values())
    if name in NOT_EXPORTED:
        with pytest.raises(ModelError, match=f"heads of the family {name} cannot be exported"):
            family.build_graph(None)
        return
    graph = family.build_graph(None)
    found = dict(zip(graph.names, graph({key: torch.from_numpy(value) for key, value in outputs.items()}), strict=True))
    for key, expected in graph.expected(distribution).items():
        np.testing.assert_allclose(found[key].numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_identity_leaves_the_likelihood_as_it_is(name: str) -> None:
    family = family_of(name)
    rng = np.random.default_rng(1)
    outputs, targets_NL, known_NL = family.candidates.check(
        outputs_of(family), rng.random((4, 5)) < 0.4, rng.random((4, 5)) < 0.8
    )
    same = family.candidates.fits["identity"](outputs, targets_NL, known_NL)
    expected_N = -from_outputs(name, outputs).log_prob(targets_NL, known_NL)
    np.testing.assert_allclose(family.candidates.nll(same, outputs, targets_NL, known_NL), expected_N, rtol=1e-9)
    again = family.candidates.rebuild("identity", same.to_arrays())
    np.testing.assert_array_equal(
        again.as_distribution(again.apply_outputs(outputs)).marginals(), from_outputs(name, outputs).marginals()
    )


def test_every_head_and_loss_is_of_a_family() -> None:
    assert {HeadSpec.of(name).family for name in HEADS} == FAMILIES.keys()
    assert {LossSpec.of(name).family for name in LOSSES} == FAMILIES.keys()


def test_a_family_without_calibrators_keeps_its_outputs() -> None:
    mixture = family_of("mixture")
    plain = Candidates.of("mixture", mixture.distribution)
    outputs = outputs_of(mixture)
    same = plain.fits["identity"](outputs, np.ones((4, 5), bool), np.ones((4, 5), bool))
    assert (list(plain.fits), same.family, plain.enough(0)) == (["identity"], "mixture", ("identity",))
    np.testing.assert_array_equal(
        same.as_distribution(same.apply_outputs(outputs)).marginals(), mixture.distribution(outputs).marginals()
    )
    with pytest.raises(BundleError, match="unknown calibrator of a mixture distribution 'platt'; allowed: identity"):
        plain.rebuild("platt", {})


def test_a_family_without_a_graph_cannot_be_exported() -> None:
    silent = Family("silent", {"logits": "NL"}, family_of("bernoulli").distribution, "bce", lambda options: "silent")
    with pytest.raises(
        ModelError, match="heads of the family silent cannot be exported: the family defines no graph; use another head"
    ):
        silent.build_graph(None)
