"""Which sample is in which split: a pure function of the samples' ids and of the recipe."""

from collections.abc import Sequence

from rayprob.data.building.recipe import Holdout
from rayprob.data.sources.image import SourceImage
from rayprob.errors import SourceError
from rayprob.seeds import derive


def in_holdout(sample_id: int, fraction: float) -> bool:
    """Return whether a hash of the id falls below `fraction`: a smaller holdout is a subset of a larger one."""
    return derive(0, "holdout", sample_id) < fraction * 2**63


def with_holdout(source: str, members: Sequence[SourceImage], holdout: Holdout | None) -> dict[str, list[SourceImage]]:
    """Return the images of `source` by split: all of them, or without those that become `holdout`.

    Raises SourceError where either would be empty.
    """
    if not holdout or holdout.of != source:
        return {source: list(members)}
    held = [image for image in members if in_holdout(image.sample_id, holdout.fraction)]
    rest = [image for image in members if not in_holdout(image.sample_id, holdout.fraction)]
    if not held or not rest:
        raise SourceError(
            f"a holdout of {holdout.fraction:.3g} leaves {len(rest)} of the {len(members)} images in {source} and "
            f"{len(held)} in holdout; change holdout.fraction or write holdout: null"
        )
    return {source: rest, "holdout": held}
