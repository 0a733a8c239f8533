"""The bundle and photos of tests/predict, and the application in this process, without Ray."""

import pytest
from starlette.testclient import TestClient

from rayprob.serve.service import BundleService
from rayprob.serve.spec import Limits
from tests.loader.tiny import photo
from tests.predict.conftest import bundle, bundle_path
from tests.serve.here import client_of
from tests.train.conftest import make_run, tiny

__all__ = ["bundle", "bundle_path", "make_run", "tiny"]


@pytest.fixture(scope="session")
def service(bundle_path: str) -> BundleService:
    return BundleService("small", bundle_path, Limits())


@pytest.fixture
def client(service: BundleService) -> TestClient:
    return client_of(service)


@pytest.fixture(scope="session")
def jpeg() -> bytes:
    return photo(1)
