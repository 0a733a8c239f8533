"""The head `mixture`: a conditional Bernoulli mixture, from scratch or from a label prior. K components, L labels, rank R."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import softplus

from rayprob.errors import RayprobError, StorageError
from rayprob.models.heads.bernoulli import AttentiveSpec, best_place
from rayprob.models.heads.head import (
    RAREST,
    WEIGHT_STD,
    FeatureDropout,
    Head,
    Start,
    average,
    log_odds,
    prior_log_odds,
    set_values,
)
from rayprob.probability.distributions.mixture import LabelMixture
from rayprob.probability.priors.file import SHIPPED, LabelPriorFile
from rayprob.probability.priors.prior import LabelPrior


class MixtureSpec(AttentiveSpec):
    """A mixture of `components`, which differ by more than their offsets if `rank` is not 0.

    With `prior`, it starts from the components of a label prior, which sets their number.
    """

    family: ClassVar[str] = "mixture"
    later_keys: ClassVar[frozenset[str]] = frozenset({"prior", "strength"})

    name: str = "mixture"
    components: int = Field(default=1, ge=1)
    """Number of components; with a prior, that of the prior."""
    rank: int = Field(default=0, ge=0)
    """Rank of the differences between components beyond their offsets; 0: components differ in their offsets only."""
    prior: str | None = None
    """Label prior to start from: coco, or the path of a file that `rayprob prior` wrote."""
    strength: float = Field(default=1.0, ge=0)
    """Initial exponent of the prior (`TiltedHead`)."""

    @model_validator(mode="before")
    @classmethod
    def _as_many_components_as_the_prior(cls, value: Any) -> Any:
        """Fill in `components` once, so that what a run writes is complete and can be read without the prior's file."""
        if not isinstance(value, dict) or not isinstance(value.get("prior"), str) or "components" in value:
            return value
        try:
            prior = LabelPriorFile.load(value["prior"])
        except StorageError as error:
            raise ValueError(
                f"prior: {error}; if only other machines can read the file, set components to its number of components"
            ) from error
        except RayprobError as error:
            raise ValueError(f"prior: {error}") from error
        return {**value, "components": len(prior.mixture.mixing_weights_K)}

    @model_validator(mode="after")
    def _strength_of_a_prior(self) -> "MixtureSpec":
        if self.prior is None and self.strength != 1:
            raise ValueError(f"strength {self.strength:g} needs a prior; set prior or leave out strength")
        return self

    @property
    def files(self) -> Mapping[str, str]:
        """The prior, unless it comes with rayprob."""
        return {} if self.prior is None or self.prior in SHIPPED else {"prior": self.prior}

    @property
    def loss_options(self) -> dict[str, Any]:
        """With a prior, no pressure to use all components: those that are rare among label sets should stay rare."""
        return {} if self.prior is None else {"usage_weight": 0.0}

    @property
    def title(self) -> str:
        return f"{self.name}{self.components}{'-prior' * (self.prior is not None)}"

    @property
    def start_components(self) -> int:
        return self.components


class MixtureHead(Head):
    """Conditional Bernoulli mixture (Li, Wang, Pavlu, Aslam, ICML 2016) with shared label logits and component offsets.

    Component k's logits are `W f + offsets_k + (U_k f) V`, with the last part only if the rank is not 0. So its size
    is F*(L + K + K*R) + K*L + R*L, and one component is the Bernoulli head whose bias is the offset.
    """

    def __init__(self, num_features: int, num_labels: int, spec: MixtureSpec, start: Start) -> None:
        super().__init__()
        self.num_components, self.rank, self.strength = spec.components, spec.rank, spec.strength
        self.dropout, self.attention = FeatureDropout(spec.dropout), spec.attention
        self.linear = nn.Linear(num_features, num_labels, bias=False)
        self.mixing = nn.Linear(num_features, spec.components)
        # Flat, because weight decay applies to matrices and these are biases.
        self.offsets = nn.Parameter(torch.empty(spec.components * num_labels))
        for layer in (self.linear, self.mixing):
            nn.init.normal_(layer.weight, std=WEIGHT_STD)
        self._start_components(start)
        if spec.rank:
            self.factors = nn.Linear(num_features, spec.components * spec.rank, bias=False)
            self.basis = nn.Parameter(torch.empty(spec.rank, num_labels))
            nn.init.normal_(self.factors.weight, std=WEIGHT_STD)
            nn.init.normal_(self.basis, std=1 / math.sqrt(spec.rank))

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Return {"mixing_logits": [B, K], "component_logits": [B, K, L]} for features [B, F] or [B, F, P]."""
        features = self.dropout(features)
        features_BF = average(features)
        shared_BL = self.linear(features_BF) + best_place(features, self.linear.weight, self.attention)
        component_logits_BKL = shared_BL.unsqueeze(1) + self.offsets.view(self.num_components, -1)
        if self.rank:
            factors_BKR = self.factors(features_BF).unflatten(1, (self.num_components, self.rank))
            component_logits_BKL = component_logits_BKL + factors_BKR @ self.basis
        return {"mixing_logits": self.mixing(features_BF), "component_logits": component_logits_BKL}

    def start_from_bernoulli(self, weight_LF: Tensor, bias_L: Tensor) -> None:
        """Take over a trained Bernoulli head: its logits plus each component's difference from the mixture's marginals.

        With one component and rank 0 the outputs are that head's. Raises ModelError if the shapes differ.
        """
        with torch.no_grad():
            offsets_KL = self.offsets.double().view(self.num_components, -1)
            mixing_K1 = torch.softmax(self.mixing.bias.double(), dim=0).unsqueeze(1)
            marginal_L = (mixing_K1 * torch.sigmoid(offsets_KL)).sum(dim=0)
            set_values(self.linear.weight, weight_LF.numpy(), "the weight of the Bernoulli head")
            apart_KL = offsets_KL - torch.logit(marginal_L)
            set_values(self.offsets, (apart_KL + bias_L).numpy(), "the bias of the Bernoulli head", tuple(offsets_KL.shape))

    def _start_components(self, start: Start) -> None:
        num_labels = self.linear.out_features
        if start.probabilities_KL is not None and start.mixing_weights_K is not None:
            set_values(self.offsets, log_odds(start.probabilities_KL), "probabilities_KL", (self.num_components, num_labels))
            set_values(self.mixing.bias, np.log(np.maximum(start.mixing_weights_K, RAREST)), "mixing_weights_K")
            return
        prior_L = prior_log_odds(start, num_labels)
        prior_KL = np.broadcast_to(prior_L, (self.num_components, len(prior_L)))
        set_values(self.offsets, prior_KL, "prevalence_L", (self.num_components, num_labels))
        nn.init.zeros_(self.mixing.bias)
        if self.num_components > 1:  # equal components would get equal gradients forever
            with torch.no_grad():
                self.offsets.add_(torch.randn_like(self.offsets), alpha=0.5)


class TiltedHead(MixtureHead):
    """A mixture that starts as a label prior combined with independent labels; all of it is trained.

    For the logits u_l(x) = (W f + bias)_l of independent labels,

        p(component k, y | x)  is proportional to  exp( m_k(x) + sum_l y_l (u_l(x) + offsets_kl) )

    so component k's logits are u_l(x) + offsets_kl, with (U_k f) V as well if the rank is not 0, and its mixing logit is
    m_k(x) = M f + m plus the log normaliser sum_l log (1 + exp of the component's logit l). The start has M = 0 and, for a
    prior (pi_k, p_kl) with marginals p_l and the strength s,

        offsets_kl = s (logit p_kl - logit p_l)        m_k = log pi_k + s sum_l log (1 - p_kl) / (1 - p_l)

    which is `probability/priors/prior.py`'s prior of that strength over the classifier u. With s = 1 and u_l = logit p_l, as
    in a fresh head if the training split has the prior's prevalences, this is the label mixture itself.
    """

    def __init__(self, num_features: int, num_labels: int, spec: MixtureSpec, start: Start) -> None:
        super().__init__(num_features, num_labels, spec, start)
        nn.init.zeros_(self.mixing.weight)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Return {"mixing_logits": [B, K], "component_logits": [B, K, L]} for features [B, F] or [B, F, P]."""
        outputs = super().forward(features)
        logits_BKL = outputs["component_logits"] + self.bias
        return {"mixing_logits": outputs["mixing_logits"] + softplus(logits_BKL).sum(dim=2), "component_logits": logits_BKL}

    def start_from_bernoulli(self, weight_LF: Tensor, bias_L: Tensor) -> None:
        """Take over a trained Bernoulli head, still combined with the prior. Raises ModelError if the shapes differ."""
        set_values(self.linear.weight, weight_LF.detach().cpu().numpy(), "the weight of the Bernoulli head")
        set_values(self.bias, bias_L.detach().cpu().numpy(), "the bias of the Bernoulli head")

    def _start_components(self, start: Start) -> None:
        num_labels = self.linear.out_features
        self.bias = nn.Parameter(torch.zeros(num_labels))
        set_values(self.bias, prior_log_odds(start, num_labels), "prevalence_L")
        nn.init.zeros_(self.offsets)
        nn.init.zeros_(self.mixing.bias)
        if start.probabilities_KL is not None and start.mixing_weights_K is not None:
            prior = LabelPrior.of(LabelMixture(start.mixing_weights_K, start.probabilities_KL))
            set_values(self.offsets, self.strength * prior.odds_KL, "probabilities_KL", (self.num_components, num_labels))
            set_values(self.mixing.bias, prior.log_mixing_K + self.strength * prior.absent_K, "mixing_weights_K")


def _mixture(num_features: int, num_labels: int, spec: MixtureSpec, start: Start) -> MixtureHead:
    kind = MixtureHead if spec.prior is None else TiltedHead
    return kind(num_features, num_labels, spec, start)


HEADS = {"mixture": _mixture}
