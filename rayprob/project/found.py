"""The contents of a folder of labelled images in any format: the facts from which a recipe and a run file are written."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True)
class FoundSplit:
    """One split of a source, as a recipe names it."""

    keys: dict[str, Any]  # those of the recipe
    num_labelled: int
    num_unlabelled: int
    short_sides_px: tuple[int, ...]  # of the images whose size is in the source
    num_unknown: int = 0  # pairs of image and label of which the source does not know whether the label is present
    rest: str = "absent"  # what labels are that an image does not list: absent or unknown
    prevalence: Mapping[str, float] = field(default_factory=dict)  # of each label among the images for which it is known

    @property
    def images(self) -> str:
        """The folder or files that contain the images."""
        return str(self.keys["images"])


@dataclass(frozen=True)
class Found:
    """The splits of a source by name, `train` first, and its labels."""

    folder: str
    splits: dict[str, FoundSplit]
    labels: tuple[str, ...]

    @property
    def num_train(self) -> int:
        """Number of labelled training images, before some are held out."""
        return self.splits["train"].num_labelled

    @property
    def short_side_px(self) -> int | None:
        """The median short side of the training images; None if the source has no sizes."""
        sides = self.splits["train"].short_sides_px
        return round(median(sides)) if sides else None
