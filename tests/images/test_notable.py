"""What a build notes of an image beyond its kind."""

import numpy as np
from PIL import Image as Pillow

from rayprob.images.notable import notable
from rayprob.images.reading import READ_UPRIGHT, ImageReading
from tests.images.every_kind import picture, png_bytes, saved


def deep(highest: int) -> bytes:
    return saved(Pillow.fromarray(np.linspace(0, highest, 48).astype(np.uint16).reshape(6, 8)))


def test_an_ordinary_image_has_its_kind_alone() -> None:
    assert notable(saved(picture("RGB"), "JPEG"), READ_UPRIGHT) == ["JPEG"]
    assert notable(saved(Pillow.new("RGB", (8, 6))), READ_UPRIGHT) == ["PNG"]  # a black one, but not of 16 bits


def test_twelve_bits_in_sixteen_come_out_nearly_black_without_a_window() -> None:
    assert notable(deep(4095), READ_UPRIGHT) == ["PNG", "16-bit grey", "nearly black grey"]
    assert notable(deep(4095), ImageReading("upright", (0, 4095))) == ["PNG", "16-bit grey"]
    assert notable(deep(65_535), READ_UPRIGHT) == ["PNG", "16-bit grey"]


def test_sixteen_bits_per_colour_have_no_window() -> None:
    content = png_bytes(np.full((2, 3, 3), 4095), bits=16, colour_type=2)
    for reading in (READ_UPRIGHT, ImageReading("upright", (0, 4095))):
        assert notable(content, reading) == ["PNG", "16-bit colour", "nearly black colour"]
