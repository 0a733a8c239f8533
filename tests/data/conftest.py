"""Fixtures: a small source that the test may break, and one that is built once for all who only read."""

from pathlib import Path

import pytest

from tests.data.small_source import Source, write_source


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """A fresh source that the test may break."""
    return write_source(tmp_path)


@pytest.fixture(scope="session")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """A source with its dataset, for tests that only read."""
    source = write_source(tmp_path_factory.mktemp("source"))
    source.build()
    return source
