"""What every head shares: its options, what it starts from, and the table of heads by name.

A head turns features [B, F], or [B, F, P] of P places, into the parameters of a label distribution. L labels, K components.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from rayprob.config.parts import PartSpec
from rayprob.errors import ModelError
from rayprob.registry import PartTable, choose

WEIGHT_STD = 0.01  # small enough that a fresh head predicts the prevalences (Lin et al., ICCV 2017, section 4.1)
RAREST = 1e-6  # a label that never occurs in training is improbable, not impossible


class HeadSpec(PartSpec):
    """A head and its options. Every head drops features in training; `family` is the kind of its distribution."""

    kind: ClassVar[str] = "head"
    family: ClassVar[str] = "bernoulli"

    name: str = "bernoulli"
    """bernoulli, csra, semantic, srn, decoder, graph, compressed, mixture, masked, powerset, recurrent, or one of a plugin."""
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
        """Why the head needs the places of an image, starting with the option that requires them (`name` if the head always
        does); "" if it does not."""
        return ""

    @property
    def needs_refit(self) -> bool:
        """Whether the head is fitted label by label on frozen features, which only a refit does."""
        return False

    def after(self, old: "HeadSpec") -> "HeadSpec":
        """Return this head as the successor of `old` on the same features."""
        return self


@dataclass(frozen=True)
class Start:
    """What a fresh head starts from: prevalences [L] of the training labels, or a fitted mixture (weights [K], P [K, L]).

    `label_sets` returns targets and known [N, L] of (some of) the training split, for a head that needs more; `label_names` has
    the L names, for one that reads a file about labels. Both are None where the weights of a checkpoint or bundle follow.
    """

    prevalence_L: NDArray[Any] | None = None
    mixing_weights_K: NDArray[Any] | None = None
    probabilities_KL: NDArray[Any] | None = None
    label_sets: Callable[[], tuple[NDArray[np.bool_], NDArray[np.bool_]]] | None = None
    label_names: tuple[str, ...] | None = None

    def prior(self, num_labels: int) -> NDArray[np.float64]:
        """Return the prevalences [L]; 0.5 where they are unknown."""
        if self.prevalence_L is None:
            return np.full(num_labels, 0.5)
        return np.asarray(self.prevalence_L, dtype=np.float64)


class Head(nn.Module):
    """Turns features [B, F], or [B, F, P] of P places, into the named outputs of its family."""

    family: str  # as in its spec

    def shared(self) -> dict[str, Tensor]:
        """Return the outputs that are the same for all images, which its family gives shapes without N; `forward` adds them."""
        return {}

    def start_from_bernoulli(self, weight_LF: Tensor, bias_L: Tensor) -> None:
        """Take over a trained Bernoulli head; a head that cannot do so is left unchanged."""

    def by_place(self, features_BFP: Tensor) -> "ByPlace":
        """Return each label's logit as a sum over places, for features in evaluation mode.

        Raises NotImplementedError if logits are not such sums.
        """
        raise NotImplementedError

    def attention_to_places(self, features_BFP: Tensor) -> Tensor:
        """Return how much each label attends to each place [B, L, P], at least 0, for features in evaluation mode.

        Raises NotImplementedError for a head without attention.
        """
        raise NotImplementedError

    @property
    def is_sum_over_places(self) -> bool:
        """Whether `by_place` is defined."""
        return type(self).by_place is not Head.by_place

    @property
    def explains_by_attention(self) -> bool:
        """Whether its attention explains a label better than Grad-CAM does, so that it is the default."""
        return self.has_attention

    @property
    def has_attention(self) -> bool:
        """Whether `attention_to_places` is defined."""
        return type(self).attention_to_places is not Head.attention_to_places


class ByPlace(NamedTuple):
    """Logits as sums: `logits` [B, L] = the sum over places of `added_BLP` + `rest_BL`, which belongs to no place."""

    added_BLP: Tensor
    rest_BL: Tensor

    @classmethod
    def of_average(cls, features_BFP: Tensor, weight_LF: Tensor, bias_L: Tensor) -> "ByPlace":
        """Return the logits of a linear layer on the mean over places."""
        return cls(weight_LF @ features_BFP / features_BFP.shape[2], bias_L.expand(len(features_BFP), -1))


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


def build_head(spec: HeadSpec, num_features: int, num_labels: int, start: Start | None = None) -> Head:
    """Return the head that `spec` names, initialised from `start`.

    Raises ModelError if the shapes of `start` do not fit.
    """
    head = choose(HEADS, spec.name, "head", ModelError)(num_features, num_labels, spec, start or Start())
    head.family = spec.family
    return head


def prior_log_odds(start: Start, num_labels: int) -> NDArray[Any]:
    """Return the log odds of the prevalences [L] that a fresh head starts from; 0 where they are unknown."""
    return log_odds(start.prior(num_labels))


def by_frequency(start: Start, num_labels: int) -> Tensor:
    """Return the place [L] of each label, as float32, if labels are sorted by prevalence, the most frequent first."""
    order_L = np.argsort(-start.prior(num_labels), kind="stable")
    return torch.from_numpy(np.argsort(order_L).astype(np.float32))


def constant(values: Tensor) -> nn.Parameter:
    """Return `values` as a parameter that is saved but not trained; unlike a buffer, DDP does not send it at every step."""
    return nn.Parameter(values.detach(), requires_grad=False)


def log_odds(probabilities: NDArray[Any]) -> NDArray[Any]:
    clipped = np.clip(np.asarray(probabilities, dtype=np.float64), RAREST, 1 - RAREST)
    return np.log(clipped) - np.log1p(-clipped)


def set_values(parameter: Tensor, values: NDArray[Any], what: str, shape: tuple[int, ...] | None = None) -> None:
    shape = shape or tuple(parameter.shape)
    if values.shape != shape:
        raise ModelError(f"{what} has shape {values.shape}, but the head needs {shape}; use the same labels and components")
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(np.array(values)).reshape(parameter.shape))


HEADS: PartTable[Callable[..., Head]] = PartTable("HEADS", {})  # each module of this package adds its own
