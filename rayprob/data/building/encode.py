"""A smaller encoding of an image: its pixels as they are read, shrunk and saved as JPEG."""

import cv2
import simplejpeg

from rayprob.data.building.recipe import Encoding
from rayprob.images.decode import decode
from rayprob.images.reading import ImageReading


def encode_again(content: bytes, encoding: Encoding, reading: ImageReading) -> bytes:
    """Return the image as a JPEG with its short side at most `short_side_px`, at the quality and chroma asked for.

    It is turned upright if `reading` asks for it, and has no EXIF. Raises SampleError if the image does not decode.
    """
    image_HW3 = decode(content, reading)
    height_px, width_px = image_HW3.shape[:2]
    scale = (encoding.short_side_px or min(height_px, width_px)) / min(height_px, width_px)
    if scale < 1:
        size = max(round(width_px * scale), 1), max(round(height_px * scale), 1)
        image_HW3 = cv2.resize(image_HW3, size, interpolation=cv2.INTER_AREA)
    encoded: bytes = simplejpeg.encode_jpeg(image_HW3, quality=encoding.quality, colorsubsampling=encoding.chroma)
    return encoded
