"""Heads: features_BF, or features_BFP of P places -> the parameters of a label distribution. K components, L labels, rank R."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from torch import Tensor, nn
from torch.nn.functional import softplus

from rayprob.config.spec import Spec
from rayprob.errors import ModelError, RayprobError, StorageError
from rayprob.probability.distributions.mixture import LabelMixture
from rayprob.probability.priors.file import LabelPriorFile
from rayprob.probability.priors.prior import LabelPrior
from rayprob.registry import choose

WEIGHT_STD = 0.01  # so small that a fresh head answers with the prevalences (Lin et al., ICCV 2017, section 4.1)
RAREST = 1e-6  # a label never seen in training is improbable, not impossible


class HeadSpec(Spec):
    """The head; `components`, `rank` and `prior` belong to the mixture. Rank 0: components differ by their offsets only.

    `prior` is a label prior, `coco` or the path of a file that `rayprob prior` wrote, from whose components the mixture starts;
    it brings their number, and `strength` is the exponent with which it starts (`TiltedHead`).
    `attention` adds so many times a label's score at its best place to its score on average over all places: class-specific
    residual attention (Zhu and Wu, ICCV 2021) with one head and infinite temperature. It needs `pooling: places`.
    """

    name: Literal["bernoulli", "mixture"] = "bernoulli"
    dropout: float = Field(default=0.0, ge=0, lt=1)
    components: int = Field(default=1, ge=1)
    rank: int = Field(default=0, ge=0)
    attention: float = Field(default=0.0, ge=0)
    prior: str | None = None
    strength: float = Field(default=1.0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _as_many_components_as_the_prior(cls, value: Any) -> Any:
        """Fill in `components` once, so that what a run writes down is whole and can be read without the prior's file."""
        if not isinstance(value, dict) or not isinstance(value.get("prior"), str) or "components" in value:
            return value
        try:
            prior = LabelPriorFile.load(value["prior"])
        except StorageError as error:
            raise ValueError(f"prior: {error}; if only other machines reach the file, set components to its number") from error
        except RayprobError as error:
            raise ValueError(f"prior: {error}") from error
        return {**value, "components": len(prior.mixture.mixing_weights_K)}

    @model_validator(mode="after")
    def _only_own_parameters(self) -> "HeadSpec":
        if self.name == "bernoulli" and self.prior is not None:
            raise ValueError("a prior is laid over the labels by a mixture; set name: mixture or leave out prior")
        if self.name == "bernoulli" and (self.components, self.rank) != (1, 0):
            raise ValueError("components and rank are the mixture's; set name: mixture or leave them out")
        if self.prior is None and self.strength != 1:
            raise ValueError(f"strength {self.strength:g} is that of a prior; set prior or leave out strength")
        return self

    @model_serializer(mode="wrap")
    def _without_absent_prior(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what belongs to a prior where there is none: runs written before there were priors stay the same runs."""
        value: dict[str, Any] = handler(self)
        return value if self.prior is not None else {key: value[key] for key in value if key not in ("prior", "strength")}


@dataclass(frozen=True)
class Start:
    """What a fresh head knows of the training labels: prevalences [L], or a fitted mixture (weights [K], P [K, L])."""

    prevalence_L: NDArray[Any] | None = None
    mixing_weights_K: NDArray[Any] | None = None
    probabilities_KL: NDArray[Any] | None = None


class BernoulliHead(nn.Module):
    """Independent labels: one logit each, the paper's head."""

    family = "bernoulli"

    def __init__(self, num_features: int, num_labels: int, spec: HeadSpec, start: Start) -> None:
        super().__init__()
        self.dropout, self.attention = FeatureDropout(spec.dropout), spec.attention
        self.linear = nn.Linear(num_features, num_labels)
        nn.init.normal_(self.linear.weight, std=WEIGHT_STD)
        prior_L = np.full(num_labels, 0.5) if start.prevalence_L is None else start.prevalence_L
        _set(self.linear.bias, _logit(prior_L), "prevalence_L")

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Return {"logits": [B, L]} for features [B, F] or [B, F, P]."""
        features = self.dropout(features)
        return {"logits": self.linear(average(features)) + best_place(features, self.linear.weight, self.attention)}


class MixtureHead(nn.Module):
    """Conditional Bernoulli mixture (Li, Wang, Pavlu, Aslam, ICML 2016) with shared label logits and component offsets.

    Component k's logits are `W f + offsets_k + (U_k f) V`, with the last part only where the rank is not 0. So its size
    is F*(L + K + K*R) + K*L + R*L, and one component is the Bernoulli head whose bias is the offset.
    """

    family = "mixture"

    def __init__(self, num_features: int, num_labels: int, spec: HeadSpec, start: Start) -> None:
        super().__init__()
        self.num_components, self.rank, self.strength = spec.components, spec.rank, spec.strength
        self.dropout, self.attention = FeatureDropout(spec.dropout), spec.attention
        self.linear = nn.Linear(num_features, num_labels, bias=False)
        self.mixing = nn.Linear(num_features, spec.components)
        # Flat, because weight decay goes to matrices and these are biases.
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
        """Take over a trained Bernoulli head: its logits plus what sets each component apart from the mixture's marginals.

        With one component and rank 0 the outputs are that head's. Raises ModelError where the shapes differ.
        """
        with torch.no_grad():
            offsets_KL = self.offsets.double().view(self.num_components, -1)
            mixing_K1 = torch.softmax(self.mixing.bias.double(), dim=0).unsqueeze(1)
            marginal_L = (mixing_K1 * torch.sigmoid(offsets_KL)).sum(dim=0)
            _set(self.linear.weight, weight_LF.numpy(), "the weight of the Bernoulli head")
            apart_KL = offsets_KL - torch.logit(marginal_L)
            _set(self.offsets, (apart_KL + bias_L).numpy(), "the bias of the Bernoulli head", tuple(offsets_KL.shape))

    def _start_components(self, start: Start) -> None:
        num_labels = self.linear.out_features
        if start.probabilities_KL is not None and start.mixing_weights_K is not None:
            _set(self.offsets, _logit(start.probabilities_KL), "probabilities_KL", (self.num_components, num_labels))
            _set(self.mixing.bias, np.log(np.maximum(start.mixing_weights_K, RAREST)), "mixing_weights_K")
            return
        prior_L = np.full(num_labels, 0.5) if start.prevalence_L is None else start.prevalence_L
        prior_KL = np.broadcast_to(_logit(prior_L), (self.num_components, len(prior_L)))
        _set(self.offsets, prior_KL, "prevalence_L", (self.num_components, num_labels))
        nn.init.zeros_(self.mixing.bias)
        if self.num_components > 1:  # equal components would get equal gradients for ever
            with torch.no_grad():
                self.offsets.add_(torch.randn_like(self.offsets), alpha=0.5)


class TiltedHead(MixtureHead):
    """A mixture that starts as a label prior laid over independent labels, with all of it trained.

    For the logits u_l(x) = (W f + bias)_l of independent labels,

        p(component k, y | x)  is proportional to  exp( m_k(x) + sum_l y_l (u_l(x) + offsets_kl) )

    so component k's logits are u_l(x) + offsets_kl, with (U_k f) V as well where the rank is not 0, and its mixing logit is
    m_k(x) = M f + m plus the log normaliser sum_l log (1 + exp of the component's logit l). The start has M = 0 and, for a
    prior (pi_k, p_kl) with marginals p_l and the strength s,

        offsets_kl = s (logit p_kl - logit p_l)        m_k = log pi_k + s sum_l log (1 - p_kl) / (1 - p_l)

    which is `probability/prior.py`'s prior of that strength over the classifier u. With s = 1 and u_l = logit p_l, as a fresh
    head has it where the training split has the prior's prevalences, that is the label mixture itself.
    """

    def __init__(self, num_features: int, num_labels: int, spec: HeadSpec, start: Start) -> None:
        super().__init__(num_features, num_labels, spec, start)
        nn.init.zeros_(self.mixing.weight)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Return {"mixing_logits": [B, K], "component_logits": [B, K, L]} for features [B, F] or [B, F, P]."""
        outputs = super().forward(features)
        logits_BKL = outputs["component_logits"] + self.bias
        return {"mixing_logits": outputs["mixing_logits"] + softplus(logits_BKL).sum(dim=2), "component_logits": logits_BKL}

    def start_from_bernoulli(self, weight_LF: Tensor, bias_L: Tensor) -> None:
        """Take over a trained Bernoulli head, over which the prior stays laid. Raises ModelError where the shapes differ."""
        _set(self.linear.weight, weight_LF.detach().cpu().numpy(), "the weight of the Bernoulli head")
        _set(self.bias, bias_L.detach().cpu().numpy(), "the bias of the Bernoulli head")

    def _start_components(self, start: Start) -> None:
        num_labels = self.linear.out_features
        self.bias = nn.Parameter(torch.zeros(num_labels))
        if start.prevalence_L is not None:
            _set(self.bias, _logit(start.prevalence_L), "prevalence_L")
        nn.init.zeros_(self.offsets)
        nn.init.zeros_(self.mixing.bias)
        if start.probabilities_KL is not None and start.mixing_weights_K is not None:
            prior = LabelPrior.of(LabelMixture(start.mixing_weights_K, start.probabilities_KL))
            _set(self.offsets, self.strength * prior.odds_KL, "probabilities_KL", (self.num_components, num_labels))
            _set(self.mixing.bias, prior.log_mixing_K + self.strength * prior.absent_K, "mixing_weights_K")


class FeatureDropout(nn.Dropout):
    """Dropout of whole features: at all places of an image or at none."""

    def forward(self, features: Tensor) -> Tensor:
        """Return features of the same shape, [B, F] or [B, F, P]."""
        if features.ndim == 2:
            return super().forward(features)
        return features * super().forward(torch.ones_like(features[:, :, :1]))


def average(features: Tensor) -> Tensor:
    """Return features [B, F]: the mean over places where there are any."""
    return features if features.ndim == 2 else features.mean(dim=2)


def best_place(features: Tensor, weight_LF: Tensor, attention: float) -> Tensor | float:
    """Return `attention` times each label's score at its best place [B, L]; 0 without attention."""
    if not attention:
        return 0.0
    return attention * (weight_LF @ features).amax(dim=2)


def build_head(spec: HeadSpec, num_features: int, num_labels: int, start: Start | None = None) -> nn.Module:
    """Return the head that `spec` names, started from what is known of the training labels.

    Raises ModelError where the shapes of `start` do not fit.
    """
    return choose(HEADS, spec.name, "head", ModelError)(num_features, num_labels, spec, start or Start())


def components_in_use(mixing_logits_BK: Tensor) -> Tensor:
    """Return exp(entropy) of the mean mixing weights, a scalar in 1..K: how many components these images share out."""
    log_usage_K = torch.log_softmax(mixing_logits_BK.double(), dim=1).logsumexp(dim=0) - math.log(len(mixing_logits_BK))
    return (-(log_usage_K.exp() * log_usage_K).sum()).exp()


def _logit(probabilities: NDArray[Any]) -> NDArray[Any]:
    clipped = np.clip(np.asarray(probabilities, dtype=np.float64), RAREST, 1 - RAREST)
    return np.log(clipped) - np.log1p(-clipped)


def _set(parameter: Tensor, values: NDArray[Any], what: str, shape: tuple[int, ...] | None = None) -> None:
    shape = shape or tuple(parameter.shape)
    if values.shape != shape:
        raise ModelError(f"{what} gives shape {values.shape}, but the head needs {shape}; use the same labels and components")
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(np.array(values)).reshape(parameter.shape))


def _mixture(num_features: int, num_labels: int, spec: HeadSpec, start: Start) -> MixtureHead:
    kind = MixtureHead if spec.prior is None else TiltedHead
    return kind(num_features, num_labels, spec, start)


HEADS: dict[str, Callable[[int, int, HeadSpec, Start], nn.Module]] = {"bernoulli": BernoulliHead, "mixture": _mixture}
