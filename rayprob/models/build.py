"""`ModelSpec`, and the classifier that it describes."""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar

from numpy.typing import NDArray
from pydantic import AfterValidator, Field, PositiveInt, SerializeAsAny, ValidationInfo, field_validator, model_validator
from torch import nn

from rayprob.config.spec import Spec
from rayprob.errors import ModelError, SpecError
from rayprob.labels import LabelSpace
from rayprob.models.auxiliaries import AuxiliarySpec, build_auxiliary
from rayprob.models.backbones import build_backbone, require_backbone
from rayprob.models.classifier import Classifier, Frozen, Norm
from rayprob.models.heads import HeadSpec, Start, build_head
from rayprob.models.necks import NECKS, JoinedPooling, build_neck
from rayprob.models.pooling import POOLINGS, build_pooling
from rayprob.models.weights import Part, is_file, load_file
from rayprob.probability.families import FAMILIES
from rayprob.registry import choose

Channels = tuple[float, float, float]


def _above_zero(values: Channels) -> Channels:
    if min(values) <= 0:
        raise ValueError("images are divided by it, so each value must be greater than 0")
    return values


class ModelSpec(Spec):
    """A classifier: a torchvision name or timm/<name>, its starting weights, pooling, head, and what is frozen.

    `weights` is null (from scratch), a name of the library (DEFAULT, IMAGENET1K_V2, a timm tag), or the path or URI of a
    file or of a bundle. `weights_part` selects how much of a bundle to load (all, features, backbone), or which weights of
    another program's file that has both: ema (averaged) or model (raw); all takes the averaged ones if there are any.
    `image_size_px` is for families built for one size.
    `maps` are the stages whose features `neck` joins before pooling (multi-scale fusion), counted by resolution: stage n has
    1/2^n of an image's rows and columns, so [3, 4, 5] are a ResNet's last three; null takes the maps of the last one only.
    `pooling: places` keeps the places of an image apart, for a head that needs them.
    `mean` and `std` replace the library's normalisation of images in 0..1 for the backbone, three values each.
    `frozen: backbone` trains pooling and head only. `norm` selects the batch-norm statistics in training: those of each rank
    (train), the stored ones (frozen), or those of all ranks (sync, on GPUs).
    """

    later_keys: ClassVar[frozenset[str]] = frozenset({"maps", "neck"})

    backbone: str = "resnet101"
    """A name of torchvision (resnet101), timm/NAME, or one of a plugin."""
    weights: str | None = None
    """null (from scratch), a name of the library such as DEFAULT, or the path or URI of a file or bundle."""
    weights_part: Part = "all"
    """How much of a bundle to load (all, features, backbone), or which weights of a file that has both: ema or model."""
    image_size_px: int | None = Field(default=None, ge=1)
    """Image size, for backbones built for one size."""
    mean: Channels | None = None
    """Mean of the normalisation, three values; null uses the library's."""
    std: Annotated[Channels, AfterValidator(_above_zero)] | None = None
    """Standard deviation of the normalisation, three values."""
    maps: tuple[PositiveInt, ...] | None = None
    """Stages of the backbone to join, ascending, such as [3, 4, 5] for 1/8, 1/16, 1/32 of the image; null: the last one."""
    neck: str = "concatenation"
    """How `maps` are joined: concatenation, top_down (a feature pyramid), or one of a plugin."""
    pooling: str = "gap"
    """gap, gmp, gem, places, places7, or one of a plugin. places keeps the places of an image apart, places7 a 7 x 7 grid."""
    head: SerializeAsAny[HeadSpec] = HeadSpec()
    """The head."""
    frozen: Frozen = "none"
    """backbone: train pooling and head only."""
    norm: Norm = "train"
    """Batch norm in training: statistics of each rank (train), the stored ones (frozen), or those of all ranks (sync, GPUs)."""

    @field_validator("backbone")
    @classmethod
    def _backbone_exists(cls, name: str) -> str:
        try:
            require_backbone(name)
        except ModelError as error:
            raise ValueError(str(error)) from error
        return name

    @field_validator("maps")
    @classmethod
    def _several_in_order(cls, maps: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if maps is not None and (len(maps) < 2 or list(maps) != sorted(set(maps))):
            raise ValueError(f"must be two or more different stages in ascending order, such as [3, 4, 5]; got {list(maps)}")
        return maps

    @field_validator("neck", "pooling")
    @classmethod
    def _part_exists(cls, name: str, info: ValidationInfo) -> str:
        try:
            choose(NECKS if info.field_name == "neck" else POOLINGS, name, str(info.field_name))
        except SpecError as error:
            raise ValueError(str(error)) from error
        return name

    @field_validator("head")
    @classmethod
    def _family_exists(cls, head: HeadSpec) -> HeadSpec:
        try:
            choose(FAMILIES, head.family, f"family of the head {head.name}:")
        except SpecError as error:
            raise ValueError(f"{error}; a plugin adds its own in its table FAMILIES") from error
        return head

    @model_validator(mode="after")
    def _part_of_something(self) -> "ModelSpec":
        if self.weights_part != "all" and not (self.weights and is_file(self.weights)):
            raise ValueError(
                f"weights_part {self.weights_part} needs the path of a file or bundle as weights; got {self.weights or 'null'}"
            )
        return self

    @model_validator(mode="after")
    def _neck_has_maps(self) -> "ModelSpec":
        if self.maps is None and self.neck != "concatenation":
            raise ValueError(f"neck {self.neck} joins maps of several stages; set maps, such as [3, 4, 5], or leave out neck")
        return self

    @model_validator(mode="after")
    def _head_sees_places(self) -> "ModelSpec":
        if self.head.why_places and not POOLINGS[self.pooling].keeps_places:
            option = self.head.why_places.partition(" ")[0]
            instead = "use another head" if option == "name" else f"{option}: 0"
            raise ValueError(
                f"head.{self.head.why_places}, but pooling {self.pooling} removes places; set pooling: places, or {instead}"
            )
        return self


def build_classifier(
    spec: ModelSpec,
    num_labels: int,
    *,
    prevalence_L: NDArray[Any] | None = None,
    mixture: tuple[NDArray[Any], NDArray[Any]] | None = None,
    label_sets: Callable[[], tuple[NDArray[Any], NDArray[Any]]] | None = None,
    label_space: LabelSpace | None = None,
    auxiliary: AuxiliarySpec | None = None,
    load: bool = True,
) -> Classifier:
    """Return the classifier that `spec` describes, in training mode, with its starting weights unless `load` is false.

    A fresh head starts from `prevalence_L`, from `mixture`, (mixing_weights_K, probabilities_KL), or from `label_sets` (see
    `Start`). Weights of a bundle must have the labels of `label_space`. Raises ModelError, LabelError or
    StorageError for weights that cannot be used.
    """
    weights = spec.weights if spec.weights and not is_file(spec.weights) else None
    backbone = build_backbone(spec.backbone, weights, image_size_px=spec.image_size_px, load=load, maps=spec.maps)
    pooling = build_pooling(spec.pooling)
    if backbone.stages:
        pooling = JoinedPooling(build_neck(spec.neck, [stage.channels for stage in backbone.stages]), pooling)
    backbone.normalise_by(spec.mean, spec.std)
    weights_K, p_KL = mixture or (None, None)
    label_names = label_space.names if label_space and load else None
    start = Start(prevalence_L, weights_K, p_KL, label_sets, label_names)
    num_features = pooling.num_features or backbone.num_features
    head = build_head(spec.head, num_features, num_labels, start)
    classifier = Classifier(backbone, pooling, head, frozen=spec.frozen, norm=spec.norm)
    if auxiliary:  # after all other parameters, so that these start as they do without it
        classifier.auxiliary = build_auxiliary(auxiliary, num_features, num_labels)
    if load and spec.weights and is_file(spec.weights):
        load_file(classifier, spec.weights, spec.weights_part, label_space)
    if spec.norm == "sync":
        classifier = nn.SyncBatchNorm.convert_sync_batchnorm(classifier)  # type: ignore[no-untyped-call]
    return classifier.train()
