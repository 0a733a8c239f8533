"""What a build counts about its images: their kinds, and what users should know about how they are read."""

from collections.abc import Iterable

from rayprob.arrays import Pixels
from rayprob.images.decode import decode
from rayprob.images.header import DEEP_COLOUR, DEEP_GREY, oddities
from rayprob.images.kinds import kind_of
from rayprob.images.reading import ImageReading

CONVERTED = "converted"
# For images of 16 bits, by what they are: a window brightens grey, and does not apply to colour.
NEARLY_BLACK = {DEEP_GREY: "nearly black grey", DEEP_COLOUR: "nearly black colour"}
# 12 bits in 16 reach 15 of 255: such images have their values in the lower bits, and a window brightens them.
BLACK = 32


def notable(content: bytes, reading: ImageReading) -> list[str]:
    """Return the kind of an image that has passed `measure`, its unusual properties, and whether 16 bits are nearly black.

    Only an image of 16 bits is decoded. Raises SampleError if that fails.
    """
    found = oddities(content)
    is_deep = not NEARLY_BLACK.keys().isdisjoint(found)
    return [kind_of(content).title, *found, *(nearly_black(found, decode(content, reading)) if is_deep else ())]


def nearly_black(oddities: Iterable[str], pixels: Pixels) -> list[str]:
    """Return the value of NEARLY_BLACK for an image of 16 bits whose 8 bits reach at most an eighth of the brightness."""
    return [NEARLY_BLACK[oddity] for oddity in oddities if oddity in NEARLY_BLACK and int(pixels.max()) < BLACK]
