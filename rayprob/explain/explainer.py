"""What every method shares: its two questions, and the table of methods by name. C labels, H x W the grid of a map."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rayprob.errors import ModelError
from rayprob.models.classifier import Classifier
from rayprob.models.pooling import grid_of
from rayprob.models.precision import full_precision
from rayprob.probability.families import family_of
from rayprob.registry import PartTable


@dataclass(frozen=True, eq=False)
class LabelMaps:
    """The maps of C labels, their logits, and the parts of these that belong to no place."""

    grid_CHW: Tensor
    logit_C: Tensor
    rest_C: Tensor | None = None


class Explainer(ABC):
    """A method that maps where a label is seen."""

    exact: ClassVar[bool] = False  # whether a logit is the sum of its map and rest

    @abstractmethod
    def why_not(self, classifier: Classifier) -> str:
        """Return why the method cannot explain this classifier, to follow its name in a sentence; "" if it can."""

    @abstractmethod
    def maps(self, classifier: Classifier, image_1CHW: Tensor, columns_C: Tensor) -> LabelMaps:
        """Return the maps of the labels in `columns_C`, for an image in 0..1 and a classifier in evaluation mode."""


def log_odds(classifier: Classifier, features: Tensor) -> Tensor:
    """Return the log-odds of the marginals [B, L] for features, with gradients.

    Raises ModelError for a family without them.
    """
    compute = family_of(classifier.family).log_odds
    if compute is None:
        raise ModelError(f"heads of this family {why_no_log_odds(classifier)}")
    with full_precision(features):
        return compute(classifier.head(features))


def why_no_log_odds(classifier: Classifier) -> str:
    """Return why the marginals of a classifier have no gradients; "" if they have."""
    if family_of(classifier.family).log_odds is not None:
        return ""
    return f"needs the gradient of a label's log-odds, which the family {classifier.family} does not state"


def import_captum() -> None:
    """Raise ModelError with how to install captum, unless it is there."""
    try:
        import captum.attr  # noqa: F401
    except ImportError as error:
        raise ModelError(
            "gradcam and integrated_gradients need the package captum, which is missing; run pip install 'rayprob[explain]'"
        ) from error


def in_grid(values_CP: Tensor) -> Tensor:
    """Return values of places as maps [C, H, W]."""
    return values_CP.reshape(len(values_CP), *grid_of(values_CP.shape[1]))


def plain_log_odds(classifier: Classifier, maps_BFhw: Tensor) -> Tensor:
    """Return the log-odds of the marginals [B, L] for the maps that `pooling.plain` pools."""
    return log_odds(classifier, torch.as_tensor(classifier.pooling.plain(maps_BFhw)))


EXPLAINERS: PartTable[type[Explainer]] = PartTable("EXPLAINERS", {})  # each module of `methods` adds its own
