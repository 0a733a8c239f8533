"""Whatever the bytes of an image file are, each step reads them, or refuses them with a SampleError."""

import random
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rayprob.errors import SampleError
from rayprob.images.check import check_decodes, check_header
from rayprob.images.decode import decode
from rayprob.images.exif import orientation_of
from rayprob.images.header import MAX_PIXELS, measure, oddities, orientation
from rayprob.images.notable import notable
from rayprob.images.reading import READ_UPRIGHT, ImageReading
from tests.fuzz.mutate_bytes import damaged
from tests.images.all_kinds import every_file

FILES = [*every_file().values()]
MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x40\0\0\0WEBP", b"\0\0\0\x18ftyp", b"")


def read(content: bytes, reading: ImageReading) -> bool:
    """Take the steps of a build and of a prediction; return whether the image was read."""
    try:
        size = measure(content)
        assert 0 < size.height_px * size.width_px <= MAX_PIXELS
        assert 1 <= orientation(content) <= 8
        oddities(content)
        for step in (check_header, check_decodes):
            try:
                step(content)
            except SampleError:
                pass
            else:
                notable(content, reading)
        image = decode(content, reading)
    except SampleError:
        return False
    assert image.dtype == np.uint8
    assert image.shape == (*vars(size.turned(orientation(content))).values(), 3)
    return True


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(FILES).flatmap(damaged), st.sampled_from([None, (0, 4095)]))
def test_a_damaged_file_is_read_or_refused(content: bytes, window: tuple[int, int] | None) -> None:
    with warnings.catch_warnings(action="error"):
        warnings.filterwarnings("ignore", message="Invalid APNG")  # as `images.decode` sets it
        read(content, ImageReading("upright", window))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(MAGIC), st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(magic: bytes, rest: bytes) -> None:
    read(magic + rest, READ_UPRIGHT)
    assert 1 <= orientation_of(rest) <= 8


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=4, max_size=60))
def test_any_exif_has_an_orientation(exif: bytes) -> None:
    for order in (b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"):
        assert 1 <= orientation_of(order + exif) <= 8


@pytest.mark.parametrize("title", [title for title in every_file() if not title.startswith("MPO")])  # its second picture may go
@pytest.mark.parametrize("check", [check_header, check_decodes])
def test_no_file_is_taken_for_whole_when_it_was_cut(title: str, check: Callable[[bytes], None]) -> None:
    content, chance = every_file()[title], random.Random(title)
    for _ in range(5):
        assert not is_taken(content[: chance.randrange(len(content) - 20)], check)


def is_taken(content: bytes, check: Callable[[bytes], None]) -> bool:
    try:
        measure(content)
        check(content)
    except SampleError:
        return False
    return True


@pytest.mark.parametrize("title", ["PNG RGB", "PNG palette", "PNG grey 16"])
def test_any_flipped_bit_of_a_png_is_found_by_the_decode_check(title: str) -> None:
    content, chance = every_file()[title], random.Random(0)
    for _ in range(200):
        damaged_content = bytearray(content)
        damaged_content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        assert not is_taken(bytes(damaged_content), check_decodes)
