"""How image files are read: what a dataset and the models trained on it must agree on, so that both see the same pixels."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

Window = tuple[int, int]


class ImageReading(NamedTuple):
    """Whether EXIF turns images upright, and which values of 16-bit grey become black and white; None keeps the upper 8 bits.

    Datasets and bundles of 0.1 do not record it: their images are read as they are stored.
    """

    orientation: Literal["stored", "upright"] = "stored"
    window: Window | None = None

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> "ImageReading":
        """Return what dataset.json or bundle.json records."""
        window = facts.get("window")
        return cls(facts.get("orientation", "stored"), (window[0], window[1]) if window else None)

    def to_dict(self) -> dict[str, Any]:
        """Return what to record: only what differs from 0.1, so that the files of an old dataset stay as they were."""
        return {key: value for key, value in self._asdict().items() if value != getattr(READ_AS_STORED, key)}


READ_AS_STORED = ImageReading()
READ_UPRIGHT = ImageReading("upright")
