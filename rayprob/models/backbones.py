"""Backbones by name: images_BCHW -> maps_BFhw. torchvision's classifiers without heads, timm's as `timm/<name>`, and others."""

import math
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from rayprob.errors import ModelError
from rayprob.models.stages import Stage, Staged, choose_stages, read_stages
from rayprob.models.vision import torchvision
from rayprob.registry import PartTable, unknown

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TIMM = "timm/"


class Backbone(nn.Module):
    """Normalises images and turns them into maps [B, F, h, w]; `body` comes from the source library.

    With `stages`, it returns the maps of each of them, the finest first.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, cut: "Cut", stages: tuple[Stage, ...] = ()) -> None:
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


@dataclass(frozen=True)
class Cut:
    """A network without its head: `head_names` are the prefixes of the removed parameters, which a file may contain."""

    body: nn.Module
    num_features: int
    head_names: tuple[str, ...]
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD


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
        return _cut_timm(name.removeprefix(TIMM), weights, image_size_px, load)
    return _cut_torchvision(name, weights, image_size_px, load)


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


@cache
def torchvision_names() -> tuple[str, ...]:
    """Return the registered names of torchvision's image classifiers."""
    return tuple(torchvision.models.list_models(module=torchvision.models))


def import_timm() -> Any:
    """Return the module timm. Raises ModelError with how to install it."""
    try:
        import timm
    except ImportError as error:
        raise ModelError("timm/<name> needs the package timm, which is missing; run pip install 'rayprob[timm]'") from error
    return timm


def _cut_torchvision(name: str, weights: str | None, image_size_px: int | None, load: bool) -> Cut:
    published = None
    if weights:
        known = torchvision.models.get_model_weights(name).__members__
        _require_weights(name, weights, known)
        published = known[weights]
    whole = torchvision.models.get_model(name, weights=None, **_options(name, published, image_size_px))
    if published and load:
        with _fetching(name, published.name):
            # Only the library's own builder updates the parameter names of its oldest files.
            loaded = torchvision.models.get_model(name, weights=published).state_dict()
        missing = whole.load_state_dict(loaded, strict=False).missing_keys  # the remaining ones are auxiliary heads
        assert not missing
    heads = tuple(child for child, _ in whole.named_children() if child in HEADS)
    # Their published weights were trained on inputs in -1..1, which torchvision hides behind `transform_input`.
    mean, std = ((0.5,) * 3, (0.5,) * 3) if name in WITH_AUXILIARY else (IMAGENET_MEAN, IMAGENET_STD)
    cut = CUTS.get(type(whole).__name__, _sequential)
    return Cut(cut(whole), _features_before(whole, heads), heads + AUXILIARY, mean, std)


def _require_weights(name: str, weights: str, published: Iterable[str]) -> None:
    if weights not in published:
        raise ModelError(unknown(weights, published, f"weights of {name}:") + "; or give a path such as ./weights.safetensors")


def _options(name: str, published: Any, image_size_px: int | None) -> dict[str, Any]:
    """Return the arguments that the builder of `name` needs beyond its defaults."""
    if name in WITH_AUXILIARY:
        return {"aux_logits": False, "init_weights": published is None}
    if name.startswith("vit_"):
        return {"image_size": published.meta["min_size"][0] if published else image_size_px or 224}
    if name.startswith("maxvit") and image_size_px:
        return {"input_size": (image_size_px, image_size_px)}
    return {}


@contextmanager
def _fetching(name: str, weights: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # urllib, huggingface_hub, httpx and requests have no common error
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ModelError(
            f"cannot fetch the weights {weights!r} of {name} ({reason}); without internet access, copy the file to this "
            "machine and set weights to its path, or train from scratch with weights: null"
        ) from error


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


def _cut_timm(name: str, weights: str | None, image_size_px: int | None, load: bool) -> Cut:
    if weights and weights != "DEFAULT":
        plain = name.split(".")[0]
        models = import_timm().list_models(f"{plain}.*", pretrained=True)
        _require_weights(f"timm/{name}", weights, [model.split(".", 1)[1] for model in models])
        name = f"{plain}.{weights}"
    headless = {"num_classes": 0, "global_pool": ""} | ({"img_size": image_size_px} if image_size_px else {})
    try:
        whole = import_timm().create_model(name, pretrained=False, **headless)
    except (TypeError, AssertionError, RuntimeError) as error:
        at = f" at image_size_px {image_size_px}" if image_size_px else ""
        raise ModelError(
            f"timm/{name} cannot be built without its head{at}: {error}; leave out what it names, or choose another"
        ) from error
    if weights and load:
        with _fetching(f"timm/{name}", weights):
            whole = import_timm().create_model(name, pretrained=True, **headless)
    described = whole.pretrained_cfg
    heads = described.get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    return Cut(_TimmMaps(whole), whole.head_hidden_size, heads, tuple(described["mean"]), tuple(described["std"]))


class _TimmMaps(Staged):
    """A headless timm model as maps: NHWC is transposed, and N patch tokens become an N x 1 grid (poolings ignore places)."""

    def __init__(self, whole: Any) -> None:
        super().__init__()
        self.whole = whole
        self.num_prefix_tokens = int(getattr(whole, "num_prefix_tokens", 0))
        self.is_nhwc = str(getattr(whole, "output_fmt", "NCHW")).endswith("NHWC")

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return self._as_maps(self.whole(images_BCHW))

    def stages(self) -> dict[int, Stage]:
        if not hasattr(self.whole, "forward_intermediates"):
            return {}
        described = list(self.whole.feature_info)
        numbers = [round(math.log2(one["reduction"])) for one in described]
        found = {number: Stage(place, described[place]["num_chs"]) for place, number in enumerate(numbers)}
        return found | {numbers[-1]: Stage(len(described) - 1, self.whole.head_hidden_size)}

    def read(self, images_BCHW: Tensor, stages: Sequence[Stage]) -> tuple[Tensor, ...]:
        *places, _ = (stage.position for stage in stages)
        last, maps = self.whole.forward_intermediates(images_BCHW, indices=places, output_fmt="NCHW")
        return (*maps, self._as_maps(self.whole.forward_head(last)))

    def _as_maps(self, maps: Tensor) -> Tensor:
        if maps.ndim == 3:
            return maps[:, self.num_prefix_tokens :].transpose(1, 2).unsqueeze(3)
        return maps.permute(0, 3, 1, 2) if self.is_nhwc else maps


WITH_AUXILIARY = ("googlenet", "inception_v3")
HEADS = ("avgpool", "flatten", "dropout", "fc", "classifier", "head", "heads")
AUXILIARY = ("aux1", "aux2", "AuxLogits")
CUTS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "DenseNet": _densenet,
    "ConvNeXt": _convnext,
    "MaxVit": _maxvit,
    "VisionTransformer": _PatchTokens,
}
# Other backbones by name: (weights, image_size_px, load) -> Cut. torchvision and timm have their own tables.
BACKBONES: PartTable[Callable[[str | None, int | None, bool], Cut]] = PartTable("BACKBONES", {})
