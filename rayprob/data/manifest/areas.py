"""The sizes of objects in a split. N samples, L labels."""

import numpy as np
from numpy.typing import NDArray

from rayprob.data.joined.dataset import AnySplit
from rayprob.data.manifest.dataset import Manifest


def largest_areas(manifest: AnySplit, sample_ids_N: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the area in px2 of the largest object of each label in each sample [N, L]; nan without an object."""
    areas_NL = np.full((len(manifest), len(manifest.label_space)), np.nan)
    for places, number, _ in manifest.by_member(np.arange(len(manifest), dtype=np.int64)):
        member = manifest.members[number]
        areas_NL[np.ix_(places, member.columns)] = _areas_of(member.manifest)
    order = np.argsort(manifest.sample_ids_N)
    return areas_NL[order[np.searchsorted(manifest.sample_ids_N, sample_ids_N, sorter=order)]]


def _areas_of(manifest: Manifest) -> NDArray[np.float64]:
    areas_NL = np.full((len(manifest), len(manifest.label_space)), np.nan)
    rows = np.repeat(np.arange(len(manifest)), np.diff(manifest.labels.starts))
    areas_NL[rows, manifest.labels.values] = manifest.label_areas_px2.values
    return areas_NL
