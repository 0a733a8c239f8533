"""The head `masked`: a small transformer over an image's places and its known labels, after C-Tran. L labels, width D.

Lanchantin, Wang, Ordonez and Qi, "General Multi-label Image Classification with Transformers" (CVPR 2021). A label is present,
absent or unknown; in training the states of random labels are shown, and the others predicted (section 3.2 of the paper, label
mask training); afterwards it predicts the rest from any evidence. Differences from the paper, and why:

- A label asked about reads places and known labels, and these do not read one another (`masked_network.py`): one pass then
  answers each label given another set of labels. So a step trains on L sets per image rather than one, those of the chain rule
  along a random order (Uria, Murray and Larochelle, ICML 2014), and the probability of a label set costs one pass, not L.
- A known label's token is its own vector for each state, where the paper adds a vector of the label and one of the state:
  without layers in which tokens read one another, a sum could not tell what one label's state means from another's.
- The logits of a linear layer are added, so a fresh head predicts the prevalences, and one can start from a trained Bernoulli
  head.
- Width 64 and one block by default, where the paper has 2,048 and three: the weights are outputs of the family.

Parameters: F L + L of the linear layer, F D + D of the projection, 4 L D and 8 D^2 for each block. A step costs the pass of
`masked_network.py` for Q = L, once with evidence and once without.
"""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from rayprob.models.heads.head import (
    WEIGHT_STD,
    FeatureDropout,
    Head,
    HeadSpec,
    Start,
    average,
    by_frequency,
    constant,
    prior_log_odds,
    set_values,
)
from rayprob.models.losses.loss import LossSpec
from rayprob.probability.distributions.masked_network import ATTENTION_HEADS, chain_order, label_logits, tokens_seen


class MaskedSpec(HeadSpec):
    """A transformer over places and known labels. It uses each place with `pooling: places`, and one otherwise."""

    family: ClassVar[str] = "masked"

    name: str = "masked"
    width: int = Field(default=64, ge=ATTENTION_HEADS, multiple_of=ATTENTION_HEADS)
    """Size of the vectors of places and labels; a multiple of 4, the number of attention heads."""
    blocks: int = Field(default=1, ge=1)
    """Number of blocks of attention and MLP."""


class MaskedHead(Head):
    """The outputs of the family `masked`: of each image its places and linear logits, and the weights of the transformer."""

    def __init__(self, num_features: int, num_labels: int, spec: MaskedSpec, start: Start) -> None:
        super().__init__()
        self.dropout = FeatureDropout(spec.dropout)
        self.linear = nn.Linear(num_features, num_labels)
        self.project = nn.Linear(num_features, spec.width)
        self.queries = nn.Parameter(torch.randn(num_labels, spec.width))
        self.readout = nn.Parameter(torch.zeros(num_labels, spec.width))  # so that a fresh head answers as its linear layer
        self.states = nn.Parameter(torch.randn(2, num_labels, spec.width))
        self.blocks = nn.Parameter(torch.randn(spec.blocks, 8, spec.width, spec.width) * spec.width**-0.5)
        nn.init.normal_(self.linear.weight, std=WEIGHT_STD)
        set_values(self.linear.bias, prior_log_odds(start, num_labels), "prevalence_L")
        self.turns = constant(by_frequency(start, num_labels))  # the chain begins with the most frequent labels

    def shared(self) -> dict[str, Tensor]:
        weights = {"queries": self.queries, "readout": self.readout, "states": self.states, "blocks": self.blocks}
        return {**weights, "turns": self.turns}

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Return the outputs of `masked_network.py` for features [B, F] or [B, F, P].

        In training, each call draws another order of the chain from torch's random numbers, for the whole batch.
        """
        features = self.dropout(features)
        places_BPF = features[:, None] if features.ndim == 2 else features.transpose(1, 2)
        drawn = {"turns": torch.rand_like(self.turns)} if self.training else {}
        return {"logits": self.linear(average(features)), "places": self.project(places_BPF), **self.shared(), **drawn}

    def start_from_bernoulli(self, weight_LF: Tensor, bias_L: Tensor) -> None:
        """Take over a trained Bernoulli head as the linear layer. Raises ModelError if the shapes differ."""
        set_values(self.linear.weight, weight_LF.detach().cpu().numpy(), "the weight of the Bernoulli head")
        set_values(self.linear.bias, bias_L.detach().cpu().numpy(), "the bias of the Bernoulli head")


class MaskedLossSpec(LossSpec):
    """Options of the loss `masked`."""

    family: ClassVar[str] = "masked"

    name: str = "masked"
    evidence: float = Field(default=0.5, ge=0, le=1)
    """Weight of the labels predicted from others known; the rest is the weight of labels predicted from the image alone."""


def masked(spec: MaskedLossSpec, outputs: dict[str, Tensor], targets_BL: Tensor, known_BL: Tensor) -> Tensor:
    """Return the weighted mean of two negative log-likelihoods of the known labels [B], in nats.

    One is of each label given the image alone, which trains the marginals. The other is of the label set by the chain rule in
    the order of `turns`: each label given the known ones before it. Over random orders, its mean is that over the number of
    labels shown, from none to all but one, and over which are shown (Uria et al. 2014, equation 7); the paper shows up to 75 %.
    """
    seen_BQL = chain_order(outputs["turns"]) & (known_BL > 0)[:, None]
    alone_B, chain_B = (
        binary_cross_entropy_with_logits(label_logits(outputs, tokens), targets_BL, known_BL, reduction="none").sum(dim=1)
        for tokens in (None, tokens_seen((targets_BL > 0)[:, None], seen_BQL))
    )
    return torch.lerp(alone_B, chain_B, spec.evidence)


HEADS = {"masked": MaskedHead}
LOSSES = {"masked": masked}
