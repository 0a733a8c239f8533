"""One JPEG image: its bounded size, whether it decodes, and a smaller encoding of it."""

from dataclasses import dataclass

import cv2
import simplejpeg

from rayprob.data.building.jpeg_header import header_fault, unread_kind
from rayprob.data.building.recipe import Encoding
from rayprob.errors import SampleError

MAX_PIXELS = 2**26  # 200 MB as RGB; COCO's largest image has 2**18.6
MAX_FILE_BYTES = 2**28
FOREIGN = {
    b"\x89PNG": "a PNG",
    b"GIF8": "a GIF",
    b"BM": "a BMP",
    b"RIFF": "a WebP or other RIFF file",
    b"II*\0": "a TIFF",
    b"MM\0*": "a TIFF",
    b"\0\0\0\x0cJXL ": "a JPEG XL",
    b"\0\0\0\x0cjP  ": "a JPEG 2000",
    b"<": "an HTML or XML page",
}


@dataclass(frozen=True)
class Size:
    """Height and width of an image."""

    height_px: int
    width_px: int


def measure(jpeg: bytes) -> Size:
    """Return the size that the header states; takes no memory for pixels. Raises SampleError, also for too many pixels."""
    if len(jpeg) > MAX_FILE_BYTES:
        raise SampleError(f"has more than {MAX_FILE_BYTES:,} bytes; shrink it")
    if not jpeg.startswith(b"\xff\xd8\xff"):
        raise SampleError(f"is {_kind(jpeg)}, not a JPEG; convert it")
    try:
        height_px, width_px, _, _ = simplejpeg.decode_jpeg_header(jpeg)
    except ValueError as error:
        raise undecodable(jpeg, f"its JPEG header is broken ({_reason(error)})") from error
    if height_px * width_px > MAX_PIXELS:
        raise SampleError(f"its header states {width_px:,} x {height_px:,} pixels, more than {MAX_PIXELS:,}; shrink it")
    return Size(height_px, width_px)


def check_header(jpeg: bytes) -> None:
    """Raise SampleError for a JPEG of a kind that the decoder does not read, and for one that was cut. Decodes nothing."""
    if fault := header_fault(jpeg):
        raise SampleError(fault)
    check_ends(jpeg)


def check_ends(jpeg: bytes) -> None:
    """Raise SampleError where no end-of-image mark follows the last scan, as in a file that was cut."""
    if jpeg.endswith(b"\xff\xd9"):
        return
    # Bytes may follow the end; but a preview inside the header has an end mark of its own, before the scan of the image.
    if jpeg.rfind(b"\xff\xd9") < jpeg.rfind(b"\xff\xda"):
        raise SampleError("is cut short: no end-of-image mark; replace the file")


def check_decodes(jpeg: bytes) -> None:
    """Raise SampleError unless every byte of the image decodes without a complaint of libjpeg.

    Decodes luma at an eighth of the size: the entropy decoder, where damage shows, still reads everything, and the rest
    of the work is saved.
    """
    try:
        simplejpeg.decode_jpeg(jpeg, colorspace="GRAY", fastdct=True, min_height=1, min_width=1)
    except ValueError as error:
        raise undecodable(jpeg, f"does not decode ({_reason(error)})") from error


def encode_again(jpeg: bytes, encoding: Encoding) -> bytes:
    """Return the image with its short side at most `short_side_px`, at the quality and chroma asked for.

    Raises SampleError where it does not decode.
    """
    try:
        image_HW3 = simplejpeg.decode_jpeg(jpeg)
    except ValueError as error:
        raise undecodable(jpeg, f"does not decode ({_reason(error)})") from error
    height_px, width_px = image_HW3.shape[:2]
    scale = (encoding.short_side_px or min(height_px, width_px)) / min(height_px, width_px)
    if scale < 1:
        size = max(round(width_px * scale), 1), max(round(height_px * scale), 1)
        image_HW3 = cv2.resize(image_HW3, size, interpolation=cv2.INTER_AREA)
    encoded: bytes = simplejpeg.encode_jpeg(image_HW3, quality=encoding.quality, colorsubsampling=encoding.chroma)
    return encoded


def undecodable(jpeg: bytes, what: str) -> SampleError:
    """Return the error for a JPEG that did not decode: that its kind is not read, where it is that, else `what`."""
    return SampleError(unread_kind(jpeg) or f"{what}; replace the file")


def _kind(content: bytes) -> str:
    if not content:
        return "empty"
    return next((kind for magic, kind in FOREIGN.items() if content.startswith(magic)), f"a file that begins {content[:4]!r}")


def _reason(error: ValueError) -> str:
    return str(error).removeprefix("tjDecompressHeader3(): ")
