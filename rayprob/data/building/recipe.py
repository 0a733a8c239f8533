"""A recipe: the YAML file that says how a dataset is made. Relative paths count from the folder where the command runs."""

import re
from typing import Literal, Self

from pydantic import Field, model_validator

from rayprob.config.spec import PluginSpec, Spec

NAME = r"^[a-z0-9][a-z0-9_-]*$"


class Expected(Spec):
    """How many images the annotations of a split must state, so that a partial download is found before it is sharded."""

    labelled: int = Field(ge=0)
    unlabelled: int = Field(ge=0)


class Source(Spec):
    """One split in COCO layout: a folder of JPEG images and an annotations file; paths or URIs."""

    images: str
    annotations: str
    expect: Expected | None = None


class Holdout(Spec):
    """A split cut out of another one by a hash of the sample_id: the same images for every seed and every machine."""

    of: str = "train"
    fraction: float = Field(default=0.05, gt=0, lt=1)


class Encoding(Spec):
    """Images are decoded, shrunk and encoded again: smaller and faster to read, but lossy."""

    short_side_px: int | None = Field(default=None, ge=16)
    quality: int = Field(default=90, ge=1, le=100)
    chroma: Literal["444", "422", "420"] = "420"


class Recipe(PluginSpec):
    """How a dataset is made: from what, into which shards, and what is allowed to be wrong."""

    name: str = Field(pattern=NAME)
    splits: dict[str, Source] = Field(min_length=1)
    target: str | None = None
    holdout: Holdout | None = Holdout()
    keep_unlabelled: bool = False
    shard_bytes: int = Field(default=64 * 2**20, ge=1)
    max_shard_samples: int = Field(default=1000, ge=1)
    encode: Encoding | None = None
    check: Literal["decode", "header"] = "decode"
    allow_rejects: int = Field(default=0, ge=0)
    seed: int = 0

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
        return self
