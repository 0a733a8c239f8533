"""Fixtures of the loader's tests."""

import pytest

from rayprob.data.manifest.dataset import Manifest
from tests.loader.tiny import write_dataset


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """53 samples in 7 shards of unequal length."""
    return write_dataset(tmp_path_factory.mktemp("dataset"), [9, 5, 11, 3, 8, 10, 7]).split("train")
