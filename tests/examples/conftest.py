"""The tiny dataset of tests/train and runs on it."""

from tests.train.conftest import make_run, tiny

__all__ = ["make_run", "tiny"]
