"""How far the labels of samples depend on the tar that they lie in. T tars, L labels.

We shuffle samples before we write shards. Tars of others are often sorted, by class or by day, and training mixes only some
tars at a time.
"""

import logging
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rayprob.data.manifest.columns import Ragged

log = logging.getLogger(__name__)
MOST_SHARE = 0.2


def warn_of_sorted(split: str, tables: Sequence[pa.Table], num_labels: int) -> None:
    """Log a warning where the labels of a split differ much between its tars; each table has the rows of one."""
    present_TL = np.stack([np.bincount(Ragged.from_column(table["labels"]).values, minlength=num_labels) for table in tables])
    share = share_between(present_TL, np.array([len(table) for table in tables]))
    if share > MOST_SHARE:
        log.warning(
            "%s: its tars are sorted: they explain %.0f %% of the variance of its labels, where mixed tars explain 0 %%. "
            "Training mixes stream.lanes x stream.window_shards tars at a time: raise window_shards, or copy the images, "
            "which shuffles them",
            split,
            100 * share,
        )


def share_between(present_TL: NDArray[np.int64], samples_T: NDArray[np.int64]) -> float:
    """Return the share of the variance of labels between tars, beyond chance: about 0 for mixed tars, 1 where a tar decides.

    It is Kelley's epsilon squared, 1 - MS within / MS total of an analysis of variance, with the sums of squares over labels.
    """
    num_tars, num_samples = len(samples_T), int(samples_T.sum())
    if not 1 < num_tars < num_samples:
        return 0.0
    mean_L = present_TL.sum(axis=0) / num_samples
    total = num_samples * float((mean_L * (1 - mean_L)).sum())
    between = float((samples_T[:, None] * (present_TL / samples_T[:, None] - mean_L) ** 2).sum())
    within = (total - between) / (num_samples - num_tars)
    return 1 - within / (total / (num_samples - 1)) if total else 0.0
