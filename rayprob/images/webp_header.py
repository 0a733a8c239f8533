"""Reads the chunks of a WebP (RFC 9649): size, transparency, animation and EXIF."""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from rayprob.images.exif import UPRIGHT, orientation_of

RIFF_BYTES = 12
NAME_AND_LENGTH = struct.Struct("<4sI").unpack_from
ANIMATED, EXIF, ALPHA = 0x02, 0x08, 0x10  # flags of VP8X
KEY_FRAME_MARK = b"\x9d\x01\x2a"  # of VP8 (RFC 6386, section 9.1), after its three bytes of frame tag
VP8L_MARK = 0x2F


class WebpFacts(NamedTuple):
    """The facts in a WebP before its pixels."""

    height_px: int
    width_px: int
    is_transparent: bool  # has an alpha channel
    is_animated: bool


def webp_facts(webp: bytes) -> WebpFacts | None:
    """Return the facts in the first chunk of a WebP; None if it is broken."""
    name, start, end = next(chunks(webp), (b"", 0, 0))
    content = webp[start : min(end, start + 10)]
    if len(content) < 5:
        return None
    if name == b"VP8X" and len(content) == 10:
        width_px, height_px = (int.from_bytes(content[at : at + 3], "little") + 1 for at in (4, 7))
        return WebpFacts(height_px, width_px, bool(content[0] & ALPHA), bool(content[0] & ANIMATED))
    if name == b"VP8L" and content[0] == VP8L_MARK:
        (packed,) = struct.unpack_from("<I", content, 1)
        return WebpFacts((packed >> 14 & 0x3FFF) + 1, (packed & 0x3FFF) + 1, bool(packed >> 28 & 1), False)
    if name == b"VP8 " and content[3:6] == KEY_FRAME_MARK and len(content) == 10:
        width_px, height_px = (size & 0x3FFF for size in struct.unpack_from("<HH", content, 6))
        return WebpFacts(height_px, width_px, False, False) if height_px and width_px else None
    return None


def webp_orientation(webp: bytes) -> int:
    """Return the orientation in the EXIF chunk, which follows the pixels; 1, which is upright, if it has none."""
    name, start, _ = next(chunks(webp), (b"", 0, 0))
    if name != b"VP8X" or not webp[start : start + 1] or not webp[start] & EXIF:
        return UPRIGHT
    return next((orientation_of(webp[start:end]) for name, start, end in chunks(webp) if name == b"EXIF"), UPRIGHT)


def chunks(webp: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the chunks: name, start and end of the content. Stops at bytes that are not a chunk."""
    at = RIFF_BYTES
    while at + 8 <= len(webp):
        name, length = NAME_AND_LENGTH(webp, at)
        yield name, at + 8, at + 8 + length
        at += 8 + length + length % 2
