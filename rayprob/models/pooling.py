"""Poolings: maps_BFhw -> features_BF, in float32 even under autocast.

`places` keeps the P = h * w places apart, as features_BFP, for a head that uses each of them; `places7` those of a 7 x 7 grid.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from rayprob.errors import ModelError
from rayprob.models.precision import at_least_float32, full_precision
from rayprob.registry import PartTable, choose


class Pooling(nn.Module):
    """Turns maps [B, F, h, w] into features; with `keeps_places` they are [B, F, P] of P places, not [B, F]."""

    keeps_places = False
    num_features: int | None = None  # F of the features, where it differs from that of the maps

    @property
    def plain(self) -> "Pooling":
        """The pooling of maps of one resolution."""
        return self

    def joined(self, maps: Tensor | Sequence[Tensor]) -> Tensor:
        """Return the maps [B, F, h, w] that `plain` pools, from what the backbone returns."""
        return torch.as_tensor(maps)

    def parts(self, maps_BFhw: Tensor) -> Tensor:
        """Return the part of the features that each place has, [B, F, P]; their mean over places is [B, F].

        With `keeps_places` they are the features themselves. Raises NotImplementedError if features are not such a mean.
        """
        raise NotImplementedError

    @property
    def has_parts(self) -> bool:
        """Whether `parts` is defined."""
        return type(self).parts is not Pooling.parts


class GlobalAverage(Pooling):
    """The mean over all positions."""

    def forward(self, maps_BFhw: Tensor) -> Tensor:
        """Return features [B, F]."""
        return at_least_float32(maps_BFhw).mean(dim=(2, 3))

    def parts(self, maps_BFhw: Tensor) -> Tensor:
        """Return the maps [B, F, P]."""
        return at_least_float32(maps_BFhw).flatten(2)


class GlobalMax(Pooling):
    """The largest value over all positions."""

    def forward(self, maps_BFhw: Tensor) -> Tensor:
        """Return features [B, F]."""
        return at_least_float32(maps_BFhw).amax(dim=(2, 3))

    def parts(self, maps_BFhw: Tensor) -> Tensor:
        """Return [B, F, P]: a feature's maximum belongs to the place where it is, the first if several tie."""
        maps_BFP = at_least_float32(maps_BFhw).flatten(2)
        largest, place = maps_BFP.max(dim=2, keepdim=True)
        return torch.zeros_like(maps_BFP).scatter(2, place, largest * maps_BFP.shape[2])


class GeneralisedMean(Pooling):
    """(mean of maps^p)^(1/p) with a learnt p: 1 is the average, infinity the maximum (Radenovic et al., TPAMI 2019)."""

    def __init__(self, power: float = 3.0, floor: float = 1e-6) -> None:
        super().__init__()
        self.power = nn.Parameter(torch.tensor([power]))
        self.floor = floor

    def forward(self, maps_BFhw: Tensor) -> Tensor:
        """Return features [B, F]; values below `floor` count as `floor`."""
        with full_precision(maps_BFhw):
            positive = at_least_float32(maps_BFhw).clamp(min=self.floor)
            return positive.pow(self.power).mean(dim=(2, 3)).pow(1 / self.power)

    def parts(self, maps_BFhw: Tensor) -> Tensor:
        """Return [B, F, P]: a feature is shared in proportion to maps^p, which is Euler's formula for its derivatives."""
        powers_BFP = at_least_float32(maps_BFhw).clamp(min=self.floor).flatten(2).pow(self.power)
        mean_BF1 = powers_BFP.mean(dim=2, keepdim=True)
        return powers_BFP / mean_BF1 * mean_BF1.pow(1 / self.power)


class Places(Pooling):
    """No pooling: every place keeps its features, and the head pools scores."""

    keeps_places = True

    def forward(self, maps_BFhw: Tensor) -> Tensor:
        """Return features [B, F, P]."""
        return at_least_float32(maps_BFhw).flatten(2)

    def parts(self, maps_BFhw: Tensor) -> Tensor:
        """Return features [B, F, P]."""
        features: Tensor = self(maps_BFhw)
        return features


class PlacesOfAGrid(Places):
    """A grid of `SIDE` x `SIDE` places, each the mean over its part of the maps: fewer places than the maps have.

    Smaller maps keep their own places.
    """

    SIDE = 7

    def forward(self, maps_BFhw: Tensor) -> Tensor:
        """Return features [B, F, P]."""
        height, width = (min(self.SIDE, side) for side in maps_BFhw.shape[2:])
        return super().forward(adaptive_avg_pool2d(at_least_float32(maps_BFhw), (height, width)))


def grid_of(num_places: int) -> tuple[int, int]:
    """Return the rows and columns of `num_places` places: those of a square, which images are, or the nearest to one."""
    rows = next(rows for rows in range(math.isqrt(num_places), 0, -1) if num_places % rows == 0)
    return rows, num_places // rows


def build_pooling(name: str) -> Pooling:
    """Return the pooling `name`. Raises ModelError for an unknown one."""
    return choose(POOLINGS, name, "pooling", ModelError)()


POOLINGS: PartTable[type[Pooling]] = PartTable(
    "POOLINGS", {"gap": GlobalAverage, "gmp": GlobalMax, "gem": GeneralisedMean, "places": Places, "places7": PlacesOfAGrid}
)
