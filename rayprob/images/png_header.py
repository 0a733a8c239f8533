"""Reads the chunks of a PNG (PNG, third edition): size, bits, colour type, transparency, animation and EXIF."""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from rayprob.images.exif import UPRIGHT, orientation_of

SIGNATURE_BYTES = 8
LENGTH_AND_TYPE = struct.Struct(">I4s").unpack_from
IHDR = struct.Struct(">IIBB").unpack_from
IHDR_BYTES = 13
GREY, PALETTE, WITH_ALPHA = 0, 3, (4, 6)  # colour types


class PngFacts(NamedTuple):
    """The facts in a PNG before its pixels."""

    height_px: int
    width_px: int
    bits: int  # per channel, or per index of a palette
    colour_type: int
    is_transparent: bool  # has an alpha channel or transparent colours
    is_animated: bool


def png_facts(png: bytes) -> PngFacts | None:
    """Return the facts of a PNG; None if its header is broken."""
    found = list(chunks(png, until=b"IDAT"))
    if not found or found[0][0] != b"IHDR" or found[0][2] - found[0][1] != IHDR_BYTES or found[0][2] > len(png):
        return None
    width_px, height_px, bits, colour_type = IHDR(png, found[0][1])
    if not height_px or not width_px:
        return None
    types = {name for name, _, _ in found}
    is_transparent = colour_type in WITH_ALPHA or b"tRNS" in types
    return PngFacts(height_px, width_px, bits, colour_type, is_transparent, b"acTL" in types)


def png_orientation(png: bytes) -> int:
    """Return the orientation in the eXIf chunk, which may follow the pixels; 1, which is upright, if it has none."""
    return next((orientation_of(png[start:end]) for name, start, end in chunks(png) if name == b"eXIf"), UPRIGHT)


def chunks(png: bytes, until: bytes = b"IEND") -> Iterator[tuple[bytes, int, int]]:
    """Yield the chunks up to and including the first of type `until`: type, start and end of the content.

    Stops earlier at bytes that are not a chunk; the last chunk may end beyond the file.
    """
    at = SIGNATURE_BYTES
    while at + 8 <= len(png):
        length, name = LENGTH_AND_TYPE(png, at)
        yield name, at + 8, at + 8 + length
        if name == until:
            return
        at += 12 + length
