"""Files of other kinds are refused by name, with what to do; what a file is called plays no part."""

import io

import pytest
from PIL import Image as Pillow

from rayprob.errors import SampleError
from rayprob.images.kinds import JPEG, KINDS, PNG, WEBP, kind_of
from tests.images.every_kind import picture, saved


def test_kinds_are_told_by_their_first_bytes() -> None:
    assert [kind_of(saved(picture("RGB"), title)) for title in ("JPEG", "PNG", "WEBP")] == [JPEG, PNG, WEBP]
    assert [kind.suffix for kind in KINDS] == [".jpg", ".png", ".webp"]


@pytest.mark.parametrize(
    ("title", "message"),
    [
        ("GIF", "is a GIF, not a JPEG, PNG or WebP; save one of its frames as PNG"),
        ("BMP", "is a BMP, not a JPEG, PNG or WebP; convert it to PNG"),
        ("TIFF", "is a TIFF, not a JPEG, PNG or WebP; convert it to PNG, which keeps 16 bits"),
        ("AVIF", "is an AVIF, not a JPEG, PNG or WebP; convert it to JPEG"),
        ("JPEG2000", "is a JPEG 2000, not a JPEG, PNG or WebP; convert it to JPEG"),
        ("PDF", "is a PDF, not a JPEG, PNG or WebP; export its pages as PNG"),
        ("ICO", r"is a file that begins b'\x00\x00\x01\x00', not a JPEG, PNG or WebP; convert it"),
    ],
)
def test_what_pillow_writes_and_is_not_read_is_named(title: str, message: str) -> None:
    if title not in Pillow.SAVE and not Pillow.init() and title not in Pillow.SAVE:
        pytest.skip(f"this Pillow writes no {title}")
    assert refusal(saved(picture("RGB"), title)) == message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "is a HEIC, not a JPEG, PNG or WebP; convert it to JPEG"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0", "is a HEIC, not a JPEG, PNG or WebP; convert it to JPEG"),
        (
            bytes(128) + b"DICM\2\0",
            "is a DICOM file, not a JPEG, PNG or WebP; convert it to 16-bit PNG, and set `window` in the recipe",
        ),
        (b"\xff\x0a\xfa\x7f", "is a JPEG XL, not a JPEG, PNG or WebP; convert it to JPEG"),
        (b"MM\0+\0\x08", "is a BigTIFF, not a JPEG, PNG or WebP; convert it to PNG, which keeps 16 bits"),
        (b"RIFF\0\0\0\0WAVE", "is a RIFF file of sound or video, not a JPEG, PNG or WebP; remove it, or save a frame as PNG"),
        (b"", "is empty, not a JPEG, PNG or WebP; download the image again"),
        (b"<html>404</html>", "is an HTML or XML page, not a JPEG, PNG or WebP; download the image again"),
        (b"\x89PNG\n\x1a\n", "is a PNG whose first bytes are damaged, not a JPEG, PNG or WebP; replace the file"),
        (b"version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer, not a JPEG, PNG or WebP; run `git lfs pull`"),
    ],
)
def test_other_files_are_named(content: bytes, message: str) -> None:
    assert refusal(content) == message


def refusal(content: bytes) -> str:
    with pytest.raises(SampleError) as caught:
        kind_of(io.BytesIO(content).getvalue())
    return str(caught.value)
