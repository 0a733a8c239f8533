"""How objects are painted: textured, with outline, shade and shadow; then the light and noise of the whole picture.

Pictures are uint8 RGB [H, W, 3]; coverage is uint8 [H, W], 255 where an object hides everything behind it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from rayprob.arrays import Pixels
from rayprob.scenes.shapes import LOOK_OF_LABEL, PALETTE, shape_parts

Floats32 = NDArray[np.float32]
Weights = NDArray[np.floating[Any] | np.bool_]

SUBPIXEL_BITS = 4  # fillPoly takes fixed-point corners
TEXTURE_REPEATS = 2.0  # a texture tile spans one half extent
MAX_SIDE_PX = 1024  # the side of the noise bank


@dataclass(frozen=True)
class Stamp:
    """One object on the picture grid before occlusion: its polygons in pixels, its coverage and its position."""

    label: str
    matrix_23: Floats32  # half extents -> pixels of the picture
    left_px: int
    top_px: int
    margin_px: int  # free space around the coverage, for the shadow
    polygons: tuple[NDArray[np.int32], ...]  # fixed point, relative to (left, top)
    coverage_HW: Pixels


def stamp(label: str, matrix_23: Floats32) -> Stamp:
    """Return the object `label` placed by `matrix_23`; it may be partly outside the picture."""
    points, ends = _outline(LOOK_OF_LABEL[label].shape)
    pixels_P2 = points @ matrix_23[:, :2].T + matrix_23[:, 2]
    margin_px = 3 + int(np.ptp(pixels_P2, axis=0).max()) // 16
    low_2 = np.floor(pixels_P2.min(axis=0)).astype(int) - margin_px
    width, height = np.ceil(pixels_P2.max(axis=0)).astype(int) + 1 + margin_px - low_2
    fixed_P2 = np.round((pixels_P2 - low_2) * (1 << SUBPIXEL_BITS)).astype(np.int32)
    polygons = tuple(np.split(fixed_P2, ends[:-1]))
    coverage_HW = np.zeros((height, width), np.uint8)
    for part, polygon in zip(shape_parts(LOOK_OF_LABEL[label].shape), polygons, strict=True):
        _fill(coverage_HW, polygon, 0 if part.paint == "hole" else 255)
    return Stamp(label, matrix_23, int(low_2[0]), int(low_2[1]), margin_px, polygons, coverage_HW)


@cache
def extent_per_size(label: str) -> float:
    """Return the half extent that gives the shape of `label` an area of 1, so that thin objects are drawn longer."""
    scale = 64.0
    area_px2 = (stamp(label, np.array([[scale, 0, 0], [0, scale, 0]], np.float32)).coverage_HW >= 128).sum()
    return float(scale / np.sqrt(area_px2))


def paint(picture_HW3: Pixels, item: Stamp, rng: Generator) -> None:
    """Paint an object and its shadow into the picture."""
    colours_HW3 = _shade(_colours(item, rng), rng)
    _cast_shadow(picture_HW3, item)
    target, source = overlap(picture_HW3.shape[:2], item)
    if source[0].stop <= source[0].start or source[1].stop <= source[1].start:
        return
    cover_HW = item.coverage_HW[source].astype(np.float32)
    picture_HW3[target] = cv2.blendLinear(colours_HW3[source], picture_HW3[target], cover_HW, 255 - cover_HW)


def overlap(shape: tuple[int, ...], item: Stamp, shift_px: int = 0) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the rows and columns of a picture of `shape` that the object's grid overlaps, and the same part of that grid."""
    ranges = [
        (max(start, 0), min(start + length, limit), start)
        for start, length, limit in (
            (item.top_px + shift_px, item.coverage_HW.shape[0], shape[0]),
            (item.left_px + shift_px, item.coverage_HW.shape[1], shape[1]),
        )
    ]
    rows, columns = (slice(first, max(first, last)) for first, last, _ in ranges)
    inner_rows, inner_columns = (slice(first - start, max(first, last) - start) for first, last, start in ranges)
    return (rows, columns), (inner_rows, inner_columns)


def light(picture_HW3: Pixels, rng: Generator) -> Pixels:
    """Return the picture with random lighting (brightness, colour, direction), grain and blur."""
    height_px, width_px, _ = picture_HW3.shape
    slopes_2, gain, grain = rng.uniform(-0.22, 0.22, 2), rng.uniform(0.72, 1.15), rng.uniform(0.008, 0.045)
    grain_HW = np.float32(grain) * _noise(height_px, width_px, rng)
    light_HW = np.float32(gain) * (1 + _slope(height_px, width_px, slopes_2)) + grain_HW
    tints = (1 + rng.uniform(-0.07, 0.07, 3)).tolist()
    sharp_HW3: Pixels = cv2.multiply(picture_HW3, cv2.merge([light_HW * tint for tint in tints]), dtype=cv2.CV_8U)
    is_soft, softness_px = rng.random() < 0.2, rng.uniform(0.4, 0.8)
    return cv2.GaussianBlur(sharp_HW3, (3, 3), softness_px) if is_soft else sharp_HW3


def _slope(height_px: int, width_px: int, slopes_2: NDArray[np.float64]) -> Floats32:
    """Return a plane [H, W] that rises from -slope to +slope across and down."""
    across_W = np.linspace(-slopes_2[0], slopes_2[0], width_px, dtype=np.float32)
    down_H1 = np.linspace(-slopes_2[1], slopes_2[1], height_px, dtype=np.float32)[:, None]
    return across_W + down_H1


def _colours(item: Stamp, rng: Generator) -> Pixels:
    look = LOOK_OF_LABEL[item.label]
    gain_3 = rng.uniform(0.86, 1.1) * (1 + rng.uniform(-0.05, 0.05, 3))
    body_3, trim_3 = (np.array(PALETTE[name]) * gain_3 for name in (look.colour, look.trim))
    ramp_T3 = np.clip(body_3 + (trim_3 - body_3) * np.linspace(0, 1, 256)[:, None], 0, 255).astype(np.uint8)
    body_HW3: Pixels = cv2.LUT(cv2.merge([_texture_on(item, look.texture)] * 3), ramp_T3[None])
    colours_HW3 = body_HW3.copy()
    paints = dict(zip((*PALETTE, "trim"), (np.array((*PALETTE.values(), PALETTE[look.trim])) * gain_3).tolist(), strict=True))
    edge = tuple((body_3 * 0.55).tolist())
    for part, polygon in zip(shape_parts(look.shape), item.polygons, strict=True):
        if part.paint == "body":
            _fill_with(colours_HW3, polygon, body_HW3)
            cv2.polylines(colours_HW3, [polygon], True, edge, 1, cv2.LINE_AA, SUBPIXEL_BITS)
        elif part.paint != "hole":
            _fill(colours_HW3, polygon, paints[part.paint])
    return colours_HW3


def _texture_on(item: Stamp, texture: str) -> Pixels:
    """Return the weight of the trim colour [H, W]: the texture's tile rotated and stretched with the object."""
    height, width = item.coverage_HW.shape
    if texture == "plain":
        return np.zeros((height, width), np.uint8)
    extent_px = float(np.sqrt(abs(np.linalg.det(item.matrix_23[:, :2]))))
    side = int(np.clip(2 ** np.round(np.log2(max(2 * extent_px / TEXTURE_REPEATS, 1))), 4, 64))
    tile_TT = _tile(texture, side)
    to_tile = np.eye(3, dtype=np.float64)
    to_tile[:2] = item.matrix_23
    to_tile[0, 2] -= item.left_px
    to_tile[1, 2] -= item.top_px
    inverse_23 = np.linalg.inv(to_tile)[:2] * (side * TEXTURE_REPEATS / 2)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(tile_TT, inverse_23, (width, height), flags=flags, borderMode=cv2.BORDER_WRAP)  # type: ignore[no-any-return]


def _shade(colours_HW3: Pixels, rng: Generator) -> Pixels:
    """Return the colours under a soft light from one side."""
    angle = rng.uniform(0, 2 * np.pi)
    height, width, _ = colours_HW3.shape
    ramp_HW = 1 + _slope(height, width, 0.16 * np.array([np.cos(angle), np.sin(angle)]))
    return cv2.multiply(colours_HW3, cv2.merge([ramp_HW] * 3), dtype=cv2.CV_8U)  # type: ignore[no-any-return]


def _cast_shadow(picture_HW3: Pixels, item: Stamp) -> None:
    shift_px = item.margin_px // 2
    target, source = overlap(picture_HW3.shape[:2], item, shift_px)
    shadow_HW = cv2.blur(item.coverage_HW, (2 * shift_px + 1, 2 * shift_px + 1))[source]
    if shadow_HW.size:
        left_HW3 = cv2.merge([255 - (0.4 * shadow_HW).astype(np.uint8)] * 3)
        picture_HW3[target] = cv2.multiply(picture_HW3[target], left_HW3, scale=1 / 255)


def _fill(picture: Pixels, polygon: NDArray[np.int32], colour: int | tuple[float, ...]) -> None:
    cv2.fillPoly(picture, [polygon], colour, cv2.LINE_AA, SUBPIXEL_BITS)


def _fill_with(picture_HW3: Pixels, polygon: NDArray[np.int32], pattern_HW3: Pixels) -> None:
    mask_HW = np.zeros(picture_HW3.shape[:2], np.uint8)
    _fill(mask_HW, polygon, 255)
    cv2.copyTo(pattern_HW3, mask_HW, picture_HW3)


@cache
def _outline(shape: str) -> tuple[Floats32, NDArray[np.int64]]:
    parts = shape_parts(shape)
    return np.concatenate([part.points_P2 for part in parts]), np.cumsum([len(part.points_P2) for part in parts])


@cache
def _tile(texture: str, side: int) -> Pixels:
    """Return a texture's repeating tile [side, side]: the weight of the trim colour, 0 to 255."""
    fine = np.linspace(0, 1, 256, endpoint=False, dtype=np.float32)
    weight_TT = (TEXTURES[texture](*np.meshgrid(fine, fine)) * 255).astype(np.uint8)
    return cv2.resize(weight_TT, (side, side), interpolation=cv2.INTER_AREA)  # type: ignore[no-any-return]


def _dots(x: Floats32, y: Floats32) -> Weights:
    near_TT: Weights = np.minimum((x - 0.25) ** 2 + (y - 0.25) ** 2, (x - 0.75) ** 2 + (y - 0.75) ** 2)
    return near_TT < 0.022


def _patches(x: Floats32, y: Floats32) -> Weights:
    bent_x, bent_y = x + 0.15 * np.sin(4 * np.pi * y), y + 0.15 * np.sin(2 * np.pi * x)
    wave_TT: Weights = np.abs(np.sin(2 * np.pi * bent_x) * np.sin(2 * np.pi * bent_y))
    return wave_TT > 0.35


def _fluff(x: Floats32, y: Floats32) -> Weights:
    curl_TT: Weights = np.sin(8 * np.pi * x + 2 * np.sin(4 * np.pi * y)) * np.sin(8 * np.pi * y)
    return 0.25 + 0.25 * curl_TT


TEXTURES: dict[str, Callable[[Floats32, Floats32], Weights]] = {
    "plain": lambda x, y: np.zeros_like(x),
    "stripes": lambda x, y: (2 * x) % 1 < 0.42,
    "bands": lambda x, y: (2 * y) % 1 < 0.35,
    "checks": lambda x, y: (x < 0.5) ^ (y < 0.5),
    "grid": lambda x, y: (x % 0.5 < 0.1) | (y % 0.5 < 0.1),
    "dots": _dots,
    "waves": lambda x, y: (2 * y + 0.35 * np.abs(2 * (2 * x % 1) - 1)) % 1 < 0.4,
    "wedges": lambda x, y: (x + y) % 0.5 < 0.25,
    "rings": lambda x, y: np.hypot(x - 0.5, y - 0.5) % 0.25 < 0.1,
    "patches": _patches,
    "fluff": _fluff,
}


@cache
def _noise_bank() -> Floats32:
    return np.random.default_rng(0).standard_normal((MAX_SIDE_PX + 256, MAX_SIDE_PX + 256), dtype=np.float32)


def _noise(height_px: int, width_px: int, rng: Generator) -> Floats32:
    top, left = rng.integers(0, 256, 2)
    return _noise_bank()[top : top + height_px, left : left + width_px]
