"""Independent labels under a label prior in an exported graph. N images, L labels, K components, G groups, T = 16 label sets.

Labels are taken four at a time, as in `priors.label_groups`: the largest tensors are [G, N, K], a quarter of [N, K, L].
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from rayprob.probability.calibration.prior import PriorCalibrator
from rayprob.probability.distributions.distribution import LabelDistribution
from rayprob.probability.distributions.tilted import TiltedDistribution
from rayprob.probability.graphs.independent import AffineProbabilities
from rayprob.probability.graphs.probabilities import Probabilities, constant
from rayprob.probability.priors.label_groups import GROUP, PRESENT_TJ, STEEPEST, LabelGroups


class PriorProbabilities(Probabilities):
    """Calibrated logits and the mixture under the prior, whose components differ from the logits by fixed offsets.

    logits [N, L], mixing_weights [N, K] and component_offsets [K, L] determine the joint distribution:
    sum_k mixing_weights_k prod_l Bernoulli(sigmoid(logits_l + component_offsets_kl)). For marginals and weights, logits are
    clipped to +-100.
    """

    names = ("marginals", "logits", "mixing_weights", "component_offsets")

    def __init__(self, calibrator: PriorCalibrator) -> None:
        super().__init__()
        self.affine = AffineProbabilities(calibrator.affine)
        strength_11 = np.full((1, 1), calibrator.strength)
        groups = LabelGroups.of(calibrator.strength * calibrator.prior.odds_KL)
        self.offsets_KL, self.factors_GTK = constant(groups.tilt_KL), constant(groups.factors_GTK)
        self.log_base_K = constant(calibrator.prior.log_base(strength_11)[0] + groups.log_scale_K)
        self.present_TJ = constant(PRESENT_TJ)

    def forward(self, outputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Return marginals, calibrated logits, mixing weights and the components' offsets."""
        logits_NL = self.affine.logits(outputs)
        states_GNT = self._states(torch.clamp(logits_NL, -STEEPEST, STEEPEST))
        products_GNK = states_GNT @ self.factors_GTK
        mixing_NK = torch.softmax(self.log_base_K + torch.log(products_GNK).sum(dim=0), dim=1)
        joint_GNT = states_GNT * ((mixing_NK / products_GNK) @ self.factors_GTK.transpose(1, 2))
        present_NGJ = (joint_GNT @ self.present_TJ).permute(1, 0, 2)
        marginals_NL = torch.clamp(present_NGJ.flatten(1)[:, : self.offsets_KL.shape[1]], max=1.0)
        return marginals_NL.float(), logits_NL.float(), mixing_NK.float(), self.offsets_KL.float()

    def _states(self, logits_NL: Tensor) -> Tensor:
        """Return P(label set of the group) [G, N, T] of independent labels."""
        num_labels = logits_NL.shape[1]
        padded_NL = pad(logits_NL, (0, -num_labels % GROUP), value=-STEEPEST)
        logits_NGJ = padded_NL.reshape(-1, padded_NL.shape[1] // GROUP, GROUP)
        states_NGT = torch.ones_like(logits_NGJ[:, :, :1])
        for place in range(GROUP):
            logit_NG1 = logits_NGJ[:, :, place : place + 1]
            sides = (states_NGT * torch.sigmoid(-logit_NG1), states_NGT * torch.sigmoid(logit_NG1))
            states_NGT = torch.cat(sides, dim=2)
        return states_NGT.permute(1, 0, 2)

    @staticmethod
    def expected(distribution: LabelDistribution) -> dict[str, NDArray[Any]]:
        """Return marginals, calibrated logits, mixing weights and the components' offsets."""
        assert isinstance(distribution, TiltedDistribution)
        offsets_KL = distribution.strength_B1[:1] * distribution.prior.odds_KL
        found = distribution.marginals(), distribution.logits_BL, np.exp(distribution.log_mixing_BK), offsets_KL
        return dict(zip(PriorProbabilities.names, found, strict=True))
