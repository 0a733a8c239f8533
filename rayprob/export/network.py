"""A bundle as one module of plain tensor operations: images -> calibrated probabilities. N images, K components, L labels."""

from typing import cast

from torch import Tensor, nn

from rayprob.export.squash import Squash
from rayprob.models.classifier import Classifier
from rayprob.probability.families import family_of
from rayprob.runs.bundle import Bundle


class Graph(nn.Module):
    """Images uint8 [N, H, W, 3], RGB -> the outputs that `probabilities.names` lists, in float32; marginals [N, L] first."""

    def __init__(self, bundle: Bundle) -> None:
        """Raise ModelError for a family or calibrator that has no graph."""
        super().__init__()
        self.squash = Squash(bundle.transform_spec.size_px)
        self.classifier: Classifier = bundle.classifier
        self.probabilities = family_of(bundle.classifier.family).build_graph(bundle.calibrator)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs in order."""
        return cast(tuple[Tensor, ...], self.probabilities(self.classifier(self.squash(images))))
