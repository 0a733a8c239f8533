"""Joint distributions without components: answers that need the whole joint come from label sets drawn from it.

B images, S label sets drawn per image, L labels. A label set drawn is a component of weight 1 / S whose labels are certain.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayprob.arrays import Bools, Floats
from rayprob.probability.distributions import expected_f1, information
from rayprob.probability.distributions.distribution import LabelDistribution, MixtureDistribution
from rayprob.probability.distributions.evidence import Evidence
from rayprob.seeds import derive

NUM_DRAWN = 64


@dataclass(frozen=True, eq=False)
class DrawnSets:
    """Label sets drawn label by label, and the sum of the entropies, in nats, of the labels given those drawn before them."""

    sets_BSL: Bools
    entropy_BS: Floats


class DrawnMixture(MixtureDistribution):
    """Label sets drawn from a distribution, as components: a condition that none of them meets may still be possible."""

    is_sampled = True

    def rebuilt(self, log_mixing_BK: Floats, component_logits_BKL: NDArray[Any]) -> "DrawnMixture":
        return DrawnMixture(log_mixing_BK, component_logits_BKL)


class DrawnDistribution(LabelDistribution):
    """A distribution that is known by its marginals, by the probability of a label set, and by drawing from it.

    Answers by component (counts, expected F1, pairs of labels, reports) are those of NUM_DRAWN label sets per image, the same
    in each process and for any batch. A probability p among them has a standard error of at most sqrt(p (1 - p) / NUM_DRAWN).
    """

    is_sampled = True
    notes = (
        f"expected F1, the entropy and answers about many labels at once are estimated from {NUM_DRAWN} label sets that the "
        f"model draws; a probability p then has a standard error of up to sqrt(p (1 - p) / {NUM_DRAWN})",
    )

    @abstractmethod
    def draws(self, uniform_BSL: Floats) -> DrawnSets:
        """Return the label sets that numbers in [0, 1), [1 or B, S, L], choose: a label is present if its number is below
        its probability given the labels drawn before it.
        """

    @abstractmethod
    def __getitem__(self, rows: slice | NDArray[Any] | list[int]) -> "DrawnDistribution": ...

    @abstractmethod
    def condition(self, evidence: Evidence | Mapping[int, bool]) -> "DrawnDistribution":
        """Return the distributions given the evidence."""

    @cached_property
    def as_drawn(self) -> DrawnSets:
        """NUM_DRAWN label sets per image, spread evenly over each label's probability (McKay et al., Technometrics 1979)."""
        random = np.random.default_rng(derive(0, "label sets", self.family))
        stratum_SL = random.permuted(np.tile(np.arange(NUM_DRAWN)[:, None], self.num_labels), axis=0)
        return self.draws((stratum_SL + random.random(stratum_SL.shape))[None] / NUM_DRAWN)

    @property
    def as_mixture(self) -> DrawnMixture:
        """The label sets drawn, as components."""
        return DrawnMixture(self.log_mixing_BK, self.component_logits_BKL)

    @property
    def num_components(self) -> int:
        return NUM_DRAWN

    @property
    def log_mixing_BK(self) -> Floats:
        return np.full((len(self), NUM_DRAWN), -np.log(NUM_DRAWN))

    @property
    def component_logits_BKL(self) -> NDArray[Any]:
        return np.where(self.as_drawn.sets_BSL, np.float32(np.inf), np.float32(-np.inf))

    def rebuilt(self, log_mixing_BK: Floats, component_logits_BKL: NDArray[Any]) -> MixtureDistribution:
        """Return a mixture with other parameters."""
        return MixtureDistribution(log_mixing_BK, component_logits_BKL)

    def best_f1_sets(self) -> expected_f1.F1Sets:
        """Return the label set of each image with the largest expected F1 over the label sets drawn, and that F1."""
        return expected_f1.joined([self[rows].as_mixture.best_f1_sets() for rows in self.chunks()])

    def sample(self, num_sets: int, seed: int) -> Bools:
        uniform_BSL = np.random.default_rng(seed).random((len(self), num_sets, self.num_labels))
        parts = [self[rows].draws(uniform_BSL[rows]).sets_BSL for rows in self.chunks()]
        return np.concatenate(parts).transpose(1, 0, 2)

    def entropy(self, *, num_samples: int = NUM_DRAWN, seed: int = 0) -> information.Estimate:
        """Return the entropy of each joint distribution in nats, with its standard error [B].

        By the chain rule it is the mean, over label sets drawn, of the summed entropies of each label given those before it.
        """
        random = np.random.default_rng(seed)
        uniform_1SL = random.random((1, num_samples, self.num_labels))
        drawn_BS = np.concatenate([self[rows].draws(uniform_1SL).entropy_BS for rows in self.chunks()])
        spread_B = drawn_BS.std(axis=1, ddof=1) if num_samples > 1 else np.full(len(self), np.nan)
        return information.Estimate(drawn_BS.mean(axis=1), spread_B / np.sqrt(num_samples))
