"""The classifier: images_BCHW -> outputs. Backbone, pooling and head, and which of them are trained."""

from collections.abc import Iterator
from typing import Literal, Self, cast

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rayprob.errors import ModelError
from rayprob.models.auxiliaries import EMBEDDING, Auxiliary
from rayprob.models.backbones import Backbone
from rayprob.models.heads import Head
from rayprob.models.pooling import Pooling
from rayprob.models.precision import full_precision
from rayprob.probability.families import family_of

Frozen = Literal["none", "backbone"]
Norm = Literal["train", "frozen", "sync"]


class Classifier(nn.Module):
    """Backbone, pooling and head; `family` names the label distribution that its outputs describe.

    With an `auxiliary`, outputs in training mode have one more, EMBEDDING, for its term next to the loss.
    """

    def __init__(
        self,
        backbone: Backbone,
        pooling: Pooling,
        head: Head,
        *,
        frozen: Frozen,
        norm: Norm,
        auxiliary: Auxiliary | None = None,
    ) -> None:
        """`frozen` and `norm` are those of `ModelSpec`."""
        super().__init__()
        self.backbone, self.pooling = backbone, pooling
        self.num_features = pooling.num_features or backbone.num_features
        self.head: Head = head
        self.auxiliary = auxiliary
        self.family = head.family
        self.is_frozen = frozen == "backbone"
        self.norm = norm
        if self.is_frozen:
            self.backbone.requires_grad_(False)

    def forward(self, images_BCHW: Tensor) -> dict[str, Tensor]:
        """Return the head's outputs, in float32, for images that are uint8 in 0..255 or floating in 0..1."""
        features = self.features(images_BCHW)
        with full_precision(features):
            return self.outputs(features)

    def outputs(self, features: Tensor) -> dict[str, Tensor]:
        """Return the head's outputs for features [B, F] or [B, F, P]; with an auxiliary, EMBEDDING too in training mode."""
        outputs = cast(dict[str, Tensor], self.head(features))
        if self.auxiliary is None or not self.training:
            return outputs
        return {**outputs, EMBEDDING: self.auxiliary(features, family_of(self.family).of_images(outputs))}

    def features(self, images_BCHW: Tensor) -> Tensor:
        """Return features [B, F], or [B, F, P] of P places, in float32.

        Raises ModelError if synchronised batch norm trains on a CPU.
        """
        if self.norm == "sync" and self.training and images_BCHW.device.type == "cpu":
            raise ModelError(
                "norm: sync needs GPUs, because PyTorch does not support it on CPUs; set model.norm to train or frozen"
            )
        return cast(Tensor, self.pooling(self.backbone(images_BCHW)))

    def maps(self, images_BCHW: Tensor) -> Tensor:
        """Return the maps [B, F, h, w] that `pooling.plain` pools, of which a neck may have joined those of several stages."""
        return self.pooling.joined(self.backbone(images_BCHW))

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
        """Yield the names and parameters of the backbone, as in `named_parameters`."""
        return (pair for pair in self.named_parameters() if pair[0].startswith("backbone."))

    def head_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the names and parameters of pooling, head and auxiliary."""
        return (pair for pair in self.named_parameters() if not pair[0].startswith("backbone."))
