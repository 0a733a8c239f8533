"""Which sample is in which split: a pure function of the samples' ids and of the recipe."""

import numpy as np

from rayprob.arrays import Rows
from rayprob.data.building.recipe import Holdout
from rayprob.data.sources.image import SourceImages
from rayprob.errors import SourceError
from rayprob.seeds import derive, derive_all

HOLDOUT = "holdout"


def in_holdout(sample_id: int, fraction: float) -> bool:
    """Return whether a hash of the id falls below `fraction`: a smaller holdout is a subset of a larger one."""
    return derive(0, HOLDOUT, sample_id) < fraction * 2**63


def with_holdout(source: str, images: SourceImages, holdout: Holdout | None) -> dict[str, Rows]:
    """Return which images of `source` are in which split, as row numbers: all of them, or without those that become `holdout`.

    Raises SourceError where either would be empty.
    """
    if not holdout or holdout.of != source:
        return {source: np.arange(len(images))}
    is_held_N = derive_all(0, HOLDOUT, last=images.ids_N) < holdout.fraction * 2**63
    held, rest = np.flatnonzero(is_held_N), np.flatnonzero(~is_held_N)
    if not len(held) or not len(rest):
        raise SourceError(
            f"a holdout of {holdout.fraction:.3g} leaves {len(rest)} of the {len(images)} images in {source} and "
            f"{len(held)} in holdout; change holdout.fraction or write holdout: null"
        )
    return {source: rest, HOLDOUT: held}
