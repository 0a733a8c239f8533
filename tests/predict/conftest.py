"""A small bundle with everything in it, and a folder of small images that differ."""

from pathlib import Path

import pytest

from rayprob.runs.bundle import Bundle
from tests.loader.tiny import photo
from tests.predict.small import make_bundle


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    return make_bundle(1, {"name": "mixture", "components": 3, "dropout": 0.3})


@pytest.fixture(scope="session")
def bundle_path(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("run") / "bundle")
    bundle.save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five JPEGs, 24 x 32 px."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for place in range(5):
        (folder / f"photo-{place}.jpg").write_bytes(photo(place))
    return folder
