"""Checks that an image file is complete: by its header and end, or by decoding it."""

import zlib

import simplejpeg

from rayprob.errors import SampleError
from rayprob.images.decode import decode
from rayprob.images.header import undecodable
from rayprob.images.jpeg_header import header_fault
from rayprob.images.kinds import JPEG, PNG
from rayprob.images.png_header import chunks
from rayprob.images.reading import READ_AS_STORED
from rayprob.images.webp_header import RIFF_BYTES

CUT = "is cut short: {}; replace the file"


def check_header(content: bytes) -> None:
    """Raise SampleError for a kind of image that the decoder does not read, and for a truncated one, without decoding.

    The image must have passed `measure`.
    """
    if not content.startswith(JPEG.magic):
        _check_chunks_end(content)
        return
    if fault := header_fault(content):
        raise SampleError(fault)
    check_ends(content)


def check_ends(jpeg: bytes) -> None:
    """Raise SampleError if no end-of-image mark follows the last scan, as in a truncated file."""
    if jpeg.endswith(b"\xff\xd9"):
        return
    # Bytes may follow the end. A preview in the header has an end mark of its own, before the scan of the image.
    if jpeg.rfind(b"\xff\xd9") < jpeg.rfind(b"\xff\xda"):
        raise SampleError(CUT.format("no end-of-image mark"))


def check_decodes(content: bytes) -> None:
    """Raise SampleError unless the whole image decodes without an error or warning of its decoder.

    For a JPEG it decodes only luma, at an eighth of the size. The entropy decoder, which finds damage, still reads all bytes,
    and the rest of the work is saved.
    """
    if not content.startswith(JPEG.magic):
        _check_sums(content)
        decode(content, READ_AS_STORED)
        return
    try:
        simplejpeg.decode_jpeg(content, colorspace="GRAY", fastdct=True, min_height=1, min_width=1)
    except ValueError as error:
        reason = str(error).removeprefix("tjDecompressHeader3(): ")
        raise undecodable(content, f"does not decode ({reason})") from error


def _check_sums(content: bytes) -> None:
    """Raise SampleError for a PNG chunk with a wrong checksum: Pillow does not check those of pixels."""
    for name, start, end in chunks(content) if content.startswith(PNG.magic) else ():
        if zlib.crc32(content[start - len(name) : end]) != int.from_bytes(content[end : end + 4], "big"):
            raise SampleError(f"does not decode (wrong checksum of its chunk {name!r}); replace the file")


def _check_chunks_end(content: bytes) -> None:
    if content.startswith(PNG.magic):
        if not any(name == b"IEND" for name, _, _ in chunks(content)):
            raise SampleError(CUT.format("no IEND chunk"))
    elif int.from_bytes(content[4:8], "little") + RIFF_BYTES - 4 > len(content):
        raise SampleError(CUT.format("its RIFF header states more bytes"))
