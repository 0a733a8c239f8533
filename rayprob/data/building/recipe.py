"""A recipe: the YAML file that says how a dataset is made. Relative paths count from the folder where the command runs."""

import re
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from rayprob.config.spec import PluginSpec, Spec
from rayprob.data.sources.formats import AnySource

NAME = r"^[a-z0-9][a-z0-9_-]*$"


class Holdout(Spec):
    """A split cut out of another one by a hash of the sample_id: the same images for every seed and every machine."""

    of: str = "train"
    """The split that holdout images are taken from."""
    fraction: float = Field(default=0.05, gt=0, lt=1)
    """The fraction of its images that become holdout."""


class Encoding(Spec):
    """Images are decoded, shrunk and encoded again: smaller and faster to read, but lossy."""

    short_side_px: int | None = Field(default=None, ge=16)
    """Shrink images whose short side is longer than this; null keeps their size."""
    quality: int = Field(default=90, ge=1, le=100)
    """JPEG quality, 1 to 100."""
    chroma: Literal["444", "422", "420"] = "420"
    """Chroma subsampling: 444 keeps full colour resolution, 420 is the smallest."""


class Recipe(PluginSpec):
    """How a dataset is made: from what, into which shards, and what is allowed to be wrong.

    `read` and `parse` raise SpecError that lists every fault with its key.

    Example::

        recipe = rp.Recipe.read("shards/coco2014.yaml", ["target=s3://bucket/coco2014"])
        recipe.root                                         # s3://bucket/coco2014
    """

    later_keys: ClassVar[frozenset[str]] = PluginSpec.later_keys | {"labels"}

    name: str = Field(pattern=NAME)
    """Name of the dataset: lower-case letters, digits, - and _."""
    splits: dict[str, AnySource] = Field(min_length=1)
    """The splits by name, each with its source."""
    labels: list[str] | Literal["union"] | None = None
    """Labels in the order of columns; others are dropped. union joins those of splits that differ; null takes the source's."""
    target: str | None = None
    """Folder or URI to build in; by default shards/NAME."""
    holdout: Holdout | None = Holdout()
    """The split cut out of another one; null for no such split."""
    keep_unlabelled: bool = False
    """Keep images of which the source states no label, present or absent; without unknown labels, all are then absent."""
    shard_bytes: int = Field(default=64 * 2**20, ge=1)
    """Start a new shard once one has this many bytes."""
    max_shard_samples: int = Field(default=1000, ge=1)
    """Start a new shard once one has this many samples."""
    encode: Encoding | None = None
    """Re-encode images; null copies their bytes as they are."""
    check: Literal["decode", "header"] = "decode"
    """How to check each image: decode reads every pixel, header reads its dimensions only."""
    allow_rejects: int = Field(default=0, ge=0)
    """Fail the build when more images than this are unreadable."""
    seed: int = 0
    """Seed of the order in which samples are written to shards."""

    @property
    def root(self) -> str:
        """Where the dataset is built: `target`, or `shards/<name>`."""
        return self.target or f"shards/{self.name}"

    @model_validator(mode="after")
    def _splits_fit(self) -> Self:
        bad = [split for split in self.splits if not re.fullmatch(NAME, split)]
        if bad:
            raise ValueError(f"split name {bad[0]!r} cannot name a shard; use lower-case letters, digits, - and _")
        if self.holdout and self.holdout.of not in self.splits:
            raise ValueError(f"holdout.of is {self.holdout.of!r}; allowed: {', '.join(self.splits)}, or holdout: null")
        if self.holdout and "holdout" in self.splits:
            raise ValueError("there is a split named holdout already; write holdout: null to use it")
        if self.encode and (in_place := [split for split, source in self.splits.items() if source.in_place]):
            raise ValueError(
                f"splits.{in_place[0]} has copy: false, which leaves images as they are, and encode writes new ones; remove one"
            )
        return self
