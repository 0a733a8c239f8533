"""The sizes of objects in a split. N samples, L labels."""

import numpy as np
from numpy.typing import NDArray

from rayprob.data.manifest.dataset import Manifest


def largest_areas(manifest: Manifest, sample_ids_N: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the area in px2 of the largest object of each label in each sample [N, L]; nan where there is none."""
    areas_NL = np.full((len(manifest), len(manifest.label_space)), np.nan)
    rows = np.repeat(np.arange(len(manifest)), np.diff(manifest.labels.starts))
    areas_NL[rows, manifest.labels.values] = manifest.label_areas_px2.values
    order = np.argsort(manifest.sample_ids_N)
    return areas_NL[order[np.searchsorted(manifest.sample_ids_N, sample_ids_N, sorter=order)]]
