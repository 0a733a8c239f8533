"""What the bytes of an image become, for every kind that is read. Pillow is the oracle; rules of our own are stated here."""

import struct
import warnings
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image as Pillow

from rayprob.errors import SampleError
from rayprob.images.decode import decode
from rayprob.images.header import Size, measure, oddities, orientation
from rayprob.images.kinds import kind_of
from rayprob.images.reading import READ_AS_STORED, READ_UPRIGHT, ImageReading
from tests.images.all_kinds import by_pillow
from tests.images.every_kind import KINDS, UPRIGHT_SCENE, Kind, png_bytes, saved, turned_file
from tests.loader.tiny import photo

RED_GREEN = np.array([[[255, 0, 0], [0, 255, 0]], [[9, 8, 7], [1, 2, 3]]], dtype=np.uint8)
WHITE = [255, 255, 255]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.title)
def test_every_kind_has_the_pixels_that_pillow_reads(kind: Kind) -> None:
    content = kind.content()
    with warnings.catch_warnings(action="error"):
        image = decode(content, READ_UPRIGHT)
        assert np.abs(image - by_pillow(content)).max() <= kind.rounding
        assert np.array_equal(decode(content, READ_AS_STORED), image)
    assert kind_of(content).suffix == kind.suffix
    assert measure(content) == Size(*image.shape[:2])
    assert oddities(content) == kind.oddities


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("title", ["JPEG", "PNG", "WEBP"])
def test_exif_turns_every_kind_upright_as_pillow_does(title: str, value: int) -> None:
    content = turned_file(title, value)
    image = decode(content, READ_UPRIGHT)
    assert orientation(content) == value
    assert np.abs(image - by_pillow(content)).max() <= (3 if title == "JPEG" else 0)
    assert np.abs(image.astype(int) - UPRIGHT_SCENE).mean() < 3  # and that is the scene that was turned
    assert image.flags["C_CONTIGUOUS"]
    stored = decode(content, READ_AS_STORED)
    assert measure(content) == Size(*stored.shape[:2])
    assert measure(content).turned(value) == Size(*image.shape[:2])


def test_what_is_transparent_becomes_white() -> None:
    alpha = np.array([[0, 255], [255, 0]], dtype=np.uint8)
    layered = Pillow.fromarray(np.concatenate([RED_GREEN, alpha[:, :, None]], axis=2))
    for content in (saved(layered), saved(layered, "WEBP", lossless=True, exact=True)):
        assert decode(content, READ_UPRIGHT).tolist() == [[WHITE, [0, 255, 0]], [[9, 8, 7], WHITE]]


def test_sixteen_bits_of_grey_keep_their_upper_eight_or_a_window() -> None:
    content = saved(Pillow.fromarray(np.array([[0, 256 * 7 + 200], [65535, 256], [1000, 3000]], dtype=np.uint16)))
    assert decode(content, READ_UPRIGHT)[:, :, 0].tolist() == [[0, 7], [255, 1], [3, 11]]
    windowed = decode(content, ImageReading("upright", (1000, 3000)))
    assert windowed[:, :, 0].tolist() == [[0, 126], [255, 0], [0, 255]]  # (1992 - 1000) / 2000 x 255 = 126.48
    assert (windowed == windowed[:, :, :1]).all()


def test_a_transparent_value_of_sixteen_bits_becomes_white() -> None:
    content = png_bytes(np.array([[[1000], [1001]]]), bits=16, colour_type=0, extra={b"tRNS": struct.pack(">H", 1000)})
    assert decode(content, READ_UPRIGHT)[:, :, 0].tolist() == [[255, 3]]


def test_the_first_frame_of_an_animation_is_read() -> None:
    frames = [Pillow.new("RGB", (4, 3), colour) for colour in ("red", "lime", "blue")]
    for title in ("PNG", "WEBP"):
        content = saved(
            frames[0], title, save_all=True, append_images=frames[1:], **({"lossless": True} if title == "WEBP" else {})
        )
        assert "animated" in oddities(content)
        assert (decode(content, READ_UPRIGHT) == (255, 0, 0)).all()


def bomb() -> bytes:
    """A PNG of a few bytes whose header states 10,000 x 10,000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 10_000, 10_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


def with_two_sizes() -> bytes:
    """A PNG whose second header states more pixels than the first, which was checked."""
    content = saved(Pillow.fromarray(RED_GREEN))
    header = b"IHDR" + struct.pack(">IIBBBBB", 9_000, 9_000, 8, 2, 0, 0, 0)
    second = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return content[:33] + second + content[33:]


def huge_jpeg() -> bytes:
    content = bytearray(photo(3))
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = (30_000).to_bytes(2, "big") * 2
    return bytes(content)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: saved(Pillow.fromarray(decode(photo(1), READ_AS_STORED)))[:-300],
            r"is a PNG that does not decode \(.*\); replace",
        ),
        (lambda: saved(Pillow.fromarray(RED_GREEN), "WEBP")[:-9], r"is a WebP that does not decode \(.*\); replace the file"),
        (lambda: b"\x89PNG\r\n\x1a\n but no more", "its PNG header is broken; replace the file"),
        (lambda: b"RIFF\x0a\0\0\0WEBPVP8 \0\0", "its WebP header is broken; replace the file"),
        (bomb, "its header states 10,000 x 10,000 pixels, more than 67,108,864; shrink it"),
        (huge_jpeg, "its header states 30,000 x 30,000 pixels, more than 67,108,864; shrink it"),
        (with_two_sizes, "is a PNG that states two sizes; replace the file"),
        (lambda: photo(3)[:-3], r"does not decode \(Premature end of JPEG file\); replace the file"),
        (lambda: photo(3)[:900], r"does not decode \(Premature end of JPEG file\); replace the file"),
    ],
)
def test_damage_is_named(make: Callable[[], bytes], message: str) -> None:
    with pytest.raises(SampleError, match=message):
        decode(make(), READ_UPRIGHT)
