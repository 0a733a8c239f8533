"""The keys that a split of a recipe has in every format."""

import re
from typing import ClassVar, Self

from pydantic import Field, field_validator, model_validator

from rayprob.config.spec import Spec
from rayprob.data.sources.rows import Rest

DEFAULT = "coco"


class Expected(Spec):
    """How many images the annotations of a split must list, so that a partial download is found before it is sharded."""

    labelled: int = Field(ge=0)
    """Images with at least one label."""
    unlabelled: int = Field(ge=0)
    """Images without any label."""


class Source(Spec):
    """One split: where its images and labels are, as paths or URIs, and in which format. Each format has its own keys."""

    later_keys: ClassVar[frozenset[str]] = frozenset({"format", "rest", "group_pattern"})

    images: str
    """The folder or URI that contains the images."""
    format: str = DEFAULT
    """The format: coco, table, voc, yolo, folders, huggingface or webdataset."""
    expect: Expected | None = None
    """How many images the annotations must list; the build fails otherwise."""
    rest: Rest | None = None
    """The state of labels that the source does not list for an image: absent or unknown; null for the format's own rule."""

    group_pattern: str | None = None
    """A regular expression on file names, such as `^([^/]+)/`: images with the same text in its parentheses share a split."""

    @field_validator("group_pattern")
    @classmethod
    def _is_pattern(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"is not a regular expression: {error}") from error
        return value

    @model_validator(mode="after")
    def _is_grouped_once(self) -> Self:
        if self.group_pattern is not None and getattr(self, "group", None) is not None:
            raise ValueError("group and group_pattern are both set; keep one")
        return self

    @property
    def is_grouped(self) -> bool:
        """Whether images of one group have to share a split."""
        return self.group_pattern is not None or getattr(self, "group", None) is not None

    @property
    def in_place(self) -> bool:
        """Whether images stay in the source's files instead of being copied into shards."""
        return False

    @property
    def described(self) -> str:
        """Where the labels come from, for messages."""
        return str(getattr(self, "annotations", self.images))
