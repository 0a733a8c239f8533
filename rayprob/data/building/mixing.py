"""How far the labels of samples depend on the tar that contains them. L labels.

rayprob shuffles samples before it writes shards. Tars from elsewhere are often sorted, by class or by day, and training mixes
only some tars at a time.
"""

import logging
from collections.abc import Collection, Iterable

import numpy as np
import pyarrow as pa

from rayprob.data.manifest.columns import Ragged

log = logging.getLogger(__name__)
MOST_SHARE = 0.2


class Mixing:
    """Sums over the tars of a split."""

    def __init__(self, num_labels: int) -> None:
        self._present_L = np.zeros(num_labels, dtype=np.int64)
        self._tars = self._samples = 0
        self._within_means = 0.0

    def add(self, table: pa.Table) -> None:
        """Add the rows of a tar, at least one."""
        present_L = np.bincount(Ragged.from_column(table["labels"]).values, minlength=len(self._present_L))
        self._tars += 1
        self._samples += len(table)
        self._present_L += present_L
        self._within_means += float((present_L**2).sum()) / len(table)

    @property
    def share_between(self) -> float:
        """The share of the variance of labels between tars, beyond chance: about 0 for mixed tars, 1 where a tar decides.

        It is Kelley's epsilon squared, 1 - MS within / MS total of an analysis of variance, with sums of squares over labels.
        """
        if not 1 < self._tars < self._samples:
            return 0.0
        num_present = int(self._present_L.sum())
        total = num_present - float((self._present_L**2).sum()) / self._samples
        within = (num_present - self._within_means) / (self._samples - self._tars)
        return 1 - within / (total / (self._samples - 1)) if total else 0.0


def warn_of_sorted(tables: Iterable[pa.Table], splits: Collection[str], num_labels: int) -> None:
    """Log a warning for each of the splits whose labels differ much between its tars; a table has the rows of one."""
    found = {split: Mixing(num_labels) for split in splits}
    for table in tables if found else ():
        if (split := table["split"][0].as_py()) in found:
            found[split].add(table)
    for split, mixing in found.items():
        if mixing.share_between > MOST_SHARE:
            log.warning(
                "%s: its tars are sorted: they explain %.0f %% of the variance of its labels, where mixed tars explain 0 %%. "
                "Training mixes stream.lanes x stream.window_shards tars at a time: raise window_shards, or copy the images, "
                "which shuffles them",
                split,
                100 * mixing.share_between,
            )
