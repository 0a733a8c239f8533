"""A plugin: a head, one with its own family, a loss, a pooling, a backbone and a map, in one module outside the package.

B images, F features, L labels. Run files use these parts by the names in the tables at the end; docs/extend.md explains them.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import interpolate

from rayprob.errors import ModelError
from rayprob.explain.explainer import Explainer, LabelMaps, in_grid, log_odds, why_no_log_odds
from rayprob.models.backbones import Cut
from rayprob.models.classifier import Classifier
from rayprob.models.heads import FeatureDropout, Head, HeadSpec, Start, average
from rayprob.models.losses import LossSpec
from rayprob.models.pooling import Pooling
from rayprob.probability.calibration.candidates import Outputs, OutputsCalibrator
from rayprob.probability.distributions.distribution import MixtureDistribution, outputs_named
from rayprob.probability.families import Family
from rayprob.probability.graphs.probabilities import Probabilities


# [head]
class HiddenSpec(HeadSpec):
    """Options of the head `hidden`, besides those of every head."""

    width: int = Field(default=16, ge=1)


class HiddenHead(Head):
    """Independent labels after one hidden layer, one logit each."""

    def __init__(self, num_features: int, num_labels: int, spec: HiddenSpec, start: Start) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            FeatureDropout(spec.dropout), nn.Linear(num_features, spec.width), nn.ReLU(), nn.Linear(spec.width, num_labels)
        )

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        return {"logits": self.layers(average(features))}


# [/head]


# [family]
class HurdleSpec(HeadSpec):
    """Options of the head `hurdle`: only those of every head."""

    family: ClassVar[str] = "hurdle"


class HurdleHead(Head):
    """An image is empty with some probability, and has independent labels otherwise."""

    def __init__(self, num_features: int, num_labels: int, spec: HurdleSpec, start: Start) -> None:
        super().__init__()
        self.dropout = FeatureDropout(spec.dropout)
        self.linear = nn.Linear(num_features, 1 + num_labels)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        scores = self.linear(self.dropout(average(features)))
        return {"empty_logit": scores[:, :1], "logits": scores[:, 1:]}


def hurdle_distribution(outputs: Outputs) -> MixtureDistribution:
    """Two components per image: one that never has a label, and one of independent labels."""
    empty_B1, logits_BL = outputs_named(("empty_logit", "logits"), outputs, "hurdle")
    never_BL = np.full_like(logits_BL, -np.inf)
    mixing_B2 = np.concatenate([empty_B1, np.zeros_like(empty_B1)], axis=1)
    return MixtureDistribution(mixing_B2, np.stack([never_BL, logits_BL], axis=1))


def hurdle_nll(spec: "HurdleLossSpec", outputs: dict[str, Tensor], targets_BL: Tensor, known_BL: Tensor) -> Tensor:
    """Return the negative log-likelihood [B] of the known labels in nats."""
    bce_BL = nn.functional.binary_cross_entropy_with_logits(outputs["logits"], targets_BL, known_BL, reduction="none")
    empty_B = nn.functional.logsigmoid(outputs["empty_logit"][:, 0])
    busy_B = nn.functional.logsigmoid(-outputs["empty_logit"][:, 0]) - bce_BL.sum(1)
    can_be_empty_B = (targets_BL * known_BL).sum(1) == 0
    return -torch.where(can_be_empty_B, torch.logaddexp(empty_B, busy_B), busy_B)


class HurdleLossSpec(LossSpec):
    """The loss `hurdle_nll` has no options; it reads outputs of the family `hurdle`."""

    family: ClassVar[str] = "hurdle"


class HurdleMarginals(Probabilities):
    """Outputs -> marginals, for ONNX."""

    def forward(self, outputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        return (torch.sigmoid(-outputs["empty_logit"]) * torch.sigmoid(outputs["logits"]),)


def hurdle_graph(calibrator: OutputsCalibrator | None) -> Probabilities:
    return HurdleMarginals()


def hurdle_numbers(outputs: Outputs) -> dict[str, float]:
    """Return what an evaluation records for this family: the mean probability of an empty image."""
    return {"empty_share": float((1 / (1 + np.exp(-outputs["empty_logit"]))).mean())}


def hurdle_words(options: Mapping[str, Any]) -> str:
    return "a joint distribution over label sets: an image is empty, or has independent labels"


HURDLE = Family(
    name="hurdle",
    outputs={"empty_logit": "N1", "logits": "NL"},
    distribution=hurdle_distribution,
    loss="hurdle_nll",
    describe=hurdle_words,
    graph=hurdle_graph,
    numbers=hurdle_numbers,
)
# [/family]


# [loss]
class HingeSpec(LossSpec):
    """Options of the loss `hinge`."""

    margin: float = Field(default=1.0, gt=0)


def hinge(spec: HingeSpec, outputs: dict[str, Tensor], targets_BL: Tensor, known_BL: Tensor) -> Tensor:
    """Return, for each image [B], by how much its known labels miss the margin, in logits."""
    signed_BL = outputs["logits"] * (2 * targets_BL - 1)
    return (torch.relu(spec.margin - signed_BL) * known_BL).sum(1)


# [/loss]


# [pooling]
class LogSumExp(Pooling):
    """Between the mean and the maximum over all places (Pinheiro and Collobert, CVPR 2015)."""

    def forward(self, maps_BFhw: Tensor) -> Tensor:
        places_BFP = maps_BFhw.float().flatten(2)
        return torch.logsumexp(places_BFP, dim=2) - float(np.log(places_BFP.shape[2]))


# [/pooling]


# [backbone]
def small_net(weights: str | None, image_size_px: int | None, load: bool) -> Cut:
    """Return three strided convolutions, which learn from scratch."""
    if weights:
        raise ModelError(f"small_net has no published weights, but model.weights is {weights}; set model.weights: null")
    widths = (3, 16, 32, 64)
    layers: list[nn.Module] = []
    for narrow, wide in pairwise(widths):
        layers += [nn.Conv2d(narrow, wide, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(wide), nn.ReLU()]
    return Cut(nn.Sequential(*layers), num_features=widths[-1], head_names=())


# [/backbone]


# [explainer]
class Occlusion(Explainer):
    """How much a label's log-odds fall when a part of the image is covered (Zeiler and Fergus, ECCV 2014)."""

    CELLS = 4

    def why_not(self, classifier: Classifier) -> str:
        return why_no_log_odds(classifier)

    @torch.no_grad()
    def maps(self, classifier: Classifier, image_1CHW: Tensor, columns_C: Tensor) -> LabelMaps:
        is_cell_NHW = torch.eye(self.CELLS**2, device=image_1CHW.device).view(-1, 1, self.CELLS, self.CELLS)
        covered_NCHW = torch.lerp(image_1CHW, classifier.backbone.mean, interpolate(is_cell_NHW, image_1CHW.shape[2:]))
        whole_C, covered_NC = (
            log_odds(classifier, classifier.features(images))[:, columns_C] for images in (image_1CHW, covered_NCHW)
        )
        return LabelMaps(in_grid((whole_C - covered_NC).T), whole_C[0])


# [/explainer]

# [tables]
BACKBONES = {"small_net": small_net}
POOLINGS = {"log_sum_exp": LogSumExp}
HEADS = {"hidden": HiddenHead, "hurdle": HurdleHead}
LOSSES = {"hinge": hinge, "hurdle_nll": hurdle_nll}
FAMILIES = {"hurdle": HURDLE}
EXPLAINERS = {"occlusion": Occlusion}
# [/tables]
