"""The head `srn`: spatial regularisation by attention maps per label. B images, F features, P = h*w places, L labels."""

import torch
from pydantic import Field
from torch import Tensor, nn

from rayprob.models.heads.bernoulli import BernoulliHead, BernoulliSpec
from rayprob.models.heads.head import WEIGHT_STD, FeatureDropout, Head, HeadSpec, Start, prior_log_odds, set_values
from rayprob.models.pooling import grid_of

FILTERS = 4  # of the whole map, per channel


class SrnSpec(HeadSpec):
    """Where each label is seen, and what that tells about the others. Needs `pooling: places`."""

    name: str = "srn"
    width: int = Field(default=512, ge=1)
    """Channels of the attention network and of the network over the attention maps."""
    grid: int = Field(default=7, ge=1)
    """Rows and columns of the maps that the last convolution covers; maps of another size are averaged to it. The paper has
    14, which is the size of the last maps of a ResNet for images of 448 px."""

    @property
    def why_places(self) -> str:
        return f"name {self.name} needs the features of every place"


class SrnHead(Head):
    """The mean of two scores per label: that of the head `bernoulli`, and one from maps of where each label is seen.

    This is the spatial regularisation network (Zhu, Li, Ouyang, Yu, Wang, CVPR 2017, sections 3.2 and 3.3). For features f_p

        u_lp = P a_lp sigmoid(v_l f_p + c_l),    a_lp = softmax over p of the attention network (convolutions 1x1, 3x3, 1x1)

    and the second score comes from the maps u: two 1x1 convolutions relate labels, FILTERS filters per channel, which
    cover the whole map, relate places, and a linear layer follows. With W = width and G = grid, the size without biases is
    F*(2*L + W) + W*(9*W + L) for the first score and the maps, and W*(L + W + FILTERS*(G*G + L)) for the second; an image
    costs about P*(F*(L + W) + 10*W*W) multiplications.

    Differences from the paper: both scores use the same features (there, those of stages 5 and 4). There is one loss
    and one stage of training, without a loss that teaches the attention maps alone. Layer norm over channels and places
    replaces batch norm, so that an image's answer depends on no other image. The factor P keeps confidences at their
    size. Maps of any size are averaged to `grid` x `grid` places before the last convolution, so that one head takes images of
    several sizes.
    """

    def __init__(self, num_features: int, num_labels: int, spec: SrnSpec, start: Start) -> None:
        super().__init__()
        width, prior_L = spec.width, prior_log_odds(start, num_labels)
        self.dropout = FeatureDropout(spec.dropout)
        self.first = BernoulliHead(num_features, num_labels, BernoulliSpec(), start)
        self.confidence = nn.Conv2d(num_features, num_labels, 1)
        nn.init.normal_(self.confidence.weight, std=WEIGHT_STD)
        set_values(self.confidence.get_parameter("bias"), prior_L, "prevalence_L")
        self.attention = nn.Sequential(
            *(nn.Conv2d(num_features, width, 1), nn.ReLU()),
            *(nn.Conv2d(width, width, 3, padding=1), nn.ReLU()),
            nn.Conv2d(width, num_labels, 1),
        )
        self.relations = nn.Sequential(
            *_normed(nn.Conv2d(num_labels, width, 1), width),
            *_normed(nn.Conv2d(width, width, 1), width),
            nn.AdaptiveAvgPool2d(spec.grid),
            *_normed(nn.Conv2d(width, FILTERS * width, spec.grid, groups=width), FILTERS * width),
            nn.Flatten(),
        )
        self.second = nn.Linear(FILTERS * width, num_labels)
        # So that a fresh head predicts the prevalences, and a given Bernoulli head keeps its answers.
        nn.init.zeros_(self.second.weight)
        set_values(self.second.bias, prior_L, "prevalence_L")

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Return {"logits": [B, L]} for features [B, F, P]."""
        features = self.dropout(features)
        first_BL = self.first(features)["logits"]
        return {"logits": (first_BL + self.second(self.relations(self._maps(features)))) / 2}

    def start_from_bernoulli(self, weight_LF: Tensor, bias_L: Tensor) -> None:
        """Take over a trained Bernoulli head, also as the confidence of every place; the outputs are its, without attention.

        Raises ModelError if the shapes differ.
        """
        self.first.start_from_bernoulli(2 * weight_LF, 2 * bias_L - self.second.bias.detach())
        set_values(self.confidence.weight, weight_LF[:, :, None, None].numpy(), "the weight of the Bernoulli head")
        set_values(self.confidence.get_parameter("bias"), bias_L.numpy(), "the bias of the Bernoulli head")

    @property
    def explains_by_attention(self) -> bool:
        """No: in the pointing game its attention is no better than the centre of an image (docs/how-to/explain.md)."""
        return False

    def attention_to_places(self, features_BFP: Tensor) -> Tensor:
        """Return the weighted attention maps u [B, L, P]."""
        return self._maps(features_BFP).flatten(2)

    def _maps(self, features: Tensor) -> Tensor:
        """Return the weighted attention maps u [B, L, h, w]."""
        num_places = features.shape[2]
        maps_BFhw = features.reshape(*features.shape[:2], *grid_of(num_places))
        logits_BLhw = self.attention(maps_BFhw)
        attention_BLhw = torch.softmax(logits_BLhw.flatten(2), dim=2).view_as(logits_BLhw)
        return num_places * attention_BLhw * torch.sigmoid(self.confidence(maps_BFhw))


def _normed(convolution: nn.Conv2d, channels: int) -> tuple[nn.Module, ...]:
    return convolution, nn.GroupNorm(1, channels), nn.ReLU()


HEADS = {"srn": SrnHead}
