"""Backbones by name: images_BCHW -> maps_BFhw. torchvision's classifiers without heads, timm's as `timm/<name>`, and others."""

import re
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from rayprob.errors import ModelError
from rayprob.models.cut import Cut
from rayprob.models.from_timm import TIMM, cut_timm, import_timm
from rayprob.models.from_torchvision import cut_torchvision, torchvision_names
from rayprob.models.stages import Stage, choose_stages, read_stages
from rayprob.registry import PartTable, unknown

__all__ = ["BACKBONES", "Backbone", "Cut", "build_backbone", "check_image_size", "patch_px", "require_backbone"]


class Backbone(nn.Module):
    """Normalises images and turns them into maps [B, F, h, w]; `body` comes from the source library.

    With `stages`, it returns the maps of each of them, the finest first.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, cut: Cut, stages: tuple[Stage, ...] = ()) -> None:
        super().__init__()
        self.body = cut.body
        self.stages = stages
        self.num_features = cut.num_features
        self.head_names = cut.head_names
        self.register_buffer("mean", torch.tensor(cut.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(cut.std).view(3, 1, 1))

    def normalise_by(self, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
        """Replace the mean and standard deviation of the three channels, if given, for images in 0..1."""
        for buffer, values in ((self.mean, mean), (self.std, std)):
            if values is not None:
                buffer.copy_(torch.tensor(values).view(3, 1, 1))

    @property
    def source(self) -> nn.Module:
        """The module whose parameters are named as in files of the source library."""
        return cast(nn.Module, getattr(self.body, "whole", self.body))

    def forward(self, images_BCHW: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return maps [B, F, h, w] of images that are uint8 in 0..255 or floating in 0..1; one for each of `stages`, if any."""
        images_BCHW = images_BCHW if images_BCHW.is_floating_point() else images_BCHW.float() / 255
        images_BCHW = (images_BCHW - self.mean) / self.std
        return read_stages(self.body, images_BCHW, self.stages) if self.stages else cast(Tensor, self.body(images_BCHW))


def patch_px(name: str) -> int | None:
    """Return the number of which image sides must be a multiple, by the backbone's name; None if any side works.

    Convolutions include the last, incomplete cell; patches drop it, and MaxViT needs whole windows of 7 x 32 pixels.
    """
    stated = re.search(r"patch(\d+)|^vit_[a-z]+_(\d+)$", name)
    if stated:
        return int(stated[1] or stated[2])
    return 224 if name.startswith("maxvit") else None


def check_image_size(name: str, size_px: int, where: str) -> None:
    """Raise ModelError for image sizes that the backbone would crop or reject; `where` names the key that sets the size."""
    patch = patch_px(name)
    if patch and size_px % patch:
        nearest = max(patch, round(size_px / patch) * patch)
        raise ModelError(
            f"{where}: {size_px} px is not a multiple of {patch} px, the patch size of {name}, so images would lose their "
            f"edge; nearest multiple: {nearest}"
        )


def build_backbone(
    name: str,
    weights: str | None = None,
    *,
    image_size_px: int | None = None,
    load: bool = True,
    maps: Sequence[int] | None = None,
) -> Backbone:
    """Return the backbone `name`, with fresh parameters or the library's published `weights` (a name such as DEFAULT).

    With `maps`, it returns the maps of the stages of these numbers, which ascend (`rayprob.models.stages`).
    `load=False` builds what `weights` would need without fetching them. `image_size_px` matters only for families that are
    built for one size: torchvision's vit (whose position embeddings are resampled to the size of the images) and maxvit,
    and those timm models that take `img_size`. Raises ModelError for an unknown name, for weights that are unavailable, and
    for stages that the backbone does not have.
    """
    require_backbone(name)
    cut = _cut(name, weights, image_size_px, load)
    return Backbone(cut, choose_stages(cut.body, maps, name, image_size_px) if maps else ())


def _cut(name: str, weights: str | None, image_size_px: int | None, load: bool) -> Cut:
    if name in BACKBONES:
        return BACKBONES[name](weights, image_size_px, load)
    if name.startswith(TIMM):
        return cut_timm(name.removeprefix(TIMM), weights, image_size_px, load)
    return cut_torchvision(name, weights, image_size_px, load)


def require_backbone(name: str) -> None:
    """Raise ModelError unless `name` is a backbone that can be built here."""
    if name in BACKBONES:
        return
    if name.startswith(TIMM):
        model = name.removeprefix(TIMM)
        if not import_timm().is_model(model):
            raise ModelError(unknown(model.split(".")[0], import_timm().list_models(), "timm backbone"))
    elif name not in torchvision_names():
        known = (*BACKBONES, *torchvision_names())
        raise ModelError(unknown(name, known, "backbone") + "; or timm/<name> with the timm extra")


# Other backbones by name: (weights, image_size_px, load) -> Cut. torchvision and timm have their own tables.
BACKBONES: PartTable[Callable[[str | None, int | None, bool], Cut]] = PartTable("BACKBONES", {})
