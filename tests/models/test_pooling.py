"""Poolings against plain numpy."""

import numpy as np
import pytest
import torch

from rayprob.errors import ModelError
from rayprob.models.pooling import GeneralisedMean, build_pooling

MAPS = torch.rand(2, 5, 3, 4, generator=torch.Generator().manual_seed(0)) + 0.1


def test_poolings_equal_their_definitions() -> None:
    maps = MAPS.numpy()
    expected = {"gap": maps.mean((2, 3)), "gmp": maps.max((2, 3)), "gem": np.cbrt((maps**3).mean((2, 3)))}
    for name, features in expected.items():
        np.testing.assert_allclose(build_pooling(name)(MAPS).detach().numpy(), features, rtol=1e-5)
    places_BFP = build_pooling("places")(MAPS)
    assert places_BFP.shape == (2, 5, 12)
    np.testing.assert_array_equal(places_BFP.numpy()[..., 7], maps[..., 1, 3])


def test_generalised_mean_lies_between_average_and_maximum() -> None:
    torch.testing.assert_close(GeneralisedMean(power=1.0)(MAPS), MAPS.mean((2, 3)))
    torch.testing.assert_close(GeneralisedMean(power=200.0)(MAPS), MAPS.amax((2, 3)), rtol=0.02, atol=0)


def test_generalised_mean_learns_its_power_and_bears_zeros() -> None:
    pooling = GeneralisedMean()
    pooling(torch.zeros(1, 2, 2, 2, requires_grad=True)).sum().backward()
    assert torch.isfinite(pooling.power.grad).all()
    pooling(MAPS).sum().backward()
    assert pooling.power.grad.item() > 0


def test_poolings_return_float32_under_autocast_and_keep_float64() -> None:
    for name in ("gap", "gmp", "gem", "places"):
        with torch.autocast("cpu", torch.bfloat16):
            pooled = build_pooling(name)(MAPS.bfloat16())
        assert pooled.dtype == torch.float32
        torch.testing.assert_close(pooled, build_pooling(name)(MAPS.bfloat16().float()))
        assert build_pooling(name).double()(MAPS.double()).dtype == torch.float64


def test_unknown_pooling_names_the_nearest() -> None:
    with pytest.raises(ModelError, match=r"unknown pooling 'gam'; nearest: g.*allowed: gap, gmp, gem, places"):
        build_pooling("gam")
