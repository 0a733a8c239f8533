"""Plugins of one test, of which the next one finds nothing."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rayprob import plugins
from rayprob.registry import OPEN


@pytest.fixture
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put the tables, Python's path and its modules back as they were."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(plugins, "_folders", [])
    monkeypatch.setattr(plugins, "_added", [])
    tables = {name: (dict(table), dict(table.origin)) for name, table in OPEN.items()}
    yield
    for name, (parts, origin) in tables.items():
        OPEN[name].clear()
        OPEN[name].update(parts)
        OPEN[name].origin = origin
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]
