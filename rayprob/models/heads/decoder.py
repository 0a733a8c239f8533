"""The head `decoder`: label queries attend to places. B images, F features, P places, Q queries, D width, L labels.

Query2Label (Liu et al., 2021) asks with one query per label; ML-Decoder (Ridnik et al., 2021) with one per group of labels, so
that 10,000 labels need no more than 100 queries.
"""

from collections.abc import Mapping
from typing import Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from rayprob.models.heads.head import WEIGHT_STD, FeatureDropout, Head, HeadSpec, Start, constant, prior_log_odds, set_values
from rayprob.models.label_vectors import read_label_vectors


class DecoderSpec(HeadSpec):
    """A transformer decoder over the places of an image; needs pooling: places."""

    name: str = "decoder"
    queries: int = Field(default=100, ge=1)
    """Largest number of queries; with more labels, each query answers for a group of neighbouring labels."""
    width: int = Field(default=256, ge=1)
    """Width D of queries and places."""
    layers: int = Field(default=1, ge=1)
    """Number of decoder layers."""
    attention_heads: int = Field(default=8, ge=1)
    """Number of attention heads, which divides width."""
    feedforward: int = Field(default=1024, ge=1)
    """Hidden width of a layer's feed-forward network."""
    self_attention: bool = False
    """Let the queries attend to one another before they attend to places, as in Query2Label."""
    vectors: str | None = None
    """File of label vectors to ask with, such as word vectors, which are not trained; null learns the queries."""

    @property
    def files(self) -> Mapping[str, str]:
        return {} if self.vectors is None else {"vectors": self.vectors}

    @property
    def why_places(self) -> str:
        return "name decoder attends to the features of every place"

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.width % self.attention_heads:
            raise ValueError(
                f"attention_heads {self.attention_heads} does not divide width {self.width}; set width to a multiple of it"
            )
        return self


class DecoderHead(Head):
    """Independent labels, one logit each: queries attend to places, and a linear layer per query answers for its labels.

    The layers are those of the papers without dropout inside; `dropout` drops features. ML-Decoder leaves self-attention out
    and never trains its queries; here they learn, unless `vectors` gives them. Places have no position encoding, as in
    ML-Decoder: Query2Label adds one, but a head does not know how its places are arranged.

    With H = feedforward and G = ceil(L / Q) labels per query, it has about F D + layers (4 D^2 + 2 D H) + Q D + L D parameters,
    and an image costs about P F D + layers (2 P D^2 + Q (2 D^2 + 2 P D + 2 D H)) + L D multiplications.
    """

    def __init__(self, num_features: int, num_labels: int, spec: DecoderSpec, start: Start) -> None:
        super().__init__()
        self.num_labels = num_labels
        per_query = -(-num_labels // spec.queries)
        num_queries = -(-num_labels // per_query)
        self.dropout = FeatureDropout(spec.dropout)
        self.embed = nn.Sequential(nn.Linear(num_features, spec.width), nn.ReLU())
        self.queries = nn.Parameter(torch.randn(num_queries, spec.width))
        if spec.vectors is not None:
            self.queries = constant(self.queries)
        if spec.vectors is not None and start.label_names is not None:
            vectors_LD = read_label_vectors(spec.vectors, start.label_names, spec.width)
            means_QD = torch.stack([group_GD.mean(dim=0) for group_GD in torch.split(vectors_LD, per_query)])
            set_values(self.queries, means_QD.numpy(), "vectors")
        self.layers = nn.ModuleList(DecoderLayer(spec) for _ in range(spec.layers))
        self.answers = nn.Parameter(torch.empty(num_queries, spec.width, per_query))
        nn.init.normal_(self.answers, std=WEIGHT_STD)
        self.bias = nn.Parameter(torch.empty(num_labels))
        set_values(self.bias, prior_log_odds(start, num_labels), "prevalence_L")

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Return {"logits": [B, L]} for features [B, F, P]; features [B, F] are one place."""
        places_BPD = self._places(self.dropout(features))
        state = self.queries.unsqueeze(0)  # [1, Q, D], the same for all images until they have attended to places
        for layer in self.layers:
            state = layer(state, places_BPD)
        logits_BQG = torch.einsum("bqd,qdg->bqg", state, self.answers)
        return {"logits": logits_BQG.flatten(1)[:, : self.num_labels] + self.bias}

    def attention_to_places(self, features_BFP: Tensor) -> Tensor:
        """Return the weights of places in the last layer [B, L, P], the mean of its attention heads; they sum to 1.

        Labels that share a query share its weights.
        """
        places_BPD, state = self._places(features_BFP), self.queries.unsqueeze(0)
        for layer in self.layers[:-1]:
            state = layer(state, places_BPD)
        weights_BQP = cast(DecoderLayer, self.layers[-1]).attention_to_places(state, places_BPD)
        return weights_BQP.repeat_interleave(self.answers.shape[2], dim=1)[:, : self.num_labels]

    def _places(self, features: Tensor) -> Tensor:
        """Return places [B, P, D] of features [B, F, P]; features [B, F] are one place."""
        return torch.as_tensor(self.embed((features if features.ndim == 3 else features.unsqueeze(2)).transpose(1, 2)))


class DecoderLayer(nn.Module):
    """Attention among queries on request, attention to places, and a feed-forward network, each added and then normalised."""

    def __init__(self, spec: DecoderSpec) -> None:
        super().__init__()
        self.among_queries = Attention(spec.width, spec.attention_heads) if spec.self_attention else None
        self.to_places = Attention(spec.width, spec.attention_heads)
        self.feedforward = nn.Sequential(
            nn.Linear(spec.width, spec.feedforward), nn.ReLU(), nn.Linear(spec.feedforward, spec.width)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(spec.width) for _ in range(3))

    def forward(self, state: Tensor, places_BPD: Tensor) -> Tensor:
        """Return the new states [B, Q, D] of queries [B, Q, D], or [1, Q, D] that all images share."""
        state = self._asking(state)
        state = self.norms[1](state + self.to_places(state, places_BPD))
        return torch.as_tensor(self.norms[2](state + self.feedforward(state)))

    def attention_to_places(self, state: Tensor, places_BPD: Tensor) -> Tensor:
        """Return how much each query attends to each place [B, Q, P], the mean over attention heads."""
        return self.to_places.weights(self._asking(state), places_BPD)

    def _asking(self, state: Tensor) -> Tensor:
        """Return the states that attend to places, after the attention among queries."""
        if self.among_queries is not None:
            state = state + self.among_queries(state, state)
        return torch.as_tensor(self.norms[0](state))


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al., NeurIPS 2017) whose queries all images may share."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, asking: Tensor, asked_BPD: Tensor) -> Tensor:
        """Return [B, Q, D]: for each query of `asking`, [B, Q, D] or [1, Q, D], the mix of values that it attends to."""
        query, key, value = (
            projected.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for projected in (self.query(asking), self.key(asked_BPD), self.value(asked_BPD))
        )
        mixed = scaled_dot_product_attention(query.expand(key.shape[0], -1, -1, -1), key, value)
        return torch.as_tensor(self.out(mixed.transpose(1, 2).flatten(2)))

    def weights(self, asking: Tensor, asked_BPD: Tensor) -> Tensor:
        """Return the weights of `asked_BPD` for each query [B, Q, P], the mean over heads; they sum to 1."""
        query, key = (
            projected.unflatten(2, (self.heads, -1)).transpose(1, 2) for projected in (self.query(asking), self.key(asked_BPD))
        )
        scores_BHQP = query @ key.transpose(2, 3) / query.shape[3] ** 0.5
        return torch.softmax(scores_BHQP, dim=3).mean(dim=1)


HEADS = {"decoder": DecoderHead}
