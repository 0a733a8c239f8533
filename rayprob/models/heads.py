"""Heads: features_BF, or features_BFP of P places -> the parameters of a label distribution. K components, L labels, rank R."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import softplus

from rayprob.config.parts import PartSpec
from rayprob.errors import ModelError, RayprobError, StorageError
from rayprob.probability.distributions.mixture import LabelMixture
from rayprob.probability.priors.file import SHIPPED, LabelPriorFile
from rayprob.probability.priors.prior import LabelPrior
from rayprob.registry import PartTable, choose

WEIGHT_STD = 0.01  # small enough that a fresh head predicts the prevalences (Lin et al., ICCV 2017, section 4.1)
RAREST = 1e-6  # a label that never occurs in training is improbable, not impossible


class HeadSpec(PartSpec):
    """A head and its options. Every head drops features in training; `family` is the kind of its distribution."""

    kind: ClassVar[str] = "head"
    family: ClassVar[str] = "bernoulli"

    name: str = "bernoulli"
    """bernoulli, mixture, or one of a plugin."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the features that training drops."""

    @classmethod
    def table(cls) -> "Mapping[str, Callable[..., Head]]":
        return HEADS

    @property
    def title(self) -> str:
        """How the name of a run mentions the head."""
        return self.name

    @property
    def start_components(self) -> int:
        """Number of components of the mixture of training label sets that a fresh head starts from; 0 for no mixture."""
        return 0

    @property
    def files(self) -> Mapping[str, str]:
        """The options that are paths of files which training reads, with their values."""
        return {}

    def with_absolute_paths(self, absolute: Callable[[str], str]) -> Self:
        """Return this head with `absolute` applied to its files, for processes that work in other folders."""
        return self.model_copy(update={option: absolute(path) for option, path in self.files.items()})

    @property
    def loss_options(self) -> dict[str, Any]:
        """Options of the default loss that differ from those of the head's family."""
        return {}

    @property
    def why_places(self) -> str:
        """Why the head needs the places of an image, starting with the option that requires them; "" if it does not."""
        return ""

    def after(self, old: "HeadSpec") -> "HeadSpec":
        """Return this head as the successor of `old` on the same features."""
        return self


class AttentiveSpec(HeadSpec):
    """A linear head. `attention` is the weight of a label's score at its best place, added to its average over all places.

    This is class-specific residual attention (Zhu and Wu, ICCV 2021) with one head and infinite temperature. It needs
    `pooling: places`.
    """

    as_written: ClassVar[Mapping[str, Any]] = {"name": "", "dropout": 0.0, "components": 1, "rank": 0, "attention": 0.0}

    attention: float = Field(default=0.0, ge=0)
    """Weight of the best place of an image, added to the average over places; needs pooling: places."""

    @property
    def why_places(self) -> str:
        return f"attention {self.attention} needs the features of every place" if self.attention else ""

    def after(self, old: HeadSpec) -> HeadSpec:
        """Take over the attention of the old head, unless this one has its own."""
        before = old.attention if isinstance(old, AttentiveSpec) else 0.0
        return self.model_copy(update={"attention": self.attention or before})


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


@dataclass(frozen=True)
class Start:
    """What a fresh head starts from: prevalences [L] of the training labels, or a fitted mixture (weights [K], P [K, L]).

    `label_sets` returns targets and known [N, L] of (some of) the training split, for a head that needs more.
    """

    prevalence_L: NDArray[Any] | None = None
    mixing_weights_K: NDArray[Any] | None = None
    probabilities_KL: NDArray[Any] | None = None
    label_sets: Callable[[], tuple[NDArray[np.bool_], NDArray[np.bool_]]] | None = None


class Head(nn.Module):
    """Turns features [B, F], or [B, F, P] of P places, into the named outputs of its family."""

    family: str  # as in its spec

    def start_from_bernoulli(self, weight_LF: Tensor, bias_L: Tensor) -> None:
        """Take over a trained Bernoulli head; a head that cannot do so is left unchanged."""


class BernoulliHead(Head):
    """Independent labels: one logit per label."""

    def __init__(self, num_features: int, num_labels: int, spec: AttentiveSpec, start: Start) -> None:
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

    def start_from_bernoulli(self, weight_LF: Tensor, bias_L: Tensor) -> None:
        """Take over the weights of a trained Bernoulli head. Raises ModelError if the shapes differ."""
        _set(self.linear.weight, weight_LF.numpy(), "the weight of the Bernoulli head")
        _set(self.linear.bias, bias_L.numpy(), "the bias of the Bernoulli head")


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
    """Dropout of whole features: at all places of an image at once."""

    def forward(self, features: Tensor) -> Tensor:
        """Return features of the same shape, [B, F] or [B, F, P]."""
        if features.ndim == 2:
            return super().forward(features)
        return features * super().forward(torch.ones_like(features[:, :, :1]))


def average(features: Tensor) -> Tensor:
    """Return features [B, F]: the mean over places if there are any."""
    return features if features.ndim == 2 else features.mean(dim=2)


def best_place(features: Tensor, weight_LF: Tensor, attention: float) -> Tensor | float:
    """Return `attention` times each label's score at its best place [B, L]; 0 without attention."""
    if not attention:
        return 0.0
    return attention * (weight_LF @ features).amax(dim=2)


def build_head(spec: HeadSpec, num_features: int, num_labels: int, start: Start | None = None) -> Head:
    """Return the head that `spec` names, initialised from `start`.

    Raises ModelError if the shapes of `start` do not fit.
    """
    head = choose(HEADS, spec.name, "head", ModelError)(num_features, num_labels, spec, start or Start())
    head.family = spec.family
    return head


def _logit(probabilities: NDArray[Any]) -> NDArray[Any]:
    clipped = np.clip(np.asarray(probabilities, dtype=np.float64), RAREST, 1 - RAREST)
    return np.log(clipped) - np.log1p(-clipped)


def _set(parameter: Tensor, values: NDArray[Any], what: str, shape: tuple[int, ...] | None = None) -> None:
    shape = shape or tuple(parameter.shape)
    if values.shape != shape:
        raise ModelError(f"{what} has shape {values.shape}, but the head needs {shape}; use the same labels and components")
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(np.array(values)).reshape(parameter.shape))


def _mixture(num_features: int, num_labels: int, spec: MixtureSpec, start: Start) -> MixtureHead:
    kind = MixtureHead if spec.prior is None else TiltedHead
    return kind(num_features, num_labels, spec, start)


HEADS: PartTable[Callable[..., Head]] = PartTable("HEADS", {"bernoulli": BernoulliHead, "mixture": _mixture})
