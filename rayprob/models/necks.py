"""Necks: maps of several stages, finest first, joined into maps [B, F, h, w] of the size of the last ones."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate, relu

from rayprob.errors import ModelError
from rayprob.models.pooling import Pooling
from rayprob.models.precision import at_least_float32
from rayprob.registry import PartTable, choose

WIDTH = 256  # channels of a top-down path, as in a feature pyramid network


class Neck(nn.Module):
    """Joins the maps [B, F_s, h_s, w_s] of stages s, finest first; `num_features` is F of what it returns."""

    def __init__(self, channels: Sequence[int]) -> None:
        """`channels` are F_s of the stages."""
        super().__init__()
        self.num_features = sum(channels)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return maps [B, F, h, w] with h and w of the last stage."""
        raise NotImplementedError


class Concatenation(Neck):
    """The features of all stages side by side, averaged to the places of the last one: F = sum of F_s, without parameters."""

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return maps [B, F, h, w] with h and w of the last stage, in float32."""
        height, width = maps[-1].shape[2:]
        return torch.cat([adaptive_avg_pool2d(at_least_float32(stage), (height, width)) for stage in maps], dim=1)


class TopDown(Neck):
    """A feature pyramid (Lin et al., CVPR 2017), whose stages are then concatenated: F = WIDTH * S for S stages.

    A 1x1 convolution takes each stage to WIDTH channels; each adds the next coarser sum, at its own resolution; a 3x3
    convolution and a rectifier follow, without which an average of places would see no more than concatenated features.
    Size: WIDTH * sum of F_s + S * 9 * WIDTH^2, without biases.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__([WIDTH] * len(channels))
        self.lateral = nn.ModuleList(nn.Conv2d(number, WIDTH, 1) for number in channels)
        self.smooth = nn.ModuleList(nn.Conv2d(WIDTH, WIDTH, 3, padding=1) for _ in channels)
        self.join = Concatenation([WIDTH] * len(channels))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return maps [B, F, h, w] with h and w of the last stage, in float32."""
        merged = [lateral(stage) for lateral, stage in zip(self.lateral, maps, strict=True)]
        for coarser, finer in pairwise(reversed(range(len(maps)))):
            merged[finer] = merged[finer] + interpolate(merged[coarser], size=merged[finer].shape[2:], mode="nearest")
        joined: Tensor = self.join([relu(smooth(stage)) for smooth, stage in zip(self.smooth, merged, strict=True)])
        return joined


class JoinedPooling(Pooling):
    """A pooling of the maps that a neck joins. Both are trained with the head, where a backbone is frozen."""

    def __init__(self, neck: Neck, pooling: Pooling) -> None:
        super().__init__()
        self.neck, self.pooling = neck, pooling
        self.keeps_places, self.num_features = pooling.keeps_places, neck.num_features

    @property
    def plain(self) -> Pooling:
        """The pooling of the joined maps."""
        return self.pooling

    def joined(self, maps: Tensor | Sequence[Tensor]) -> Tensor:
        """Return the maps [B, F, h, w] that the neck joins."""
        joined: Tensor = self.neck(maps)
        return joined

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return features [B, F], or [B, F, P] of the places of the last stage."""
        features: Tensor = self.pooling(self.neck(maps))
        return features


def build_neck(name: str, channels: Sequence[int]) -> Neck:
    """Return the neck `name`. Raises ModelError for an unknown one."""
    return choose(NECKS, name, "neck", ModelError)(channels)


NECKS: PartTable[type[Neck]] = PartTable("NECKS", {"concatenation": Concatenation, "top_down": TopDown})
