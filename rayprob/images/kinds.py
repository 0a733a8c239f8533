"""Kinds of image files, recognised by their first bytes: the supported ones, and what to do about others.

A file's name is ignored: a PNG named photo.jpg is stored as .png.
"""

from typing import NamedTuple

from rayprob.errors import SampleError


class ImageKind(NamedTuple):
    """A supported kind of file: its name, its first bytes, and the suffix of its files in shards."""

    title: str
    magic: bytes
    suffix: str


JPEG = ImageKind("JPEG", b"\xff\xd8\xff", ".jpg")
PNG = ImageKind("PNG", b"\x89PNG\r\n\x1a\n", ".png")
WEBP = ImageKind("WebP", b"RIFF", ".webp")
KINDS = (JPEG, PNG, WEBP)
TITLES = "JPEG, PNG or WebP"

# Usual suffixes. Those of unsupported kinds count as images too, so that each such file is refused by name.
READ_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp")
UNREAD_SUFFIXES = (".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".heif", ".jp2", ".jxl", ".dcm")
IMAGE_SUFFIXES = READ_SUFFIXES + UNREAD_SUFFIXES

TO_PNG, TO_JPEG = "convert it to PNG", "convert it to JPEG"
DOWNLOAD = "download the image again"
# First bytes, the kind of file, and what to do.
FOREIGN = (
    (b"GIF8", "a GIF", "save one of its frames as PNG"),
    (b"BM", "a BMP", TO_PNG),
    (b"II*\0", "a TIFF", "convert it to PNG, which keeps 16 bits"),
    (b"MM\0*", "a TIFF", "convert it to PNG, which keeps 16 bits"),
    (b"II+\0", "a BigTIFF", "convert it to PNG, which keeps 16 bits"),
    (b"MM\0+", "a BigTIFF", "convert it to PNG, which keeps 16 bits"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL", TO_JPEG),
    (b"\xff\x0a", "a JPEG XL", TO_JPEG),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000", TO_JPEG),
    (b"\xff\x4f\xff\x51", "a JPEG 2000", TO_JPEG),
    (b"8BPS", "a Photoshop file", "export it as PNG"),
    (b"%PDF", "a PDF", "export its pages as PNG"),
    (b"<svg", "an SVG", "render it as PNG"),
    (b"<", "an HTML or XML page", DOWNLOAD),
    (b"RIFF", "a RIFF file of sound or video", "remove it, or save a frame as PNG"),
    (b"version https://git-lfs", "a Git LFS pointer", "run `git lfs pull`"),
)
# The brand of an ISO base media file (ISO/IEC 14496-12), at byte 8.
BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "an AVIF"),
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"), "a HEIC"),
}
DICOM_AT, DICOM = 128, b"DICM"


def kind_of(content: bytes) -> ImageKind:
    """Return the kind of a file. Raises SampleError for an unsupported kind, with its name and what to do."""
    if content.startswith(JPEG.magic):
        return JPEG
    if content.startswith(PNG.magic):
        return PNG
    if content.startswith(WEBP.magic) and content[8:12] == b"WEBP":
        return WEBP
    found, advice = _foreign(content)
    raise SampleError(f"is {found}, not a {TITLES}; {advice}")


def _foreign(content: bytes) -> tuple[str, str]:
    """Return the name of a file's unsupported kind, and what to do."""
    if not content:
        return "empty", DOWNLOAD
    if content[4:8] == b"ftyp" and content[8:12] in BRANDS:
        return BRANDS[content[8:12]], TO_JPEG
    if content[DICOM_AT : DICOM_AT + len(DICOM)] == DICOM:
        return "a DICOM file", "convert it to 16-bit PNG, and set `window` in the recipe"
    for magic, found, advice in FOREIGN:
        if content.startswith(magic):
            return found, advice
    if content.startswith(PNG.magic[:4]):
        return "a PNG whose first bytes are damaged", "replace the file"
    return f"a file that begins {content[:4]!r}", "convert it"
