"""The head `recurrent`: labels one after another, as in CNN-RNN. B images, F features, L labels; E, H sizes of the network."""

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from rayprob.models.heads.bernoulli import BernoulliHead, BernoulliSpec
from rayprob.models.heads.head import Head, HeadSpec, Start, average, by_frequency, constant
from rayprob.models.losses import LossSpec
from rayprob.probability.distributions.sequences import LabelNetwork, logits_of_sets


class RecurrentSpec(HeadSpec):
    """Labels one after another, frequent ones first; each depends on the image and on the labels before it."""

    family: ClassVar[str] = "recurrent"

    name: str = "recurrent"
    embedding: int = Field(default=64, ge=1)
    """Size of the vectors of labels and image that are compared."""
    state: int = Field(default=64, ge=1)
    """Size of the recurrent network's state."""


class RecurrentHead(Head):
    """CNN-RNN (Wang et al., CVPR 2016): a recurrent network reads the labels so far, and is joined with the image.

    A label set is the sequence of its labels, the frequent first (prevalence in training), and END. With r the state after the
    labels so far and f the features, the labels have logits

        u = W f + b + V' tanh(U r + C f + c)

    where V has a vector for each label, which the network also reads, as in the paper. `sequences` makes probabilities of u,
    so that each label set has one sequence, all of them sum to 1, and there are as many steps as labels present, plus 1.

    Differences from the paper: a gated recurrent unit instead of an LSTM, which has fewer weights; W f + b in addition, so that
    the image's part of the scores is not limited to rank E, and a fresh network (U = C = 0) is exactly the Bernoulli head; and
    only labels that come later in the order may follow. Size: F (L + E) + L + E (1 + L) + 3 H (E + H + 1) + H (1 + E).
    """

    order: Tensor

    def __init__(self, num_features: int, num_labels: int, spec: RecurrentSpec, start: Start) -> None:
        super().__init__()
        alone = BernoulliSpec(dropout=spec.dropout)
        self.alone = BernoulliHead(num_features, num_labels, alone, start)
        self.context = nn.Linear(num_features, spec.embedding)
        nn.init.zeros_(self.context.weight)
        nn.init.zeros_(self.context.bias)
        spread = 1 / math.sqrt(spec.state)
        self.embedding = nn.Parameter(torch.randn(spec.embedding, num_labels) / math.sqrt(spec.embedding))
        self.cell_input = nn.Parameter(torch.empty(3, spec.embedding, spec.state).uniform_(-spread, spread))
        self.cell_state = nn.Parameter(torch.empty(3, spec.state, spec.state).uniform_(-spread, spread))
        self.cell_bias = nn.Parameter(torch.zeros(3 * spec.state))  # flat, because weight decay applies to matrices
        self.start = nn.Parameter(torch.zeros(spec.state))
        self.project = nn.Parameter(torch.zeros(spec.state, spec.embedding))
        self.order = constant(by_frequency(start, num_labels))

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Return "logits" [B, L] and "context" [B, E], with the network's weights; features are [B, F] or [B, F, P]."""
        features_BF = average(self.alone.dropout(features))
        return {"logits": self.alone.linear(features_BF), "context": self.context(features_BF), **self.shared()}

    def shared(self) -> dict[str, Tensor]:
        """Return the place of each label in the order, and the weights of the network."""
        named = {name: getattr(self, name) for name in ("order", "embedding", "cell_input", "cell_state", "start", "project")}
        return {**named, "cell_bias": self.cell_bias.view(3, -1)}

    def start_from_bernoulli(self, weight_LF: Tensor, bias_L: Tensor) -> None:
        """Take over a trained Bernoulli head, to which the network is added. Raises ModelError if the shapes differ."""
        self.alone.start_from_bernoulli(weight_LF.detach().cpu(), bias_L.detach().cpu())


class RecurrentLossSpec(LossSpec):
    """The loss `recurrent` has no options; it reads outputs of the family `recurrent`."""

    family: ClassVar[str] = "recurrent"


def recurrent(spec: RecurrentLossSpec, outputs: dict[str, Tensor], targets_BL: Tensor, known_BL: Tensor) -> Tensor:
    """Return the negative log-likelihood [B] of the label sets in nats, with true labels before each label.

    Unknown labels are read as absent and their own terms are left out: what is maximised is the sum over known labels of
    log p(label | known labels before it, none of the unknown ones). With all labels known this is log p(label set); otherwise
    it is not the probability of the known labels, which would take a sum over the unknown ones.
    """
    order_L = torch.argsort(outputs["order"], stable=True)
    network = LabelNetwork.of_outputs({**outputs, "embedding": outputs["embedding"][:, order_L]})
    targets_BL, known_BL = targets_BL[:, order_L], known_BL[:, order_L]
    logits_BL = logits_of_sets(network, outputs["logits"][:, order_L], outputs["context"], targets_BL * known_BL > 0.5)
    return binary_cross_entropy_with_logits(logits_BL, targets_BL, known_BL, reduction="none").sum(dim=1)


HEADS = {"recurrent": RecurrentHead}
LOSSES = {"recurrent": recurrent}
