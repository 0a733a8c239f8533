"""The bundle and photos of tests/predict, and a model that is loaded once."""

import pytest

import rayprob as rp
from tests.predict.conftest import bundle, bundle_path, photos

__all__ = ["bundle", "bundle_path", "model", "photos"]


@pytest.fixture(scope="session")
def model(bundle_path: str) -> rp.Model:
    return rp.load(bundle_path)
