"""Shared fixtures: where ../shared lies, and quiet, small Ray settings."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder ../shared; tests that need it are skipped where it is absent."""
    if not (SHARED / "coco-sample").is_dir():
        pytest.skip(f"needs the shared material at {SHARED}, which is absent here")
    return SHARED
