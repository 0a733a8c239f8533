"""What a build counts of its images: their kinds, and what a user should know of how they are read."""

from collections.abc import Collection

from rayprob.arrays import Pixels
from rayprob.images.decode import decode
from rayprob.images.header import DEEP_COLOUR, DEEP_GREY, oddities
from rayprob.images.kinds import kind_of
from rayprob.images.reading import ImageReading

CONVERTED, NEARLY_BLACK = "converted", "nearly black"
DEEP = {DEEP_GREY, DEEP_COLOUR}
# 12 bits in 16 reach 15 of 255: such images keep their values in the lower bits, and a window brings them up.
BLACK = 32


def notable(content: bytes, reading: ImageReading) -> list[str]:
    """Return the kind of an image that `measure` has taken, its oddities, and whether 16 bits come out nearly black.

    Only an image of 16 bits is decoded for it. Raises SampleError if that fails.
    """
    found = oddities(content)
    is_black = not DEEP.isdisjoint(found) and is_nearly_black(found, decode(content, reading))
    return [kind_of(content).title, *found, *([NEARLY_BLACK] if is_black else [])]


def is_nearly_black(oddities: Collection[str], pixels: Pixels) -> bool:
    """Return whether an image of 16 bits reaches an eighth of the brightness at most."""
    return not DEEP.isdisjoint(oddities) and int(pixels.max()) < BLACK
