"""A split as a part of what a stream reads: alone, or mixed with those of other datasets (data/mixture). L labels in all."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rayprob.arrays import Rows

if TYPE_CHECKING:
    from rayprob.data.manifest.dataset import Manifest


@dataclass(frozen=True, eq=False)
class Member:
    """The split of one dataset, and what it is among those that are read with it."""

    manifest: "Manifest"
    columns: Rows  # of its labels, among the L
    weight: float = 1.0  # how often an epoch goes through its samples
    id_mask: int = 0  # a sample id in the mixture is that in the dataset XOR this, so none of two datasets are equal

    @property
    def samples_per_epoch(self) -> int:
        """How many samples an epoch takes, those that it takes twice counted twice; at least one, if there is one."""
        num_samples = len(self.manifest)
        return max(1, math.floor(self.weight * num_samples + 0.5)) if num_samples else 0
