"""A bundle as one module of plain tensor operations: images of any size -> calibrated probabilities. N images, K, L as ever."""

from typing import Any, cast

import numpy as np
from torch import Tensor, nn

from rayprob.errors import ModelError
from rayprob.export.independent import AffineProbabilities, IsotonicProbabilities
from rayprob.export.mixture import MixtureProbabilities
from rayprob.export.prior import PriorProbabilities
from rayprob.export.probabilities import Probabilities
from rayprob.export.squash import Squash
from rayprob.models.classifier import Classifier
from rayprob.probability.calibration.affine import AffineCalibrator
from rayprob.probability.calibration.isotonic import IsotonicCalibrator
from rayprob.probability.calibration.mixture import MixtureCalibrator
from rayprob.probability.calibration.prior import PriorCalibrator
from rayprob.registry import choose
from rayprob.runs.bundle import Bundle

UNCALIBRATED = {
    "bernoulli": AffineCalibrator("identity", np.ones(1), np.zeros(1)),
    "mixture": MixtureCalibrator("identity", 1.0, np.ones(1), np.zeros(1)),
}
GRAPHS: dict[type[Any], type[Probabilities]] = {
    AffineCalibrator: AffineProbabilities,
    IsotonicCalibrator: IsotonicProbabilities,
    MixtureCalibrator: MixtureProbabilities,
    PriorCalibrator: PriorProbabilities,
}


class Graph(nn.Module):
    """Images uint8 [N, H, W, 3], RGB -> the outputs that `graph_of` the bundle names, in float32; marginals [N, L] first."""

    def __init__(self, bundle: Bundle) -> None:
        """Raise ModelError for a calibrator that has no graph."""
        super().__init__()
        self.squash = Squash(bundle.transform_spec.size_px)
        self.classifier: Classifier = bundle.classifier
        self.probabilities = graph_of(bundle)(calibrator_of(bundle))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs in their order."""
        return cast(tuple[Tensor, ...], self.probabilities(self.classifier(self.squash(images))))


def calibrator_of(bundle: Bundle) -> Any:
    """Return the bundle's calibrator, or one that changes nothing."""
    return bundle.calibrator or choose(UNCALIBRATED, bundle.classifier.family, "family", ModelError)


def graph_of(bundle: Bundle) -> type[Probabilities]:
    """Return what the bundle's probabilities are in a graph. Raises ModelError for a calibrator that has none."""
    calibrator = calibrator_of(bundle)
    graph = GRAPHS.get(type(calibrator))
    if graph is None or graph.family != bundle.classifier.family:
        raise ModelError(
            f"calibrator {calibrator.name!r} has no graph; calibrate with --prior none and one of identity, temperature, "
            "shared_platt, platt"
        )
    return graph
