"""Reads the segments before a JPEG's first scan (ITU T.81, annex B): how it is coded, and its EXIF orientation."""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from rayprob.images.exif import PREFIX, UPRIGHT, orientation_of

START_OF_SCAN, APP1, APP2 = 0xDA, 0xE1, 0xE2
MULTI_PICTURE = b"MPF\0"
STANDALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length
JPEG_LS = 0xF7
FRAMES = {*range(0xC0, 0xD0), JPEG_LS} - {0xC4, 0xC8, 0xCC}
PROGRESSIVE = 0xC2
DECODED = {0xC0, 0xC1, PROGRESSIVE}
ARITHMETIC, LOSSLESS, HIERARCHICAL = range(0xC9, 0xD0), {0xC3, 0xC7, 0xCB, 0xCF}, {0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF}
FIRST_SCAN = {True: (0, 0), False: (0, 63)}  # of a progressive and of a sequential frame: first and last coefficient
COMPONENTS = (1, 3, 4)
COMPONENTS_AT = 5  # in a frame header
MARKER_AND_LENGTH = struct.Struct(">xBH").unpack_from


class JpegFacts(NamedTuple):
    """The number of colour components, 1 for grey and 4 for CMYK, and whether more pictures follow (CIPA DC-007)."""

    components: int
    is_multi_picture: bool


class Headers(NamedTuple):
    """The marker of the frame header, which determines the coding, its content, and that of the first scan header."""

    kind: int | None
    frame: bytes
    scan: bytes

    @classmethod
    def of(cls, jpeg: bytes) -> "Headers":
        """Return the headers of a JPEG; `kind` is None if no frame header precedes the first scan."""
        kind, frame = None, b""
        for marker, start, end in segments(jpeg):
            if marker in FRAMES:
                kind, frame = marker, jpeg[start:end].ljust(6, b"\0")
            elif marker == START_OF_SCAN:
                return cls(kind, frame, jpeg[start:end])
        return cls(kind, frame, b"")


def segments(jpeg: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the segments up to and including the header of the first scan: marker, start and end of the content.

    Stops earlier at bytes that are not a segment.
    """
    at, last = 2, len(jpeg) - 4
    while at <= last and jpeg[at] == 0xFF:
        marker, length = MARKER_AND_LENGTH(jpeg, at)
        if marker == 0xFF or marker in STANDALONE:  # 0xFF: filling before a marker
            at += 1 if marker == 0xFF else 2
            continue
        end = at + 2 + length
        yield marker, at + 4, end
        if marker == START_OF_SCAN:
            return
        at = end


def unread_kind(jpeg: bytes) -> str | None:
    """Return the kind of a JPEG that the decoder does not read: 12 bits, lossless, arithmetic-coded; None for others."""
    return _unread(Headers.of(jpeg))


def header_fault(jpeg: bytes) -> str | None:
    """Return what in the header prevents decoding: an unsupported kind, or frame and scan headers that do not fit together."""
    headers = Headers.of(jpeg)
    if headers.kind is None or len(headers.scan) < 3:
        return "has no frame header before its first scan; replace the file"
    fits = tuple(headers.scan[-3:-1]) == FIRST_SCAN[headers.kind == PROGRESSIVE]
    return _unread(headers) or (None if fits else "has a scan header that does not fit its frame header; replace the file")


def jpeg_orientation(jpeg: bytes) -> int:
    """Return the EXIF orientation, 1 to 8; 1, which is upright, if it has none or its EXIF is broken."""
    for marker, start, end in segments(jpeg):
        if marker == APP1 and jpeg.startswith(PREFIX, start):
            return orientation_of(jpeg[start:end])
    return UPRIGHT


def jpeg_facts(jpeg: bytes) -> JpegFacts:
    """Return the facts in a JPEG's header."""
    components, is_multi_picture = 0, False
    for marker, start, _ in segments(jpeg):
        if marker in FRAMES:
            components = jpeg[start + COMPONENTS_AT] if start + COMPONENTS_AT < len(jpeg) else 0
        elif marker == APP2 and jpeg.startswith(MULTI_PICTURE, start):
            is_multi_picture = True
    return JpegFacts(components, is_multi_picture)


def _unread(headers: Headers) -> str | None:
    kind, frame, _ = headers
    if kind is None:
        return None
    if kind not in DECODED:
        return f"is {_words_for(kind)}, which the decoder does not read; save it as a baseline or progressive JPEG"
    bits, components = frame[0], frame[COMPONENTS_AT]
    if bits != 8:
        return f"has {bits} bits per channel, but the decoder reads 8; save it with 8"
    if components not in COMPONENTS:
        return f"has {components} colour components, but the decoder reads {', '.join(map(str, COMPONENTS))}; save it as RGB"
    return None


def _words_for(kind: int) -> str:
    if kind == JPEG_LS:
        return "a JPEG-LS file"
    words = {"lossless": kind in LOSSLESS, "hierarchical": kind in HIERARCHICAL, "arithmetic-coded": kind in ARITHMETIC}
    return f"a JPEG of another kind ({', '.join(word for word, applies in words.items() if applies)})"
