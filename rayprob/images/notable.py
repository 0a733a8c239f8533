"""What a build counts of its images: their kinds, and what a user should know of how they are read."""

from collections.abc import Iterable

from rayprob.arrays import Pixels
from rayprob.images.decode import decode
from rayprob.images.header import DEEP_COLOUR, DEEP_GREY, oddities
from rayprob.images.kinds import kind_of
from rayprob.images.reading import ImageReading

CONVERTED = "converted"
# Of an image of 16 bits, by what it is: a window brings up grey, and does not apply to colour.
NEARLY_BLACK = {DEEP_GREY: "nearly black grey", DEEP_COLOUR: "nearly black colour"}
# 12 bits in 16 reach 15 of 255: such images keep their values in the lower bits, and a window brings them up.
BLACK = 32


def notable(content: bytes, reading: ImageReading) -> list[str]:
    """Return the kind of an image that `measure` has taken, its oddities, and whether 16 bits come out nearly black.

    Only an image of 16 bits is decoded for it. Raises SampleError if that fails.
    """
    found = oddities(content)
    is_deep = not NEARLY_BLACK.keys().isdisjoint(found)
    return [kind_of(content).title, *found, *(nearly_black(found, decode(content, reading)) if is_deep else ())]


def nearly_black(oddities: Iterable[str], pixels: Pixels) -> list[str]:
    """Return the value of NEARLY_BLACK for an image of 16 bits whose 8 bits reach an eighth of the brightness at most."""
    return [NEARLY_BLACK[oddity] for oddity in oddities if oddity in NEARLY_BLACK and int(pixels.max()) < BLACK]
