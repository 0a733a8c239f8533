"""What a JPEG's header tells: which kinds the decoder reads, and how EXIF turns the image. Pillow is the oracle."""

import io
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rayprob.errors import SampleError
from rayprob.images.check import check_decodes, check_header
from rayprob.images.decode import decode as decode_by
from rayprob.images.exif import UPRIGHT
from rayprob.images.header import measure
from rayprob.images.jpeg_header import APP1, FRAMES, header_fault, segments, unread_kind
from rayprob.images.jpeg_header import jpeg_orientation as orientation
from rayprob.images.reading import READ_AS_STORED

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8))


def saved(mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    PICTURE.convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def turned(value: int, **options: object) -> bytes:
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    exif[0x0112] = value
    return saved(exif=exif, **options)


def patched(content: bytes, *, marker: int | None = None, bits: int | None = None, components: int | None = None) -> bytes:
    """Overwrite what the frame header states."""
    frame = next(start for marker, start, _ in segments(content) if marker in FRAMES)
    changed = bytearray(content)
    for place, value in ((frame - 3, marker), (frame, bits), (frame + 5, components)):
        changed[place] = changed[place] if value is None else value
    return bytes(changed)


def decode(content: bytes) -> np.ndarray:
    return decode_by(content, READ_AS_STORED)


def admits(content: bytes) -> bool:
    try:
        measure(content)
        check_header(content)
    except SampleError:
        return False
    return True


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_what_the_header_check_admits_decodes(mode: str, progressive: bool) -> None:
    content = saved(mode, progressive=progressive)
    assert admits(content)
    num_admitted = 0
    for marker in sorted(FRAMES):
        for bits in (2, 8, 12, 16):
            for components in (None, 1, 2, 3, 4, 5):
                changed = patched(content, marker=marker, bits=bits, components=components)
                if admits(changed):
                    num_admitted += 1
                    decode(changed)
                    check_decodes(changed)
    assert num_admitted


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bits": 12}, "has 12 bits per channel, but the decoder reads 8; save it with 8"),
        ({"marker": 0xC3}, r"is a JPEG of another kind \(lossless\), which the decoder does not read; save it as a baseline"),
        ({"marker": 0xC9}, r"\(arithmetic-coded\)"),
        ({"marker": 0xCA}, r"\(arithmetic-coded\)"),
        ({"marker": 0xCB}, r"\(lossless, arithmetic-coded\)"),
        ({"marker": 0xC5}, r"\(hierarchical\)"),
        ({"marker": 0xCF}, r"\(lossless, hierarchical, arithmetic-coded\)"),
        ({"marker": 0xF7}, "is a JPEG-LS file"),
        ({"components": 2}, "has 2 colour components, but the decoder reads 1, 3, 4; save it as RGB"),
    ],
)
def test_a_kind_that_does_not_decode_is_named_by_every_check(change: dict[str, int], message: str) -> None:
    content = patched(saved(), **change)
    with pytest.raises(SampleError, match=message):
        check_header(content)
    for decoding in (check_decodes, decode):
        with pytest.raises(SampleError, match=message):
            decoding(content)


def test_headers_that_contradict_each_other_are_found() -> None:
    for content in (patched(saved(), marker=0xC2), patched(saved(progressive=True), marker=0xC0)):
        with pytest.raises(SampleError, match="has a scan header that does not fit its frame header; replace the file"):
            check_header(content)
    with pytest.raises(SampleError, match="has no frame header before its first scan; replace the file"):
        check_header(saved()[:200] + b"\xff\xd9")


@pytest.mark.parametrize("value", range(1, 9))
def test_the_orientation_is_that_which_pillow_reads(value: int) -> None:
    content = turned(value, comment=b"x" * 100)
    assert orientation(content) == value == Image.open(io.BytesIO(content)).getexif()[0x0112]


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_exif_does_not_know_is_upright(value: int) -> None:
    assert orientation(turned(value)) == orientation(saved()) == orientation(b"\xff\xd8\xff") == orientation(b"") == UPRIGHT


def test_both_byte_orders_are_read() -> None:
    little = b"II*\0" + bytes([8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0])
    assert orientation(saved(exif=b"Exif\0\0" + little)) == 6
    big = b"MM\0*" + bytes([0, 0, 0, 8, 0, 1, 1, 0x12, 0, 3, 0, 0, 0, 1, 0, 8, 0, 0])
    assert orientation(saved(exif=b"Exif\0\0" + big)) == 8


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False))
def test_damage_in_the_header_never_stops_the_reading(chance: random.Random) -> None:
    content = bytearray(turned(6))
    exif_end = next(end for marker, _, end in segments(bytes(content)) if marker == APP1)
    for _ in range(chance.randint(1, 4)):
        content[chance.randrange(2, exif_end + 200)] = chance.choice([0, 1, 0xFF, chance.randrange(256)])
    cut = bytes(content[: chance.choice([len(content), chance.randrange(exif_end + 200)])])
    assert 1 <= orientation(cut) <= 8
    header_fault(cut)
    unread_kind(cut)
