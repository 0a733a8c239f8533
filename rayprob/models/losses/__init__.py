"""Losses, one module each. A module here ends with its table LOSSES, as a plugin does, and is then known by name."""

from rayprob.models.losses.loss import LOSSES, Loss, LossSpec, build_loss

__all__ = ["LOSSES", "Loss", "LossSpec", "build_loss"]
