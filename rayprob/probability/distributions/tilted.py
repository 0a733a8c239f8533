"""What a label prior makes of independent labels: a mixture whose components differ from an image's logits by fixed offsets.

B images, L labels, K components. An array [B, K, L] exists for a chunk of images at a time only.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rayprob.arrays import Floats
from rayprob.probability.distributions.distribution import LabelDistribution, MixtureDistribution
from rayprob.probability.distributions.evidence import Evidence
from rayprob.probability.priors.prior import LabelPrior


class TiltedDistribution(LabelDistribution):
    """Independent labels under a prior: component logits logits_BL + strength_B1 odds_KL, and their mixing weights."""

    family = "mixture"

    def __init__(
        self, prior: LabelPrior, logits_BL: ArrayLike, strength_B1: ArrayLike, log_mixing_BK: Floats | None = None
    ) -> None:
        """Without `log_mixing_BK`, the mixing weights are those of no evidence."""
        self.prior = prior
        self.logits_BL = np.asarray(logits_BL, dtype=np.float64)
        self.strength_B1 = np.broadcast_to(np.asarray(strength_B1, dtype=np.float64), (len(self.logits_BL), 1))
        is_new = log_mixing_BK is None
        self._log_mixing_BK = prior.log_mixing(self.logits_BL, self.strength_B1) if is_new else np.asarray(log_mixing_BK)

    @property
    def log_mixing_BK(self) -> Floats:
        return self._log_mixing_BK

    @property
    def component_logits_BKL(self) -> NDArray[Any]:
        return self.logits_BL[:, None] + self.strength_B1[:, None] * self.prior.odds_KL

    @property
    def num_labels(self) -> int:
        return int(self.logits_BL.shape[1])

    def __len__(self) -> int:
        return len(self.logits_BL)

    def __getitem__(self, rows: slice | NDArray[Any] | list[int]) -> "TiltedDistribution":
        return TiltedDistribution(self.prior, self.logits_BL[rows], self.strength_B1[rows], self._log_mixing_BK[rows])

    def rebuilt(self, log_mixing_BK: Floats, component_logits_BKL: NDArray[Any]) -> MixtureDistribution:
        """Return the mixture of other parameters, which need not share anything."""
        return MixtureDistribution(log_mixing_BK, component_logits_BKL)

    def condition(self, evidence: Evidence | Mapping[int, bool]) -> "TiltedDistribution":
        evidence, log_mixing_BK = self._given(evidence)
        certain_BL = np.where(evidence.values_BL, np.inf, -np.inf)
        logits_BL = np.where(evidence.known_BL, certain_BL, self.logits_BL)
        return TiltedDistribution(self.prior, logits_BL, self.strength_B1, log_mixing_BK)
