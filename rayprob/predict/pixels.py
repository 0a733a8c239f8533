"""Decodes JPEG and PNG files to RGB; JPEG with the decoder of training, so that a file and a shard give the same pixels."""

import io
import struct
from dataclasses import dataclass

import numpy as np
from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from rayprob.arrays import Pixels
from rayprob.data.building.jpeg import MAX_PIXELS
from rayprob.data.building.jpeg_header import UPRIGHT, orientation
from rayprob.errors import SampleError
from rayprob.loader.augment import decode

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG"


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """An image as RGB, uint8 [H, W, 3], and notes on how it was read."""

    pixels_HWC: Pixels
    notes: tuple[str, ...] = ()


def decoded(content: bytes) -> DecodedImage:
    """Decode the bytes of a JPEG or PNG, with a note if training would see the image rotated.

    Raises SampleError as `read_pixels`.
    """
    pixels_HWC, note = read_pixels(content), orientation_note(content)
    return DecodedImage(pixels_HWC, (note,) if note else ())


def read_pixels(content: bytes) -> Pixels:
    """Return a JPEG or PNG as RGB [H, W, 3]; transparent pixels become white.

    Raises SampleError for other formats and damaged files, and, before allocating memory, for a header with too many pixels.
    """
    return _png(content) if content.startswith(PNG) else decode(content)


def orientation_note(content: bytes) -> str | None:
    """Return a note if a JPEG's EXIF asks for a rotation: training takes pixels as they are stored, and so must predict."""
    turned = orientation(content) if content.startswith(JPEG) else UPRIGHT
    if turned == UPRIGHT:
        return None
    return f"its EXIF orientation {turned} is ignored, as in training: save the image upright for a better prediction"


def _png(content: bytes) -> Pixels:
    width_px, height_px = struct.unpack(">II", content[16:24].ljust(8, b"\0"))  # at this offset in every PNG
    if width_px * height_px > MAX_PIXELS:
        raise SampleError(f"its header states {width_px:,} x {height_px:,} pixels, more than {MAX_PIXELS:,}; shrink it")
    try:
        with Pillow.open(io.BytesIO(content), formats=["PNG"]) as image:
            return rgb_of(image)
    except UnidentifiedImageError as error:
        raise SampleError("is a PNG that does not decode (its header is broken); replace the file") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise SampleError(f"is a PNG that does not decode ({error}); replace the file") from error


def rgb_of(image: Pillow.Image) -> Pixels:
    """Return a Pillow image as RGB [H, W, 3]; transparent pixels become white, and 16-bit grey becomes 8-bit.

    Raises SampleError for an image made in memory whose range is unknown (modes I and F).
    """
    if image.mode in ("I", "F") and image.format is None:
        raise SampleError(f"is an image of mode {image.mode}, whose range is unknown; convert it to L or RGB")
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip at 255
        grey_HW = (np.asarray(image.convert("I")) >> 8).astype(np.uint8)
        return np.repeat(grey_HW[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        image = Pillow.alpha_composite(Pillow.new("RGBA", layered.size, "white"), layered)
    return np.array(image.convert("RGB"))
