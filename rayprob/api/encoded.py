"""Images of any kind as the bytes of a file, to be sent: files as they are, pixels as PNG, which changes none of them."""

import io
import os
from typing import Any

from rayprob.predict.images import ImageFile


def encoded(image: Any) -> bytes:
    """Return the bytes of an image file. Raises StorageError, and SampleError for what is not an image."""
    match image:
        case bytes() | bytearray() | memoryview():
            return bytes(image)
        case str() | os.PathLike():
            return ImageFile(os.fspath(image)).read()
    return _as_png(image)


def _as_png(image: Any) -> bytes:
    from PIL import Image as Pillow

    from rayprob.api.inputs import PillowImage, images_of
    from rayprob.images.reading import READ_AS_STORED

    (found,), _ = images_of(image)
    exif = b""
    if isinstance(found, PillowImage):  # the server turns it upright where its model was trained on upright images
        exif = found.image.info.get("exif", b"")
    buffer = io.BytesIO()
    Pillow.fromarray(found.decode(READ_AS_STORED).pixels_HWC).save(buffer, "PNG", exif=exif)
    return buffer.getvalue()
