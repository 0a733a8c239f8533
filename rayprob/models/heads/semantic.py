"""The head `semantic`: a small network over the label logits, added to them. F features, L labels, W units."""

from itertools import pairwise

from pydantic import Field
from torch import Tensor, nn

from rayprob.models.heads.bernoulli import BernoulliHead, BernoulliSpec
from rayprob.models.heads.head import Head, HeadSpec, Start


class SemanticSpec(HeadSpec):
    """A correction of each label's logit by those of all labels, from a network of `depth` hidden layers of `width` units."""

    name: str = "semantic"
    width: int = Field(default=512, ge=1)
    """Units of each hidden layer."""
    depth: int = Field(default=2, ge=1)
    """Number of hidden layers."""


class SemanticHead(Head):
    """Independent labels given the image, with the logits z + g(z), where z = W f + b are those of the head `bernoulli`.

    g stands for what a spatial regularisation network learns without places (Zhu, Li, Ouyang, Yu, Wang, CVPR 2017, there the
    baseline "ResNet-101 Semantic"): by default two hidden layers of 512 rectified units, as in that network. It averages two
    scores; here g is added, and its last layer starts at zero, so that a fresh head is the Bernoulli head.
    The size is F*L + L for z, and 2*L*W + (depth - 1)*W*W + depth*W + L for g; an image costs as many multiplications.
    """

    def __init__(self, num_features: int, num_labels: int, spec: SemanticSpec, start: Start) -> None:
        super().__init__()
        self.independent = BernoulliHead(num_features, num_labels, BernoulliSpec(dropout=spec.dropout), start)
        widths = (num_labels, *[spec.width] * spec.depth)
        hidden = [layer for sizes in pairwise(widths) for layer in (nn.Linear(*sizes), nn.ReLU())]
        last = nn.Linear(spec.width, num_labels)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.correction = nn.Sequential(*hidden, last)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Return {"logits": [B, L]} for features [B, F] or [B, F, P]."""
        logits_BL = self.independent(features)["logits"]
        return {"logits": logits_BL + self.correction(logits_BL)}

    def start_from_bernoulli(self, weight_LF: Tensor, bias_L: Tensor) -> None:
        """Take over the weights of a trained Bernoulli head. Raises ModelError if the shapes differ."""
        self.independent.start_from_bernoulli(weight_LF, bias_L)


HEADS = {"semantic": SemanticHead}
