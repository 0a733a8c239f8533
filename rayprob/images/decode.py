"""The one decoder: bytes of a JPEG, PNG or WebP to RGB, for sharding, training and prediction alike.

JPEG is decoded by libjpeg-turbo, which converts grey and CMYK; PNG and WebP by Pillow. Transparent pixels are composited over
white, 16-bit grey becomes 8-bit by a window or its upper bits, and only the first frame of an animation is read.
"""

import io
import warnings
from typing import NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from rayprob.arrays import Pixels
from rayprob.errors import SampleError, one_line
from rayprob.images.exif import turned
from rayprob.images.header import Size, measure, orientation, undecodable
from rayprob.images.kinds import JPEG, ImageKind, kind_of
from rayprob.images.reading import ImageReading, Window

WHITE = 255
# The image decodes despite this warning; `catch_warnings` would not be thread-safe.
warnings.filterwarnings("ignore", message="Invalid APNG")


class EncodedImage(NamedTuple):
    """The bytes of an image file, and how to read them: the input of a transform, which decodes only what it needs."""

    content: bytes
    reading: ImageReading

    def decode(self) -> Pixels:
        """Return the image as RGB [H, W, 3]. Raises SampleError as the function `decode` does."""
        return decode(self.content, self.reading)


def decode(content: bytes, reading: ImageReading) -> Pixels:
    """Return an image file as RGB [H, W, 3], upright if `reading` requires it.

    Raises SampleError for other kinds of files, for damage, also if libjpeg would only warn, and, before any memory is
    allocated, for a header with too many pixels.
    """
    size, kind = measure(content), kind_of(content)
    image = _jpeg(content) if kind is JPEG else _by_pillow(content, kind, size, reading.window)
    return turned(image, orientation(content)) if reading.orientation == "upright" else image


def rgb_of(image: Pillow.Image, window: Window | None = None) -> Pixels:
    """Return a Pillow image as RGB [H, W, 3]; transparent pixels become white, and 16-bit grey becomes 8-bit.

    Raises SampleError for an image made in memory whose range is unknown (modes I and F).
    """
    if image.mode in ("I", "F") and image.format is None:
        raise SampleError(f"is an image of mode {image.mode}, whose range is unknown; convert it to L or RGB")
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip at 255
        deep_HW = np.asarray(image.convert("I"))
        grey_HW = eight_bits(deep_HW, window)
        if (transparent := image.info.get("transparency")) is not None:
            grey_HW = np.where(deep_HW == transparent, np.uint8(WHITE), grey_HW)
        return np.repeat(grey_HW[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        image = Pillow.alpha_composite(Pillow.new("RGBA", layered.size, "white"), layered)
    return np.array(image.convert("RGB"))


def eight_bits(deep: NDArray[np.integer], window: Window | None) -> NDArray[np.uint8]:
    """Return 16-bit values as 8-bit ones: the upper bits, or with a window [low, high] mapped to 0 and 255."""
    if window is None:
        return (deep >> 8).astype(np.uint8)
    low, high = window
    scaled = (deep.astype(np.float32) - low) * (WHITE / (high - low))
    rounded: NDArray[np.uint8] = np.rint(scaled.clip(0, WHITE)).astype(np.uint8)
    return rounded


def _jpeg(content: bytes) -> Pixels:
    try:
        image: Pixels = simplejpeg.decode_jpeg(content, colorspace="RGB", strict=True)
    except ValueError as error:
        raise undecodable(content, f"does not decode ({error})") from error
    return image


def _by_pillow(content: bytes, kind: ImageKind, size: Size, window: Window | None) -> Pixels:
    try:
        with Pillow.open(io.BytesIO(content), formats=[kind.title.upper()]) as image:
            if image.size != (size.width_px, size.height_px):
                raise SampleError(f"is a {kind.title} that states two sizes; replace the file")
            return rgb_of(image, window)
    except (SampleError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise SampleError(f"is a {kind.title} that does not decode (its header is broken); replace the file") from error
    except Exception as error:  # on damaged bytes, Pillow's plugins may raise anything
        raise SampleError(f"is a {kind.title} that does not decode ({one_line(error)}); replace the file") from error
