"""The head `graph`: graph convolution over the labels makes their classifiers. B images, F features, L labels, D, H widths."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, linear, normalize

from rayprob.arrays import Bools, Floats
from rayprob.models.heads.head import (
    WEIGHT_STD,
    ByPlace,
    FeatureDropout,
    Head,
    HeadSpec,
    Start,
    average,
    constant,
    prior_log_odds,
    set_values,
)
from rayprob.models.label_vectors import read_label_vectors

NEGATIVE_SLOPE = 0.2
ROWS_AT_ONCE = 65_536


class GraphSpec(HeadSpec):
    """Two layers of graph convolution over the labels of the training split."""

    name: str = "graph"
    vectors: str | None = None
    """File of label vectors, such as word vectors, which are not trained; null learns the vectors."""
    width: int = Field(default=300, ge=1)
    """Width D of the label vectors."""
    hidden: int = Field(default=1024, ge=1)
    """Width H between the two layers."""
    threshold: float = Field(default=0.4, ge=0, le=1)
    """A label has as neighbours those that are present in at least this share of the images that have it: tau."""
    neighbours: float = Field(default=0.2, ge=0, le=1)
    """Weight of all neighbours of a label together; its own vector has the rest: p."""

    @property
    def files(self) -> Mapping[str, str]:
        return {} if self.vectors is None else {"vectors": self.vectors}


class GraphHead(Head):
    """ML-GCN (Chen, Wei, Wang, Guo, CVPR 2019): independent labels whose classifiers a graph network makes.

    From label vectors X [L, D] and the neighbours' weights A [L, L] (equations 6 to 8, `neighbour_weights`) follow the states
    of the labels Z [L, H] and their classifiers, the rows of Z W2:

        Z = states(A LeakyReLU(A X W1))          logit_l = Z_l W2 f + b_l

    The paper has no `states`. Unless gradients are clipped, it diverges or stays near the prior at learning rates with which a
    linear head learns: W2 adds up the gradients of all labels, whose states are long and point to nearly one direction, so a
    step moves logits thousands of times as far as a linear head's (`benchmarks/graph_stability.py`). Here each state is
    relative to the mean over labels and has length 1, and the mean is added with length 1 / sqrt(L). Then W2 learns as a linear
    head does, labels that are alike share what they learn, and what is common to all is learned no faster than the rest.
    Learned vectors start orthogonal; given ones are centred.

    A fresh head answers with the prevalences: W2 is small, and b, which the paper lacks, has their log-odds. The rows of A sum
    to 1, so A is not normalised again, as it is in the authors' program. For the paper's maximum over places, set pooling: gmp.

    It trains D H + H F + L numbers, and L D for learned vectors; it keeps L^2 constants. A batch of B images costs about
    L (D H + H F + L (D + H) + B F) multiplications, where the Bernoulli head takes B L F.
    """

    def __init__(self, num_features: int, num_labels: int, spec: GraphSpec, start: Start) -> None:
        super().__init__()
        self.dropout = FeatureDropout(spec.dropout)
        self.vectors = nn.Parameter(torch.empty(num_labels, spec.width))
        nn.init.orthogonal_(self.vectors, gain=math.sqrt(spec.width))
        self.neighbours = constant(torch.empty(num_labels, num_labels))
        self.first = nn.Linear(spec.width, spec.hidden, bias=False)
        # States do not depend on the size of these weights, but the larger they are, the less a step turns the states.
        nn.init.normal_(self.first.weight)
        self.second = nn.Linear(spec.hidden, num_features, bias=False)
        nn.init.normal_(self.second.weight, std=WEIGHT_STD)
        self.bias = nn.Parameter(torch.empty(num_labels))
        set_values(self.bias, prior_log_odds(start, num_labels), "prevalence_L")
        neighbours_LL = np.eye(num_labels) if start.label_sets is None else neighbour_weights(*start.label_sets(), spec)
        set_values(self.neighbours, neighbours_LL, "the co-occurrence of label_sets")
        if spec.vectors is not None:
            self.vectors = constant(self.vectors)
        if spec.vectors is not None and start.label_names is not None:
            vectors_LD = read_label_vectors(spec.vectors, start.label_names, spec.width)
            set_values(self.vectors, _centred(vectors_LD).numpy(), "vectors")

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Return {"logits": [B, L]} for features [B, F] or [B, F, P]."""
        classifiers_LF = self.second(self.states())
        return {"logits": linear(average(self.dropout(features)), classifiers_LF, self.bias)}

    def by_place(self, features_BFP: Tensor) -> ByPlace:
        """Return the scores of each place by the labels' classifiers."""
        return ByPlace.of_average(features_BFP, self.second(self.states()), self.bias)

    def states(self) -> Tensor:
        """Return the labels' states [L, H]: of length 1 relative to their mean, plus the mean with length 1 / sqrt(L)."""
        hidden_LH = self.neighbours @ leaky_relu(self.first(self.neighbours @ self.vectors), NEGATIVE_SLOPE)
        mean_1H = hidden_LH.mean(dim=0, keepdim=True)
        own_LH: Tensor = normalize(hidden_LH - mean_1H, dim=1)
        return own_LH + normalize(mean_1H, dim=1) / math.sqrt(len(hidden_LH))


def neighbour_weights(targets_NL: Bools, known_NL: Bools, spec: GraphSpec) -> Floats:
    """Return A [L, L]: each label's own weight on the diagonal, and those of its neighbours, by equations 6 to 8.

    P(j present | i present) is over the images in which i is present and j is known. Labels j for which it is at least
    `threshold` are the neighbours of i, and share the weight `neighbours`; a label without any keeps the weight 1.
    """
    together_LL, known_LL = np.zeros((2, targets_NL.shape[1], targets_NL.shape[1]))
    for start in range(0, len(targets_NL), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        known_RL = known_NL[rows].astype(np.float32)
        present_RL = targets_NL[rows] * known_RL
        together_LL += present_RL.T @ present_RL
        known_LL += present_RL.T @ known_RL
    share_LL = together_LL / np.maximum(known_LL, 1)
    is_neighbour_LL = (share_LL >= spec.threshold) & (together_LL > 0)
    np.fill_diagonal(is_neighbour_LL, False)
    count_L1 = is_neighbour_LL.sum(axis=1, keepdims=True)
    weights_LL: Floats = spec.neighbours * is_neighbour_LL / np.maximum(count_L1, 1)
    np.fill_diagonal(weights_LL, np.where(count_L1[:, 0] > 0, 1 - spec.neighbours, 1))
    return weights_LL


def _centred(vectors_LD: Tensor) -> Tensor:
    """Return the vectors relative to their mean, which word vectors share; one label has no other to differ from."""
    return vectors_LD - vectors_LD.mean(dim=0) if len(vectors_LD) > 1 else vectors_LD


HEADS = {"graph": GraphHead}
