"""The head `powerset`: a probability for each frequent label set. B images, F features, K sets, L labels."""

import logging
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from rayprob.models.heads.head import (
    RAREST,
    WEIGHT_STD,
    FeatureDropout,
    Head,
    HeadSpec,
    Start,
    average,
    constant,
    log_odds,
    set_values,
)
from rayprob.models.losses import LossSpec

log = logging.getLogger(__name__)


class PowersetSpec(HeadSpec):
    """The `sets` most frequent label sets of the training split, and independent labels for all other sets."""

    family: ClassVar[str] = "powerset"

    name: str = "powerset"
    sets: int = Field(default=2000, ge=1)
    """Most label sets with a probability of their own."""
    least_samples: int = Field(default=2, ge=1)
    """Fewest training samples of such a set. With 1, training has no example of a new set, and makes them improbable."""
    own_weights: bool = False
    """Separate weights for each set, as in label powerset; otherwise its score is an offset plus its labels' scores."""

    @property
    def title(self) -> str:
        return f"{self.name}{self.sets}"


class PowersetHead(Head):
    """Label powerset (Boutell et al., Pattern Recognition 2004), whose classes are label sets, with a remainder.

    For the logits u = W f + b of independent labels,

        p(y|x)  is proportional to  exp( sum_l y_l u_l ) * ( sum_k exp(c_k + w_k f) [y = set k]  +  exp(c + w f) )

    so the score of set k is that of its labels plus an offset, and the remainder has the normaliser sum_l log(1 + exp u_l) of
    its independent labels. Label powerset proper has the weights w_k alone (`own_weights`); here they are 0 by default, as few
    sets have samples enough to learn F weights, and the labels' scores are added, which sets have in common. Sets with
    fewer than `least_samples` are left out, as in pruned sets (Read, 2008), but keep a probability: a new set has about that of
    all sets seen once (Good and Turing).

    Fresh, sets have their frequencies and the rest is independent, whatever the features. Size: F (L + 1) + L + K + 1
    parameters, F K more with `own_weights`, and the K L labels of the sets. A step adds B K L multiplications.
    """

    sets: nn.Parameter  # not trained
    is_listed: Tensor

    def __init__(self, num_features: int, num_labels: int, spec: PowersetSpec, start: Start) -> None:
        super().__init__()
        self.dropout = FeatureDropout(spec.dropout)
        self.linear = nn.Linear(num_features, num_labels)
        self.rest = nn.Linear(num_features, 1)
        self.own = nn.Linear(num_features, spec.sets, bias=False) if spec.own_weights else None
        self.offsets = nn.Parameter(torch.zeros(spec.sets))
        self.sets = constant(torch.zeros(spec.sets, num_labels))
        self.register_buffer("is_listed", torch.zeros(spec.sets, dtype=torch.bool))
        self._start(spec, start)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Return "set_logits" [B, K], minus infinity for unused sets, "rest_logit" [B, 1], "logits" [B, L], "sets" [K, L]."""
        features_BF = average(self.dropout(features))
        logits_BL = self.linear(features_BF)
        score_BK = logits_BL @ self.sets.T + self.offsets
        if self.own is not None:
            score_BK = score_BK + self.own(features_BF)
        rest_B1 = softplus(logits_BL).sum(dim=1, keepdim=True) + self.rest(features_BF)
        score_BK = score_BK.masked_fill(~self.is_listed, -torch.inf)
        return {"set_logits": score_BK, "rest_logit": rest_B1, "logits": logits_BL, **self.shared()}

    def shared(self) -> dict[str, Tensor]:
        """Return the label sets, 0 or 1."""
        return {"sets": self.sets}

    def start_from_bernoulli(self, weight_LF: Tensor, bias_L: Tensor) -> None:
        """Take over a trained Bernoulli head: a label set's odds are its frequency times what the head adds to prevalences.

        Raises ModelError if the shapes differ.
        """
        with torch.no_grad():
            score_K = (self.sets @ self.linear.bias + self.offsets).masked_fill(~self.is_listed, -torch.inf)
            rest = softplus(self.linear.bias).sum() + self.rest.bias
            weight_K = torch.softmax(torch.cat([score_K, rest]).double(), dim=0)
            marginal_L = weight_K[:-1] @ self.sets.double() + weight_K[-1] * torch.sigmoid(self.linear.bias.double())
            set_values(self.linear.weight, weight_LF.detach().cpu().numpy(), "the weight of the Bernoulli head")
            bias_L = self.linear.bias - torch.logit(marginal_L, RAREST).to(bias_L) + bias_L
            set_values(self.linear.bias, bias_L.detach().cpu().numpy(), "the bias of the Bernoulli head")

    def _start(self, spec: PowersetSpec, start: Start) -> None:
        """Give sets and remainder their frequencies in training; the remainder counts one more sample, of the prevalences."""
        for layer in (self.linear, self.rest):
            nn.init.normal_(layer.weight, std=WEIGHT_STD)
        if self.own is not None:
            nn.init.zeros_(self.own.weight)
        prior_L = start.prior(self.linear.out_features)
        num_others, bias_L = 1.0, log_odds(prior_L)
        if start.label_sets is not None:
            targets_NL, known_NL = start.label_sets()
            sets_KL, count_K = frequent_sets(targets_NL & known_NL, spec.sets, spec.least_samples)
            num_others += len(targets_NL) - count_K.sum()
            num_present_L = len(targets_NL) * prior_L - count_K @ sets_KL
            bias_L = log_odds((np.maximum(num_present_L, 0) + prior_L) / num_others)
            self._list(sets_KL, np.log(count_K) - sets_KL @ bias_L)
            share = 100 * count_K.sum() / len(targets_NL)
            log.info("powerset: %d sets of %.1f %% of %d samples", len(sets_KL), share, len(targets_NL))
        set_values(self.linear.bias, bias_L, "prevalence_L")
        set_values(self.rest.bias, np.array([np.log(num_others) - np.logaddexp(0, bias_L).sum()]), "prevalence_L")

    def _list(self, sets_KL: NDArray[np.bool_], offset_K: NDArray[np.float64]) -> None:
        num_listed = len(sets_KL)
        set_values(self.sets[:num_listed], sets_KL.astype(np.float32), "sets")
        set_values(self.offsets[:num_listed], offset_K, "sets")
        self.is_listed[:num_listed] = True


def frequent_sets(
    targets_NL: NDArray[np.bool_], most: int, least_samples: int
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return the most frequent label sets [K, L], and their samples [K]; unknown labels count as absent."""
    _, first_U, count_U = np.unique(np.packbits(targets_NL, axis=1), axis=0, return_index=True, return_counts=True)
    order_K = [u for u in np.argsort(-count_U, kind="stable")[:most] if count_U[u] >= least_samples]
    return targets_NL[first_U[order_K]], count_U[order_K].astype(np.float64)


class PowersetLossSpec(LossSpec):
    """The loss `powerset` has no options; it reads outputs of the family `powerset`."""

    family: ClassVar[str] = "powerset"


def powerset(spec: PowersetLossSpec, outputs: dict[str, Tensor], targets_BL: Tensor, known_BL: Tensor) -> Tensor:
    """Return the negative log-likelihood [B] of the known labels in nats: of all label sets that agree with them."""
    scores_BK = torch.cat([outputs["set_logits"], outputs["rest_logit"]], dim=1)
    logits_BL, sets_KL = outputs["logits"], outputs["sets"]
    present_BL = targets_BL * known_BL
    # The number of known labels in which a set differs, by one matrix product.
    differences_BK = present_BL.sum(dim=1, keepdim=True) + (known_BL - 2 * present_BL) @ sets_KL.T
    agreeing_BK = scores_BK[:, :-1].masked_fill(differences_BK > 0.5, -torch.inf)
    nll_B1 = binary_cross_entropy_with_logits(logits_BL, targets_BL, known_BL, reduction="none").sum(dim=1, keepdim=True)
    possible_BK = torch.cat([agreeing_BK, scores_BK[:, -1:] - nll_B1], dim=1)
    return torch.logsumexp(scores_BK, dim=1) - torch.logsumexp(possible_BK, dim=1)


HEADS = {"powerset": PowersetHead}
LOSSES = {"powerset": powerset}
