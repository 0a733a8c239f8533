"""Reads the header of an image file of any supported kind. Takes no memory for pixels."""

from dataclasses import dataclass

import simplejpeg

from rayprob.errors import SampleError
from rayprob.images.exif import SWAPS_SIDES
from rayprob.images.jpeg_header import jpeg_facts, jpeg_orientation, unread_kind
from rayprob.images.kinds import JPEG, PNG, WEBP, ImageKind, kind_of
from rayprob.images.png_header import GREY, PngFacts, png_facts, png_orientation
from rayprob.images.webp_header import webp_facts, webp_orientation

MAX_PIXELS = 2**26  # 200 MB as RGB; COCO's largest image has 2**18.6
MAX_FILE_BYTES = 2**28
DEEP_BITS = 16

CMYK, MULTI_PICTURE, DEEP_GREY, DEEP_COLOUR = "CMYK", "multi-picture", "16-bit grey", "16-bit colour"
TRANSPARENT, ANIMATED = "transparent", "animated"
ORIENTATIONS = {JPEG: jpeg_orientation, PNG: png_orientation, WEBP: webp_orientation}


@dataclass(frozen=True)
class Size:
    """Height and width of an image."""

    height_px: int
    width_px: int

    def turned(self, orientation: int) -> "Size":
        """Return the size of the image after it is turned by an EXIF orientation."""
        return Size(self.width_px, self.height_px) if orientation in SWAPS_SIDES else self


def measure(content: bytes, most_pixels: int = MAX_PIXELS) -> Size:
    """Return the size of an image as it is stored, from its header.

    Raises SampleError for an unsupported kind of file, a broken header, and too many bytes or pixels.
    """
    if len(content) > MAX_FILE_BYTES:
        raise SampleError(f"has more than {MAX_FILE_BYTES:,} bytes; shrink it")
    kind = kind_of(content)
    height_px, width_px = _jpeg_size(content) if kind is JPEG else _size_of_facts(content, kind)
    if height_px * width_px > most_pixels:
        raise SampleError(f"its header states {width_px:,} x {height_px:,} pixels, more than {most_pixels:,}; shrink it")
    return Size(height_px, width_px)


def orientation(content: bytes) -> int:
    """Return the EXIF orientation of an image file, 1 to 8; 1, which is upright, if it has none or its EXIF is broken.

    As in browsers, an orientation in XMP is ignored. Raises SampleError for an unsupported kind of file.
    """
    return ORIENTATIONS[kind_of(content)](content)


def oddities(content: bytes) -> list[str]:
    """Return the unusual properties of an image that has passed `measure`: CMYK, TRANSPARENT, DEEP_GREY, ..."""
    return [oddity for oddity, holds in _oddities(content, kind_of(content)).items() if holds]


def undecodable(content: bytes, what: str) -> SampleError:
    """Return the error for an image that did not decode: its kind if that is unsupported, else `what`."""
    return SampleError((unread_kind(content) if content.startswith(JPEG.magic) else None) or f"{what}; replace the file")


def _jpeg_size(content: bytes) -> tuple[int, int]:
    try:
        height_px, width_px, _, _ = simplejpeg.decode_jpeg_header(content)
    except ValueError as error:
        reason = str(error).removeprefix("tjDecompressHeader3(): ")
        raise undecodable(content, f"its JPEG header is broken ({reason})") from error
    return height_px, width_px


def _size_of_facts(content: bytes, kind: ImageKind) -> tuple[int, int]:
    facts = png_facts(content) if kind is PNG else webp_facts(content)
    if facts is None:
        raise SampleError(f"its {kind.title} header is broken; replace the file")
    return facts.height_px, facts.width_px


def _oddities(content: bytes, kind: ImageKind) -> dict[str, bool]:
    if kind is JPEG:
        stated = jpeg_facts(content)
        return {CMYK: stated.components == 4, MULTI_PICTURE: stated.is_multi_picture}
    facts = png_facts(content) if kind is PNG else webp_facts(content)
    assert facts is not None  # checked by `measure`
    found = {TRANSPARENT: facts.is_transparent, ANIMATED: facts.is_animated}
    if not isinstance(facts, PngFacts) or facts.bits < DEEP_BITS:
        return found
    return {DEEP_GREY: facts.colour_type == GREY, DEEP_COLOUR: facts.colour_type != GREY, **found}
