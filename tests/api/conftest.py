"""The bundle and photos of tests/predict, the runs of tests/train, and a model that is loaded once."""

import pytest

import rayprob as rp
from tests.predict.conftest import bundle, bundle_path, photos
from tests.train.conftest import make_run, tiny

__all__ = ["bundle", "bundle_path", "make_run", "model", "photos", "tiny"]


@pytest.fixture(scope="session")
def model(bundle_path: str) -> rp.Model:
    return rp.load(bundle_path)
