"""The pixels of one image to predict, as its model was trained on such images, and notes on how they were read."""

from collections.abc import Iterator
from dataclasses import dataclass

from rayprob.arrays import Pixels
from rayprob.images.decode import decode
from rayprob.images.exif import UPRIGHT
from rayprob.images.header import ANIMATED, DEEP_COLOUR, DEEP_GREY, oddities, orientation
from rayprob.images.kinds import JPEG
from rayprob.images.notable import NEARLY_BLACK, nearly_black
from rayprob.images.reading import ImageReading

FIRST_FRAME = "is an animation, of which the first frame was read"
DARK = {
    NEARLY_BLACK[DEEP_GREY]: "its 16 bits of grey come out nearly black; train on a dataset whose recipe sets `window`",
    NEARLY_BLACK[DEEP_COLOUR]: "its 16 bits per colour come out nearly black; save it with 8",
}


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """An image as RGB, uint8 [H, W, 3], and notes on how it was read."""

    pixels_HWC: Pixels
    notes: tuple[str, ...] = ()


def decoded(content: bytes, reading: ImageReading) -> DecodedImage:
    """Decode the bytes of an image file, with notes on what a user may not expect. Raises SampleError as `decode` does."""
    pixels_HWC = decode(content, reading)
    return DecodedImage(pixels_HWC, tuple(_notes(content, reading, pixels_HWC)))


def _notes(content: bytes, reading: ImageReading, pixels_HWC: Pixels) -> Iterator[str]:
    turn = orientation(content)
    if turn != UPRIGHT and reading.orientation == "stored":
        yield f"its EXIF orientation {turn} is ignored, as in training: save the image upright for a better prediction"
    found = [] if content.startswith(JPEG.magic) else oddities(content)
    if ANIMATED in found:
        yield FIRST_FRAME
    yield from (DARK[dark] for dark in nearly_black(found, pixels_HWC))
