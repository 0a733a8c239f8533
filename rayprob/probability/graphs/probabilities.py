"""Modules that map a head's outputs to calibrated probabilities by tensor operations, one for each kind of calibrator."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rayprob.probability.distributions.distribution import LabelDistribution


class Probabilities(nn.Module, ABC):
    """A calibrator in an exported graph. It computes in float64 and returns float32: by default only the marginals."""

    names: ClassVar[tuple[str, ...]] = ("marginals",)  # of the outputs, in order

    @abstractmethod
    def forward(self, outputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Return what `names` lists, from the head's outputs."""

    @staticmethod
    def expected(distribution: LabelDistribution) -> dict[str, NDArray[Any]]:
        """Return the same, by name, from the bundle's own distributions of the same images; export compares the two."""
        return {"marginals": distribution.marginals()}


def constant(values: NDArray[Any]) -> nn.Buffer:
    """Return values as a constant of the graph."""
    return nn.Buffer(torch.from_numpy(np.array(values, dtype=np.float64)), persistent=False)
