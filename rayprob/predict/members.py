"""Predictors: one bundle, one bundle with its head under dropout, or several bundles. B images, M members, F features."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rayprob.errors import ModelError
from rayprob.models.precision import full_precision
from rayprob.predict.reading import Input
from rayprob.probability.distributions.distribution import LabelDistribution, MixtureDistribution
from rayprob.runs.bundle import Bundle
from rayprob.seeds import derive

Images = Sequence[Tensor]  # one batch [B, 3, H, W] per input


@dataclass(frozen=True, eq=False)
class Forecast:
    """The distributions to answer from, and those of each member if there are several."""

    distribution: LabelDistribution
    members: tuple[LabelDistribution, ...] = ()

    def __getitem__(self, rows: list[int]) -> "Forecast":
        """Return the forecasts of the given images."""
        return Forecast(self.distribution[rows], tuple(member[rows] for member in self.members))


@dataclass(frozen=True, eq=False)
class Predictor:
    """Maps images, as each of the `inputs` takes them, to forecasts.

    `bundle` has the labels and rules; `why_no_guarantee` may be empty.
    """

    bundle: Bundle
    inputs: tuple[Input, ...]
    forecast: Callable[[Images], Forecast]
    num_members: int = 0
    why_no_guarantee: str = ""
    others: tuple[Bundle, ...] = ()  # of an ensemble, besides `bundle`

    @property
    def bundles(self) -> tuple[Bundle, ...]:
        """The bundles whose predictions it averages; often only one."""
        return (self.bundle, *self.others)


def input_of(bundle: Bundle) -> Input:
    """Return how a bundle takes its images."""
    return Input(bundle.transform_spec.size_px, bundle.reading)


def one_bundle(bundle: Bundle, device: torch.device) -> Predictor:
    """Return a predictor of one bundle."""
    network = _Network(bundle, device)
    return Predictor(bundle, (network.input,), lambda images: Forecast(network.distribution(images[0])))


def with_dropout(bundle: Bundle, device: torch.device, num_members: int, seed: int = 0) -> Predictor:
    """Return a predictor that answers as the bundle does, with its head under dropout as members (Gal, Ghahramani, ICML 2016).

    Each member drops the same features for every image, so images are comparable and their order does not matter; the
    features are computed once. Raises ModelError for a head without dropout and for fewer than two members.
    """
    rate = bundle.model_spec.head.dropout
    _require_several(num_members, "Monte Carlo dropout")
    if not rate:
        raise ModelError(
            "Monte Carlo dropout needs a head trained with dropout, but this bundle's head has dropout 0; "
            "train with model.head.dropout above 0, such as 0.2, or predict with an ensemble of several bundles"
        )
    network = _Network(bundle, device)
    kept_MF = _kept_features(num_members, bundle, rate, seed).to(device)

    def forecast(images: Images) -> Forecast:
        features = network.features(images[0])
        kept = kept_MF if features.ndim == 2 else kept_MF[:, :, None]
        return Forecast(network.of_features(features), tuple(network.of_features(features * kept_F) for kept_F in kept))

    return Predictor(bundle, (network.input,), forecast, num_members)


def ensemble(bundles: Sequence[Bundle], device: torch.device) -> Predictor:
    """Return a predictor of several bundles: an equal mixture of their distributions, with the rules of the first bundle.

    Raises LabelError if their labels differ, and ModelError for fewer than two.
    """
    _require_several(len(bundles), "an ensemble")
    for place, bundle in enumerate(bundles[1:], start=2):
        bundles[0].label_space.require_same(bundle.label_space, "bundle 1 of the ensemble", f"bundle {place}")
    networks = [_Network(bundle, device) for bundle in bundles]
    inputs = tuple(sorted({network.input for network in networks}, key=lambda one: (one.size_px, str(one.reading))))

    def forecast(images: Images) -> Forecast:
        images_of = dict(zip(inputs, images, strict=True))
        members = tuple(network.distribution(images_of[network.input]) for network in networks)
        return Forecast(equal_mixture(members), members)

    why_no_guarantee = "the guarantee was fitted for one bundle, not for an ensemble"
    return Predictor(bundles[0], inputs, forecast, len(bundles), why_no_guarantee, tuple(bundles[1:]))


def equal_mixture(members: Sequence[LabelDistribution]) -> LabelDistribution:
    """Return the equal mixture of the members: all their components, with the weights of each member scaled alike.

    Raises ModelError for a member without components, of which it would use a few label sets drawn from it.
    """
    drawn = sorted({member.family for member in members if member.is_sampled})
    if drawn:
        raise ModelError(
            f"an ensemble averages the components of its members, and the family {drawn[0]} has no components; "
            "predict with each bundle alone, or use heads such as bernoulli or mixture"
        )
    log_mixing_BK = np.concatenate([member.log_mixing_BK for member in members], axis=1)  # the softmax gives equal shares
    return MixtureDistribution(log_mixing_BK, np.concatenate([member.component_logits_BKL for member in members], axis=1))


class _Network:
    """A bundle's classifier on a device, in float32, channels_last and evaluation mode."""

    def __init__(self, bundle: Bundle, device: torch.device) -> None:
        self.bundle = bundle
        self.input = input_of(bundle)
        self._device = device
        self._classifier = bundle.classifier.to(device).to(memory_format=torch.channels_last).eval()

    def features(self, images_BCHW: Tensor) -> Tensor:
        with torch.inference_mode():
            moved = images_BCHW.to(self._device, non_blocking=True).contiguous(memory_format=torch.channels_last)
            return self._classifier.features(moved)

    def of_features(self, features: Tensor) -> LabelDistribution:
        with torch.inference_mode(), full_precision(features):
            outputs: Mapping[str, Any] = self._classifier.head(features)
        return self.bundle.distribution(outputs)

    def distribution(self, images_BCHW: Tensor) -> LabelDistribution:
        return self.of_features(self.features(images_BCHW))


def _kept_features(num_members: int, bundle: Bundle, rate: float, seed: int) -> Tensor:
    """Return each member's factors for the features [M, F]: 0, or 1 / (1 - rate), as in dropout."""
    num_features = bundle.classifier.num_features
    chance = np.random.default_rng(derive(seed, "mc-dropout", num_members))
    kept_MF = chance.random((num_members, num_features)) >= rate
    return torch.from_numpy((kept_MF / (1 - rate)).astype(np.float32))


def _require_several(num_members: int, what: str) -> None:
    if num_members < 2:
        raise ModelError(f"{what} needs at least 2 members; got {num_members}")
