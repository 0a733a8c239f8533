"""One image file of every kind that is read: drawn here, and for what Pillow does not write, built from its chunks."""

import io
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from PIL import Image as Pillow

from rayprob.images.jpeg_header import segments

HEIGHT_PX, WIDTH_PX = 36, 52
ADOBE = 0xEE
# As `saved(UPRIGHT_SCENE)` has to be stored so that an orientation shows it upright.
STORED_AS = {
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_90,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_270,
}


def scene(channels: int) -> np.ndarray:
    """Return a smooth image without symmetry, uint8 [H, W, channels]."""
    coarse = np.random.default_rng(7).integers(20, 220, (4, 5, channels), dtype=np.uint8)
    parts = [
        Pillow.fromarray(coarse[:, :, channel]).resize((WIDTH_PX, HEIGHT_PX), Pillow.Resampling.BICUBIC)
        for channel in range(channels)
    ]
    return np.stack([np.asarray(part) for part in parts], axis=2)


UPRIGHT_SCENE = scene(3)


def picture(mode: str) -> Pillow.Image:
    """Return the scene as a Pillow image; alpha falls from left to right."""
    channels = {"L": 1, "LA": 1, "CMYK": 4}.get(mode, 3)
    pixels = scene(channels)
    if mode in ("LA", "RGBA"):
        alpha = np.broadcast_to(np.linspace(255, 0, WIDTH_PX).astype(np.uint8)[None, :, None], (HEIGHT_PX, WIDTH_PX, 1))
        pixels = np.concatenate([pixels, alpha], axis=2)
    return Pillow.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels, mode)


def saved(image: Pillow.Image, title: str = "PNG", **options: object) -> bytes:
    """Return the file that Pillow writes."""
    content = io.BytesIO()
    image.save(content, title, **options)
    return content.getvalue()


def turned_file(title: str, orientation: int) -> bytes:
    """Return a file that an EXIF orientation shows as the scene."""
    exif = Pillow.Exif()
    exif[0x010F], exif[0x0112] = "a camera", orientation
    image = Pillow.fromarray(UPRIGHT_SCENE)
    stored = image.transpose(STORED_AS[orientation]) if orientation in STORED_AS else image
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}, "PNG": {}}[title]
    return saved(stored, title, exif=exif, **options)


def png_bytes(values: np.ndarray, *, bits: int, colour_type: int, extra: Mapping[bytes, bytes] | None = None) -> bytes:
    """Return a PNG of values [H, W, channels], each of so many bits, with more chunks before its pixels."""
    height_px, width_px, channels = values.shape
    digits = (values[:, :, :, None] >> np.arange(bits - 1, -1, -1)) & 1
    lines = np.packbits(digits.reshape(height_px, width_px * channels * bits).astype(np.uint8), axis=1)
    pixels = zlib.compress(b"".join(b"\0" + line.tobytes() for line in lines))
    header = struct.pack(">IIBBBBB", width_px, height_px, bits, colour_type, 0, 0, 0)
    parts = [(b"IHDR", header), *(extra or {}).items(), (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in parts
    )


def deep(bits: int, channels: int) -> np.ndarray:
    """Return the scene in values of so many bits."""
    values = scene(channels).astype(np.int64)
    return values >> (8 - bits) if bits <= 8 else values * 257 + 100


def without_adobe(jpeg: bytes) -> bytes:
    """Return a JPEG without the marker that tells that Adobe's programs wrote it."""
    for marker, start, end in segments(jpeg):
        if marker == ADOBE:
            return jpeg[: start - 4] + jpeg[end:]
    raise AssertionError("no Adobe marker")


@dataclass(frozen=True)
class Kind:
    """A kind of file: how to make one, the suffix to store it under, how far decoders may differ, and what is odd about it."""

    title: str
    content: Callable[[], bytes]
    suffix: str
    rounding: int = 0
    oddities: list[str] = field(default_factory=list)


def jpeg(mode: str, **options: object) -> bytes:
    return saved(picture(mode), "JPEG", quality=95, **options)


CMYK, ALPHA, DEEP_GREY, DEEP_COLOUR = ["CMYK"], ["transparent"], ["16-bit grey"], ["16-bit colour"]
KINDS = (
    Kind("JPEG RGB 4:4:4", lambda: jpeg("RGB", subsampling=0), ".jpg", 3),
    Kind("JPEG RGB 4:2:0", lambda: jpeg("RGB", subsampling=2), ".jpg", 3),
    Kind("JPEG progressive", lambda: jpeg("RGB", progressive=True), ".jpg", 3),
    Kind("JPEG grey", lambda: jpeg("L"), ".jpg", 1),
    Kind("JPEG CMYK, Adobe's inverted", lambda: jpeg("CMYK"), ".jpg", 3, CMYK),
    Kind("JPEG CMYK without Adobe's marker", lambda: without_adobe(jpeg("CMYK")), ".jpg", 3, CMYK),
    Kind(
        "MPO of two pictures",
        lambda: saved(picture("RGB"), "MPO", save_all=True, append_images=[picture("RGB").rotate(180)], quality=95),
        ".jpg",
        3,
        ["multi-picture"],
    ),
    *(
        Kind(f"PNG grey {bits}", lambda bits=bits: png_bytes(deep(bits, 1), bits=bits, colour_type=0), ".png")
        for bits in (1, 2, 4, 8)
    ),
    Kind("PNG grey 16", lambda: png_bytes(deep(16, 1), bits=16, colour_type=0), ".png", 0, DEEP_GREY),
    Kind("PNG RGB", lambda: saved(picture("RGB")), ".png"),
    Kind("PNG RGB 16", lambda: png_bytes(deep(16, 3), bits=16, colour_type=2), ".png", 0, DEEP_COLOUR),
    Kind("PNG palette", lambda: saved(picture("RGB").quantize(16)), ".png"),
    Kind("PNG palette, one transparent", lambda: saved(picture("RGB").quantize(16), transparency=3), ".png", 0, ALPHA),
    Kind(
        "PNG palette, alpha per colour",
        lambda: saved(picture("RGB").quantize(16), transparency=bytes(range(0, 256, 16))),
        ".png",
        0,
        ALPHA,
    ),
    Kind(
        "PNG RGB, one transparent",
        lambda: saved(picture("RGB"), transparency=tuple(UPRIGHT_SCENE[0, 0].tolist())),
        ".png",
        0,
        ALPHA,
    ),
    Kind("PNG grey and alpha", lambda: saved(picture("LA")), ".png", 0, ALPHA),
    Kind("PNG RGB and alpha", lambda: saved(picture("RGBA")), ".png", 0, ALPHA),
    Kind("PNG RGB and alpha 16", lambda: png_bytes(deep(16, 4), bits=16, colour_type=6), ".png", 0, [*DEEP_COLOUR, *ALPHA]),
    Kind(
        "APNG",
        lambda: saved(picture("RGB"), save_all=True, append_images=[picture("RGB").rotate(180)]),
        ".png",
        0,
        ["animated"],
    ),
    Kind("WebP lossy", lambda: saved(picture("RGB"), "WEBP", quality=90), ".webp"),
    Kind("WebP lossless", lambda: saved(picture("RGB"), "WEBP", lossless=True), ".webp"),
    Kind("WebP lossy and alpha", lambda: saved(picture("RGBA"), "WEBP", quality=90), ".webp", 0, ALPHA),
    Kind("WebP lossless and alpha", lambda: saved(picture("RGBA"), "WEBP", lossless=True), ".webp", 0, ALPHA),
    Kind(
        "WebP animation",
        lambda: saved(picture("RGB"), "WEBP", save_all=True, append_images=[picture("RGB").rotate(180)]),
        ".webp",
        0,
        ["animated"],
    ),
)
