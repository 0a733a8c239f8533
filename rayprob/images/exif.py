"""The orientation in a block of EXIF (Exif 3.0, section 4.6.5): how to turn an image upright."""

import struct
from contextlib import suppress

import numpy as np

from rayprob.arrays import Pixels

PREFIX = b"Exif\0\0"  # always in JPEG; some programs also write it in WebP and PNG
ORIENTATION, SHORT = 0x0112, 3
UPRIGHT = 1
SWAPS_SIDES = range(5, 9)  # these orientations exchange height and width


def orientation_of(exif: bytes) -> int:
    """Return the orientation in a block of EXIF, 1 to 8; 1, which is upright, if it is missing or the block is broken."""
    with suppress(struct.error):  # offsets outside the block
        return _orientation(exif.removeprefix(PREFIX))
    return UPRIGHT


def turned(image: Pixels, orientation: int) -> Pixels:
    """Return an image [H, W, 3] turned by its orientation, in a memory layout that torch and OpenCV accept."""
    if orientation == UPRIGHT:
        return image
    if orientation in SWAPS_SIDES:
        image = image.transpose(1, 0, 2)
    down = -1 if orientation in (3, 4, 7, 8) else 1
    right = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(image[::down, ::right])


def _orientation(tiff: bytes) -> int:
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return UPRIGHT
    (first,) = struct.unpack_from(f"{order}I", tiff, 4)
    (count,) = struct.unpack_from(f"{order}H", tiff, first)
    for entry in range(first + 2, first + 2 + 12 * count, 12):
        tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, entry)
        if tag == ORIENTATION:
            return int(value) if kind == SHORT and 1 <= value <= 8 else UPRIGHT
    return UPRIGHT
