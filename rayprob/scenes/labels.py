"""The label sets of drawn scenes: a Bernoulli mixture fitted to COCO train2014, so their joint distribution is known exactly.

K components, L labels, N scenes: p(label set) = sum_k weights_K[k] * prod_l Bernoulli(label l; probabilities_KL[k, l]).
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rayprob.arrays import Bools, Floats
from rayprob.errors import SpecError
from rayprob.labels import COCO_80, LabelSpace

SHIPPED = Path(__file__).with_name("scene_labels.npz")  # made by benchmarks/fit_scene_labels.py


@dataclass(frozen=True, eq=False)
class SceneLabels:
    """A distribution over label sets of a label space; the empty label set is one of them."""

    label_space: LabelSpace
    weights_K: Floats
    probabilities_KL: Floats

    @classmethod
    def load(cls) -> "SceneLabels":
        """Return the shipped distribution over COCO's 80 labels."""
        with np.load(SHIPPED, allow_pickle=False) as arrays:
            weights_K, probabilities_KL = (arrays[name].astype(np.float64) for name in ("weights_K", "probabilities_KL"))
        return cls(COCO_80, weights_K / weights_K.sum(), probabilities_KL)

    @cached_property
    def marginals_L(self) -> Floats:
        """P(label present) of each label."""
        return np.asarray(self.weights_K @ self.probabilities_KL)

    @property
    def probability_of_empty(self) -> float:
        """P(no label at all)."""
        return float(self.weights_K @ np.prod(1 - self.probabilities_KL, axis=1))

    def restricted(self, num_labels: int) -> "SceneLabels":
        """Return the distribution of the `num_labels` most prevalent labels; exact, as a mixture sums the others out.

        With fewer labels, more label sets are empty, as in `probability_of_empty`. Raises SpecError.
        """
        if not 1 <= num_labels <= len(self.label_space):
            raise SpecError(f"num_labels is {num_labels}; allowed: 1 to {len(self.label_space)}")
        columns = np.sort(np.argsort(-self.marginals_L, kind="stable")[:num_labels])
        names, category_ids = self.label_space.names, self.label_space.category_ids
        space = LabelSpace(tuple(names[c] for c in columns), tuple(category_ids[c] for c in columns))
        return SceneLabels(space, self.weights_K, self.probabilities_KL[:, columns])

    def sample(self, seed: int, num_scenes: int) -> tuple[NDArray[np.int64], Bools]:
        """Return components [N] and label sets [N, L]. A larger `num_scenes` with the same seed begins with the same scenes."""
        uniform_NL = np.random.default_rng(seed).random((num_scenes, 1 + len(self.label_space)))
        component_N = np.searchsorted(np.cumsum(self.weights_K)[:-1], uniform_NL[:, 0], side="right")
        return component_N, uniform_NL[:, 1:] < self.probabilities_KL[component_N]

    def noise_rates(self, label_noise: float) -> tuple[float, Floats]:
        """Return P(a present label is dropped) and P(an absent label is added) [L], which keep each prevalence unchanged.

        A fraction `label_noise` of the present labels is dropped, and the same fraction of the annotated labels is false, so
        rare labels are not dominated by noise. Each label is dropped or added independently.
        """
        odds_L = self.marginals_L / (1 - self.marginals_L)
        return label_noise, np.minimum(label_noise * odds_L, 1.0)

    def add_noise(self, present_NL: Bools, label_noise: float, seed: int) -> Bools:
        """Return the label sets [N, L] as annotated under `label_noise`."""
        dropped, added_L = self.noise_rates(label_noise)
        uniform_NL = np.random.default_rng(seed).random(present_NL.shape)
        return np.where(present_NL, uniform_NL >= dropped, uniform_NL < added_L)
