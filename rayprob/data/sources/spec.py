"""The keys that a split of a recipe has in every format."""

from typing import ClassVar

from pydantic import Field

from rayprob.config.spec import Spec
from rayprob.data.sources.rows import Rest

DEFAULT = "coco"


class Expected(Spec):
    """How many images the annotations of a split must state, so that a partial download is found before it is sharded."""

    labelled: int = Field(ge=0)
    """Images with at least one label."""
    unlabelled: int = Field(ge=0)
    """Images without any label."""


class Source(Spec):
    """One split: where its images and labels lie, as paths or URIs, and in which format. Each format has keys of its own."""

    later_keys: ClassVar[frozenset[str]] = frozenset({"format", "rest"})

    images: str
    """The folder or URI that holds the images."""
    format: str = DEFAULT
    """The format: coco, table, voc, yolo, folders, huggingface or webdataset."""
    expect: Expected | None = None
    """How many images the annotations must state; the build fails otherwise."""
    rest: Rest | None = None
    """What the labels are that the source does not list for an image: absent or unknown; null for the format's own rule."""

    @property
    def in_place(self) -> bool:
        """Whether images stay in the files in which the source holds them, instead of being copied into shards."""
        return False

    @property
    def described(self) -> str:
        """Where the labels come from, for messages."""
        return str(getattr(self, "annotations", self.images))
