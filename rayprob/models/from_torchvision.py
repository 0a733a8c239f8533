"""torchvision's image classifiers as backbones: each family is cut before its pooling."""

import math
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from rayprob.models.cut import IMAGENET_MEAN, IMAGENET_STD, Cut, fetching, require_weights
from rayprob.models.vision import torchvision


@cache
def torchvision_names() -> tuple[str, ...]:
    """Return the registered names of torchvision's image classifiers."""
    return tuple(torchvision.models.list_models(module=torchvision.models))


def cut_torchvision(name: str, weights: str | None, image_size_px: int | None, load: bool) -> Cut:
    """Return the network `name` without its head. Raises ModelError for weights that are unknown or cannot be fetched."""
    published = None
    if weights:
        known = torchvision.models.get_model_weights(name).__members__
        require_weights(name, weights, known)
        published = known[weights]
    whole = torchvision.models.get_model(name, weights=None, **_options(name, published, image_size_px))
    if published and load:
        with fetching(name, published.name):
            # Only the library's own builder updates the parameter names of its oldest files.
            loaded = torchvision.models.get_model(name, weights=published).state_dict()
        missing = whole.load_state_dict(loaded, strict=False).missing_keys  # the remaining ones are auxiliary heads
        assert not missing
    heads = tuple(child for child, _ in whole.named_children() if child in HEADS)
    # Their published weights were trained on inputs in -1..1, which torchvision hides behind `transform_input`.
    mean, std = ((0.5,) * 3, (0.5,) * 3) if name in WITH_AUXILIARY else (IMAGENET_MEAN, IMAGENET_STD)
    cut = CUTS.get(type(whole).__name__, _sequential)
    return Cut(cut(whole), _features_before(whole, heads), heads + AUXILIARY, mean, std)


def _options(name: str, published: Any, image_size_px: int | None) -> dict[str, Any]:
    """Return the arguments that the builder of `name` needs beyond its defaults."""
    if name in WITH_AUXILIARY:
        return {"aux_logits": False, "init_weights": published is None}
    if name.startswith("vit_"):
        return {"image_size": published.meta["min_size"][0] if published else image_size_px or 224}
    if name.startswith("maxvit") and image_size_px:
        return {"input_size": (image_size_px, image_size_px)}
    return {}


def _sequential(whole: nn.Module) -> nn.Module:
    """Return the children before the head in order, by name: most families are such a chain."""
    return nn.Sequential(OrderedDict((name, child) for name, child in whole.named_children() if name not in HEADS))


def _densenet(whole: nn.Module) -> nn.Module:
    return nn.Sequential(OrderedDict(features=whole.get_submodule("features"), relu=nn.ReLU(inplace=True)))


def _convnext(whole: nn.Module) -> nn.Module:
    # The last LayerNorm is the head's first layer; without it a few channels dominate all others.
    classifier = cast(nn.Sequential, whole.classifier)
    return nn.Sequential(OrderedDict(features=whole.get_submodule("features"), classifier=classifier[:1]))


def _maxvit(whole: nn.Module) -> nn.Module:
    blocks = nn.Sequential(*cast(nn.ModuleList, whole.blocks))
    return nn.Sequential(OrderedDict(stem=cast(nn.Module, whole.stem), blocks=blocks))


class _PatchTokens(nn.Module):
    """torchvision's vision transformer as maps: its patch tokens in their grid; the class token is used only internally."""

    def __init__(self, whole: Any) -> None:
        super().__init__()
        self.conv_proj, self.class_token, self.encoder = whole.conv_proj, whole.class_token, whole.encoder

    def forward(self, images_BCHW: Tensor) -> Tensor:
        patches_BFhw: Tensor = self.conv_proj(images_BCHW)
        height, width = patches_BFhw.shape[2:]
        tokens_BNF = patches_BFhw.flatten(2).transpose(1, 2)
        class_B1F = self.class_token.expand(len(tokens_BNF), -1, -1)
        tokens_BNF = torch.cat([class_B1F, tokens_BNF], dim=1) + self._positions(height, width)
        tokens_BNF = self.encoder.ln(self.encoder.layers(self.encoder.dropout(tokens_BNF)))
        return cast(Tensor, tokens_BNF[:, 1:].transpose(1, 2).reshape_as(patches_BFhw))

    def _positions(self, height: int, width: int) -> Tensor:
        """Return the position embeddings [1, 1 + h*w, F], resampled if the grid differs from theirs."""
        positions_1NF = cast(Tensor, self.encoder.pos_embedding)
        side = math.isqrt(positions_1NF.shape[1] - 1)
        if (height, width) == (side, side):
            return positions_1NF
        grid_1Fhw = positions_1NF[:, 1:].transpose(1, 2).reshape(1, -1, side, side)
        grid_1Fhw = interpolate(grid_1Fhw, size=(height, width), mode="bicubic", align_corners=True)
        return torch.cat([positions_1NF[:, :1], grid_1Fhw.flatten(2).transpose(1, 2)], dim=1)


def _features_before(whole: nn.Module, heads: tuple[str, ...]) -> int:
    """Return the channels that reach the head: the inputs of its first layer, divided by the positions it flattens."""
    layers = [layer for name in heads for layer in whole.get_submodule(name).modules()]
    first = next(layer for layer in layers if isinstance(layer, nn.Linear | nn.Conv2d))
    if isinstance(first, nn.Conv2d):
        return first.in_channels
    pooled = next((layer.output_size for layer in layers if isinstance(layer, nn.AdaptiveAvgPool2d)), 1)
    sides = pooled if isinstance(pooled, tuple) else (pooled, pooled)
    return first.in_features // math.prod(side or 1 for side in sides)


WITH_AUXILIARY = ("googlenet", "inception_v3")
HEADS = ("avgpool", "flatten", "dropout", "fc", "classifier", "head", "heads")
AUXILIARY = ("aux1", "aux2", "AuxLogits")
CUTS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "DenseNet": _densenet,
    "ConvNeXt": _convnext,
    "MaxVit": _maxvit,
    "VisionTransformer": _PatchTokens,
}
