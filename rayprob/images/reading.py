"""How image files are read: a dataset and the models trained on it must agree on this, so that both see the same pixels."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import AfterValidator

from rayprob.files.documents import Shape

Orientation = Literal["stored", "upright"]
Window = tuple[int, int]
MaybeWindow = TypeVar("MaybeWindow", bound=Sequence[int] | None)


class ImageReading(NamedTuple):
    """Whether EXIF turns images upright, and which values of 16-bit grey become black and white; None keeps the upper 8 bits.

    Datasets and bundles of rayprob 0.1 do not record it: their images are read as they are stored.
    """

    orientation: Orientation = "stored"
    window: Window | None = None

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> "ImageReading":
        """Return the reading that dataset.json or bundle.json records."""
        window = facts.get("window")
        return cls(facts.get("orientation", "stored"), (window[0], window[1]) if window else None)

    def to_dict(self) -> dict[str, Any]:
        """Return what to record: only differences from rayprob 0.1, so that the files of an old dataset stay the same."""
        return {key: value for key, value in self._asdict().items() if value != getattr(READ_AS_STORED, key)}


READ_AS_STORED = ImageReading()
READ_UPRIGHT = ImageReading("upright")


def ordered(window: MaybeWindow) -> MaybeWindow:
    """Return a window, or None. Raises ValueError for one that is not [low, high] in 16 bits with low below high."""
    if window is not None and not (len(window) == 2 and 0 <= window[0] < window[1] < 2**16):
        raise ValueError("expected [low, high] with low below high and high at most 65535, such as [0, 4095]")
    return window


class ReadingShape(Shape):
    """The keys of a reading in dataset.json and bundle.json."""

    orientation: Orientation = "stored"
    window: Annotated[list[int] | None, AfterValidator(ordered)] = None
