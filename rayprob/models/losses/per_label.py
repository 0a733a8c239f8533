"""Constants per label that losses derive from the training labels. L labels."""

import numpy as np
import torch
from torch import Tensor

from rayprob.arrays import Floats
from rayprob.errors import ModelError
from rayprob.models.heads.head import RAREST, Start


class PerLabel:
    """A constant per label [L], which moves to the device of the logits at its first use and stays there."""

    def __init__(self, values_L: Floats) -> None:
        self._values_L = torch.from_numpy(np.array(values_L, dtype=np.float64))

    def like(self, logits_BL: Tensor) -> Tensor:
        """Return the values on the device and in the number format of `logits_BL`. Raises ModelError for other labels."""
        if len(self._values_L) != logits_BL.shape[1]:
            raise ModelError(
                f"the loss has prevalences of {len(self._values_L)} labels, but the head has {logits_BL.shape[1]}; "
                "build the loss with the training labels of the head"
            )
        self._values_L = self._values_L.to(logits_BL.device)
        return self._values_L.to(logits_BL.dtype)


def prevalences(start: Start, loss: str) -> Floats:
    """Return the prevalences of the training labels [L], within RAREST and 1 - RAREST. Raises ModelError if unknown."""
    if start.prevalence_L is None:
        raise ModelError(
            f"the loss {loss} needs the prevalences of the training labels; build it with Start(prevalence_L=...), "
            "one prevalence per label"
        )
    return np.clip(np.asarray(start.prevalence_L, dtype=np.float64), RAREST, 1 - RAREST)
