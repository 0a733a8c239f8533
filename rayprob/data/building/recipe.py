"""A recipe: the YAML file that says how a dataset is made. Relative paths count from the folder where the command runs."""

import re
from math import isclose
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from rayprob.config.kinds import RECIPE, FileKind
from rayprob.config.spec import PluginSpec, Spec
from rayprob.data.sources.formats import AnySource
from rayprob.images.reading import ImageReading, ordered
from rayprob.registry import unknown

HOLDOUT = "holdout"
NAME = r"^[a-z0-9][a-z0-9_-]*$"


By = Literal["hash", "stratified"]


class Holdout(Spec):
    """A split cut out of another one: the same images for every seed, every machine and every order of the source."""

    later_keys: ClassVar[frozenset[str]] = frozenset({"by"})

    of: str = "train"
    """The split that holdout images are taken from."""
    fraction: float = Field(default=0.05, gt=0, lt=1)
    """The fraction of its images that become holdout."""
    by: By = "hash"
    """hash: by the sample ids alone. stratified: so that holdout and the rest have the same prevalence of every label."""


class Divide(Spec):
    """One split divided into several: by fractions, by files with the names of images, or both.

    Where others are added and all is built again, an image keeps its split by `hash`, and may not by `stratified`; where the
    dataset grows (`rayprob shard --grow`), it always does.
    """

    of: str
    """The split that is divided; its name may be one of those in `into`."""
    into: dict[str, float | str] = Field(min_length=2)
    """Each new split, with the fraction of its images, or a text file with the names of its images, one per line."""
    by: By = "hash"
    """How fractions are dealt out: hash or stratified, as for holdout. Images in files of names are not dealt out."""

    @model_validator(mode="after")
    def _fractions_fit(self) -> Self:
        fractions = [part for part in self.into.values() if not isinstance(part, str)]
        if wrong := [part for part in fractions if not 0 < part <= 1]:
            raise ValueError(f"into has the fraction {wrong[0]:g}; fractions are above 0 and at most 1")
        if fractions and not isclose(sum(fractions), 1, abs_tol=1e-6):
            raise ValueError(
                f"the fractions in into sum to {sum(fractions):g}; they must sum to 1, over the images that no file names"
            )
        return self


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

    later_keys: ClassVar[frozenset[str]] = PluginSpec.later_keys | {"labels", "divide", "duplicates", "window"}
    file_kind: ClassVar[FileKind | None] = RECIPE

    name: str = Field(pattern=NAME)
    """Name of the dataset: lower-case letters, digits, - and _."""
    splits: dict[str, AnySource] = Field(min_length=1)
    """The splits by name, each with its source."""
    labels: list[str] | Literal["union"] | None = None
    """Labels in the order of columns; others are dropped. union joins those of splits that differ; null takes the source's."""
    target: str | None = None
    """Folder or URI to build in; by default shards/NAME."""
    divide: Divide | None = None
    """Divides a split into several, before holdout is taken; null takes the splits as they are."""
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
    window: Annotated[tuple[int, int] | None, AfterValidator(ordered)] = None
    """Values of 16-bit grey that become black and white, such as [0, 4095] for 12 bits; null keeps the upper 8 bits."""
    check: Literal["decode", "header"] = "decode"
    """How to check each image: decode reads every pixel, header reads its dimensions only."""
    allow_rejects: int = Field(default=0, ge=0)
    """Fail the build when more images than this are unreadable."""
    duplicates: Literal["report", "drop", "fail"] = "report"
    """What to do with images that have the same bytes: list them, drop all but the one in an evaluation split, or fail."""
    seed: int = 0
    """Seed of the order in which samples are written to shards."""

    @property
    def root(self) -> str:
        """Where the dataset is built: `target`, or `shards/<name>`."""
        return self.target or f"shards/{self.name}"

    @property
    def split_names(self) -> list[str]:
        """The names of all splits of the dataset but holdout."""
        given = [split for split in self.splits if not self.divide or split != self.divide.of]
        return [*given, *(self.divide.into if self.divide else ())]

    @property
    def reading(self) -> ImageReading:
        """How the images of the dataset are read: upright, and 16-bit grey by `window`."""
        return ImageReading("upright", self.window)

    @model_validator(mode="after")
    def _splits_fit(self) -> Self:
        if self.divide and self.divide.of not in self.splits:
            raise ValueError(f"divide: {unknown(self.divide.of, self.splits, 'split')}")
        names = self.split_names
        bad = [split for split in [*self.splits, *names] if not re.fullmatch(NAME, split)]
        if bad:
            raise ValueError(f"split name {bad[0]!r} cannot name a shard; use lower-case letters, digits, - and _")
        if twice := [split for split in names if names.count(split) > 1]:
            raise ValueError(f"divide.into has the split {twice[0]!r}, which `splits` has as well; give it another name")
        if self.holdout and self.holdout.of not in names:
            raise ValueError(f"holdout.of is {self.holdout.of!r}; allowed: {', '.join(names)}, or holdout: null")
        if self.holdout and HOLDOUT in names:
            raise ValueError("there is a split named holdout already; write holdout: null to use it")
        if self.encode and (in_place := [split for split, source in self.splits.items() if source.in_place]):
            raise ValueError(
                f"splits.{in_place[0]} has copy: false, which leaves images as they are, and encode writes new ones; remove one"
            )
        return self
