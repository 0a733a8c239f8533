"""A mixture in an exported graph. N images, L labels, K components."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor

from rayprob.probability.calibration.mixture import MixtureCalibrator
from rayprob.probability.distributions.distribution import LabelDistribution
from rayprob.probability.graphs.probabilities import Probabilities, constant


class MixtureProbabilities(Probabilities):
    """The parameters of a mixture, calibrated by scales and a shift, and its marginals.

    mixing_weights [N, K] and component_probabilities [N, K, L] determine the joint distribution:
    sum_k mixing_weights_k prod_l Bernoulli(component_probabilities_kl).
    """

    names = ("marginals", "mixing_weights", "component_probabilities")

    def __init__(self, calibrator: MixtureCalibrator) -> None:
        super().__init__()
        self.mixing_scale = calibrator.mixing_scale
        self.scale_L, self.shift_L = constant(calibrator.scale_L), constant(calibrator.shift_L)

    def forward(self, outputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Return marginals, mixing weights and component probabilities."""
        mixing_NK = torch.softmax(outputs["mixing_logits"].double() * self.mixing_scale, dim=1)
        component_NKL = torch.sigmoid(outputs["component_logits"].double() * self.scale_L + self.shift_L)
        marginals_NL = (mixing_NK.unsqueeze(2) * component_NKL).sum(dim=1)
        return marginals_NL.float(), mixing_NK.float(), component_NKL.float()

    @staticmethod
    def expected(distribution: LabelDistribution) -> dict[str, NDArray[Any]]:
        """Return marginals, mixing weights and component probabilities."""
        mixing_NK, component_NKL = np.exp(distribution.log_mixing_BK), expit(distribution.component_logits_BKL)
        return dict(zip(MixtureProbabilities.names, (distribution.marginals(), mixing_NK, component_NKL), strict=True))
