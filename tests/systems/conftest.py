"""The tiny dataset and its run, as for training."""

from tests.train.conftest import make_run, tiny

__all__ = ["make_run", "tiny"]
