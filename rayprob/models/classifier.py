"""The classifier: images_BCHW -> outputs. Backbone, pooling and head, and which of them learn."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self, cast

from numpy.typing import NDArray
from pydantic import AfterValidator, Field, field_validator, model_validator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rayprob.errors import ModelError
from rayprob.labels import LabelSpace
from rayprob.models.backbones import Backbone, build_backbone, require_backbone
from rayprob.models.heads import HeadSpec, Start, build_head
from rayprob.models.pooling import build_pooling
from rayprob.models.precision import full_precision
from rayprob.models.weights import Part, is_file, load_file
from rayprob.spec import Spec

Channels = tuple[float, float, float]


def _above_zero(values: Channels) -> Channels:
    if min(values) <= 0:
        raise ValueError("images are divided by it, so each value must be greater than 0")
    return values


class ModelSpec(Spec):
    """A classifier: a torchvision name or timm/<name>, its starting weights, pooling, head, and what stays as it is.

    `weights` is null (from scratch), a name of the library (DEFAULT, IMAGENET1K_V2, a timm tag), or the path or URI of a
    file or of a bundle. `weights_part` says how much of a bundle is taken (all, features, backbone), or which weights of
    another program's file that holds both: ema (averaged) or model (raw); all takes the averaged ones where there are some.
    `image_size_px` is for families built for one size.
    `pooling: places` keeps the places of an image apart, for a head with attention.
    `mean` and `std` replace the normalisation of images in 0..1 that the library states for the backbone, three values each.
    `frozen: backbone` trains pooling and head only. `norm` is what batch norm does in training: own statistics of each rank
    (train), the stored ones (frozen), or those of all ranks (sync, on GPUs).
    """

    backbone: str = "resnet101"
    weights: str | None = None
    weights_part: Part = "all"
    image_size_px: int | None = Field(default=None, ge=1)
    mean: Channels | None = None
    std: Annotated[Channels, AfterValidator(_above_zero)] | None = None
    pooling: Literal["gap", "gmp", "gem", "places"] = "gap"
    head: HeadSpec = HeadSpec()
    frozen: Literal["none", "backbone"] = "none"
    norm: Literal["train", "frozen", "sync"] = "train"

    @field_validator("backbone")
    @classmethod
    def _backbone_exists(cls, name: str) -> str:
        try:
            require_backbone(name)
        except ModelError as error:
            raise ValueError(str(error)) from error
        return name

    @model_validator(mode="after")
    def _part_of_something(self) -> "ModelSpec":
        if self.weights_part != "all" and not (self.weights and is_file(self.weights)):
            raise ValueError(
                f"weights_part {self.weights_part} is for the path of a file or bundle; weights is {self.weights or 'null'}"
            )
        return self

    @model_validator(mode="after")
    def _attention_sees_places(self) -> "ModelSpec":
        if self.head.attention and self.pooling != "places":
            raise ValueError(
                f"head.attention {self.head.attention} looks at every place, but pooling {self.pooling} leaves none; "
                "set pooling: places, or attention: 0"
            )
        return self


class Classifier(nn.Module):
    """Backbone, pooling and head; `family` names the label distribution that its outputs describe."""

    def __init__(self, backbone: Backbone, pooling: nn.Module, head: nn.Module, spec: ModelSpec) -> None:
        super().__init__()
        self.backbone, self.pooling, self.head = backbone, pooling, head
        self.family: str = cast(str, head.family)
        self.is_frozen = spec.frozen == "backbone"
        self.norm = spec.norm
        if self.is_frozen:
            self.backbone.requires_grad_(False)

    def forward(self, images_BCHW: Tensor) -> dict[str, Tensor]:
        """Return the head's outputs, in float32, for images that are uint8 in 0..255 or floating in 0..1."""
        features = self.features(images_BCHW)
        with full_precision(features):
            return cast(dict[str, Tensor], self.head(features))

    def features(self, images_BCHW: Tensor) -> Tensor:
        """Return features [B, F], or [B, F, P] of P places, in float32.

        Raises ModelError where synchronised batch norm trains on a CPU.
        """
        if self.norm == "sync" and self.training and images_BCHW.device.type == "cpu":
            raise ModelError("norm: sync needs GPUs, because PyTorch has none for CPUs; set model.norm to train or frozen")
        return cast(Tensor, self.pooling(self.backbone(images_BCHW)))

    def train(self, mode: bool = True) -> Self:
        """Set training mode; a frozen backbone, and batch norm with `norm: frozen`, stay in evaluation mode."""
        super().train(mode)
        if self.is_frozen:
            self.backbone.eval()
        if self.norm == "frozen":
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def backbone_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the names and parameters that may come from elsewhere, as `named_parameters` names them."""
        return (pair for pair in self.named_parameters() if pair[0].startswith("backbone."))

    def head_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the names and parameters of pooling and head."""
        return (pair for pair in self.named_parameters() if not pair[0].startswith("backbone."))


def build_classifier(
    spec: ModelSpec,
    num_labels: int,
    *,
    prevalence_L: NDArray[Any] | None = None,
    mixture: tuple[NDArray[Any], NDArray[Any]] | None = None,
    label_space: LabelSpace | None = None,
    load: bool = True,
) -> Classifier:
    """Return the classifier that `spec` describes, in training mode, with its starting weights unless `load` is false.

    A fresh head starts from `prevalence_L`, or from `mixture`: (mixing_weights_K, probabilities_KL). Weights of a bundle
    must have the labels of `label_space`. Raises ModelError, LabelError or StorageError for weights that cannot be used.
    """
    weights = spec.weights if spec.weights and not is_file(spec.weights) else None
    backbone = build_backbone(spec.backbone, weights, image_size_px=spec.image_size_px, load=load)
    backbone.normalise_by(spec.mean, spec.std)
    start = Start(prevalence_L, *(mixture or ()))
    head = build_head(spec.head, backbone.num_features, num_labels, start)
    classifier = Classifier(backbone, build_pooling(spec.pooling), head, spec)
    if load and spec.weights and is_file(spec.weights):
        load_file(classifier, spec.weights, spec.weights_part, label_space)
    if spec.norm == "sync":
        classifier = nn.SyncBatchNorm.convert_sync_batchnorm(classifier)  # type: ignore[no-untyped-call]
    return classifier.train()
