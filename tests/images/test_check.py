"""One image: bounded before it is decoded, and every kind of damage that a decoder can see is seen."""

import io
import struct
import tracemalloc

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from rayprob.data.building.encode import encode_again
from rayprob.data.building.recipe import Encoding
from rayprob.errors import SampleError
from rayprob.images import header
from rayprob.images.check import check_decodes, check_ends
from rayprob.images.header import Size, measure
from rayprob.images.reading import READ_UPRIGHT
from tests.data.small_source import draw_jpeg


def with_stated_size(content: bytes, height_px: int, width_px: int) -> bytes:
    """Overwrite the size in the frame header."""
    place = content.index(b"\xff\xc0") + 5
    return content[:place] + struct.pack(">HH", height_px, width_px) + content[place + 4 :]


def pillow_bytes(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(mode: str) -> Image.Image:
    return Image.open(io.BytesIO(draw_jpeg(1, 48, 64))).convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_every_colour_model_of_jpeg_is_taken(mode: str) -> None:
    content = pillow_bytes(picture(mode), "JPEG", quality=95)
    assert measure(content) == Size(48, 64)
    check_decodes(content)
    check_ends(content)


def test_cmyk_decodes_to_the_colours_that_pillow_sees() -> None:
    content = pillow_bytes(picture("CMYK"), "JPEG", quality=98, subsampling=0)
    ours = simplejpeg.decode_jpeg(content).astype(int)
    pillows = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    assert np.abs(ours - pillows).max() <= 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xd8\xff\xe0junk", "its JPEG header is broken .*; replace the file"),
        (b"\x89PNG\r\n\x1a\njunk", "its PNG header is broken; replace the file"),
        (b"RIFF\0\0\0\0WEBPjunk", "its WebP header is broken; replace the file"),
    ],
)
def test_a_broken_header_is_named(content: bytes, message: str) -> None:
    with pytest.raises(SampleError, match=message):
        measure(content)


def test_a_size_of_30000_by_30000_is_refused_before_memory_is_taken() -> None:
    bomb = with_stated_size(draw_jpeg(1, 48, 64), 30_000, 30_000)
    tracemalloc.start()
    with pytest.raises(SampleError, match=r"its header states 30,000 x 30,000 pixels, more than 67,108,864; shrink it"):
        measure(bomb)
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


def test_a_file_of_too_many_bytes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header, "MAX_FILE_BYTES", 1000)
    with pytest.raises(SampleError, match="has more than 1,000 bytes; shrink it"):
        measure(draw_jpeg(1, 480, 640))


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("kept", [0.999, 0.9, 0.5])
def test_a_cut_image_is_found_by_either_check(progressive: bool, kept: float) -> None:
    content = pillow_bytes(picture("RGB"), "JPEG", quality=90, progressive=progressive)
    content = content[: int(len(content) * kept)]
    with pytest.raises(SampleError, match=r"does not decode .*; replace the file"):
        check_decodes(content)
    with pytest.raises(SampleError, match="is cut short: no end-of-image mark"):
        check_ends(content)


def test_the_end_mark_of_a_preview_in_the_header_does_not_count() -> None:
    content = draw_jpeg(1, 48, 64)
    preview = draw_jpeg(2, 8, 8)
    comment = b"\xff\xfe" + struct.pack(">H", len(preview) + 2) + preview
    with_preview = content[:2] + comment + content[2:]
    check_ends(with_preview)
    check_decodes(with_preview)
    with pytest.raises(SampleError, match="is cut short"):
        check_ends(with_preview[:-30])


@pytest.mark.parametrize("progressive", [False, True])
def test_the_quick_decode_finds_just_what_a_full_decode_finds(progressive: bool) -> None:
    content = pillow_bytes(Image.open(io.BytesIO(draw_jpeg(5, 160, 200))), "JPEG", quality=92, progressive=progressive)
    random = np.random.default_rng(0)
    found = 0
    for place in random.integers(2, len(content), 400):
        damaged = bytearray(content)
        damaged[place] ^= 1 << random.integers(8)
        try:
            measure(bytes(damaged))
        except SampleError:
            continue
        full, quick = (not decodes(bytes(damaged), check) for check in (simplejpeg.decode_jpeg, check_decodes))
        assert quick == full, f"bit flipped in byte {place}"
        found += full
    assert found > 20


def decodes(content: bytes, decode: object) -> bool:
    try:
        decode(content)  # type: ignore[operator]
    except (ValueError, SampleError):
        return False
    return True


def test_encoding_again_shrinks_the_short_side_and_never_grows() -> None:
    content = draw_jpeg(3, 90, 120)
    assert measure(encode_again(content, Encoding(short_side_px=45), READ_UPRIGHT)) == Size(45, 60)
    assert measure(encode_again(content, Encoding(short_side_px=500), READ_UPRIGHT)) == Size(90, 120)
    again = encode_again(content, Encoding(quality=98, chroma="444"), READ_UPRIGHT)
    assert simplejpeg.decode_jpeg_header(again)[3] == "444"
    difference = simplejpeg.decode_jpeg(again).astype(int) - simplejpeg.decode_jpeg(content).astype(int)
    assert np.abs(difference).mean() < 2
    with pytest.raises(SampleError, match="does not decode"):
        encode_again(content[:-20], Encoding(), READ_UPRIGHT)
