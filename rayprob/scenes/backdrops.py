"""Backgrounds of drawn scenes: muted places full of things without a label.

Pictures are uint8 RGB [H, W, 3]. No backdrop depends on the labels, so only the objects of a picture reveal them.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator

from rayprob.arrays import Pixels

Colour = tuple[float, float, float]

SKIES: tuple[Colour, ...] = ((186, 206, 222), (205, 214, 220), (222, 208, 200), (160, 176, 198), (120, 130, 150))
GROUNDS: tuple[Colour, ...] = (
    (150, 162, 122),
    (176, 166, 138),
    (128, 138, 118),
    (162, 158, 156),
    (198, 190, 172),
    (226, 228, 232),
)
WALLS: tuple[Colour, ...] = (
    (214, 206, 190),
    (186, 196, 186),
    (178, 190, 204),
    (206, 188, 186),
    (168, 164, 160),
    (224, 220, 212),
)
WOODS: tuple[Colour, ...] = ((168, 146, 124), (146, 128, 112), (190, 172, 150), (120, 108, 100), (178, 176, 172))


def backdrop(height_px: int, width_px: int, rng: Generator) -> Pixels:
    """Return a random background in muted colours, with scraps scattered over it."""
    places = tuple(PLACES.values())
    picture_HW3 = places[rng.integers(len(places))](height_px, width_px, rng)
    _scatter(picture_HW3, rng)
    return _uneven(picture_HW3, rng)


def _outdoors(height_px: int, width_px: int, rng: Generator) -> Pixels:
    """A sky with clouds over hills and a ground with bushes."""
    sky, ground = _pick(SKIES, rng), _pick(GROUNDS, rng)
    horizon = height_px * rng.uniform(0.3, 0.65)
    picture_HW3 = _gradient(height_px, width_px, _shaded(sky, 0.86), _shaded(sky, 1.08))
    for _ in range(rng.integers(0, 4)):
        _cloud(
            picture_HW3, rng.uniform(0, width_px), rng.uniform(0, horizon * 0.7), width_px * rng.uniform(0.04, 0.1), sky, rng
        )
    for depth in (0.0, 0.05, 0.1):
        _hills(picture_HW3, horizon + depth * height_px, _mixed(sky, ground, 0.45 + 5 * depth), rng)
    for _ in range(rng.integers(2, 9)):
        base = horizon + height_px * rng.uniform(0.02, 0.5)
        _bush(picture_HW3, rng.uniform(0, width_px), base, height_px * rng.uniform(0.03, 0.09), _shaded(ground, 0.8), rng)
    return picture_HW3


def _street(height_px: int, width_px: int, rng: Generator) -> Pixels:
    """Houses with rows of windows behind a road."""
    sky, road = _pick(SKIES, rng), _shaded(_pick(WALLS[4:5], rng), rng.uniform(0.7, 0.95))
    picture_HW3 = _gradient(height_px, width_px, _shaded(sky, 0.9), _shaded(sky, 1.08))
    kerb, left = int(height_px * rng.uniform(0.5, 0.75)), -int(width_px * rng.uniform(0, 0.1))
    while left < width_px:
        right = left + int(width_px * rng.uniform(0.12, 0.28))
        _house(picture_HW3, left, int(kerb * rng.uniform(0.1, 0.6)), right, kerb, rng)
        left = right
    cv2.rectangle(picture_HW3, (0, kerb), (width_px, height_px), road, -1)
    cv2.rectangle(picture_HW3, (0, kerb), (width_px, kerb + max(1, height_px // 25)), _shaded(road, 1.2), -1)
    dash_px, middle = max(4, width_px // 9), (kerb + height_px) // 2
    for x in range(rng.integers(dash_px), width_px, 2 * dash_px):
        cv2.line(picture_HW3, (x, middle), (x + dash_px, middle), _shaded(road, 1.3), max(1, height_px // 60))
    return picture_HW3


def _indoors(height_px: int, width_px: int, rng: Generator) -> Pixels:
    """A papered wall with frames over a floor of boards, and a rug."""
    wall, wood = _pick(WALLS, rng), _pick(WOODS, rng)
    picture_HW3 = _gradient(height_px, width_px, _shaded(wall, 1.04), _shaded(wall, 0.9))
    step_px = max(4, int(max(height_px, width_px) * rng.uniform(0.04, 0.12)))
    for x in range(rng.integers(step_px), width_px, step_px) if rng.random() < 0.6 else ():
        cv2.line(picture_HW3, (x, 0), (x, height_px), _shaded(wall, 0.92), max(1, step_px // 4))
    edge = int(height_px * rng.uniform(0.5, 0.75))
    for _ in range(rng.integers(1, 4)):
        _frame(picture_HW3, rng.uniform(0, width_px), rng.uniform(0.1, 0.8) * edge, height_px * rng.uniform(0.05, 0.14), rng)
    _boards(picture_HW3, edge, wood, rng)
    cv2.rectangle(picture_HW3, (0, edge - max(1, height_px // 40)), (width_px, edge), _shaded(wall, 1.12), -1)
    rug = (int(rng.uniform(0.2, 0.8) * width_px), int((edge + height_px) / 2))
    axes = (int(width_px * rng.uniform(0.15, 0.35)), max(2, (height_px - edge) // 3))
    cv2.ellipse(picture_HW3, rug, axes, 0, 0, 360, _pick(WALLS, rng), -1, cv2.LINE_AA)
    cv2.ellipse(picture_HW3, rug, axes, 0, 0, 360, _shaded(wood, 0.8), max(1, height_px // 60), cv2.LINE_AA)
    return picture_HW3


def _tabletop(height_px: int, width_px: int, rng: Generator) -> Pixels:
    """A table seen from above, planked or under a checked cloth, with rings left by glasses."""
    wood, side_px = _pick(WOODS, rng), max(height_px, width_px)
    picture_HW3 = _gradient(height_px, width_px, _shaded(wood, 1.1), wood)
    step_px = max(5, int(side_px * rng.uniform(0.08, 0.2)))
    if rng.random() < 0.5:
        cloth = _shaded(_pick(WALLS, rng), 1.05)
        picture_HW3[:] = cloth
        lines = np.zeros((height_px, width_px, 1), np.float32)
        lines[:, np.arange(width_px) % step_px < step_px // 2] += 0.09
        lines[np.arange(height_px) % step_px < step_px // 2] += 0.09
        picture_HW3[:] = (picture_HW3 * (1 - lines)).astype(np.uint8)
    else:
        for y in range(rng.integers(step_px), height_px, step_px):
            cv2.line(picture_HW3, (0, y), (width_px, y), _shaded(wood, 0.8), max(1, side_px // 160))
    for _ in range(rng.integers(1, 5)):
        centre = (int(rng.uniform(0, width_px)), int(rng.uniform(0, height_px)))
        cv2.circle(
            picture_HW3, centre, int(side_px * rng.uniform(0.03, 0.14)), _shaded(wood, 0.88), max(1, side_px // 90), cv2.LINE_AA
        )
    return picture_HW3


def _haze(height_px: int, width_px: int, rng: Generator) -> Pixels:
    """Lights out of focus over two colours that blend into each other."""
    upper, lower = _pick(SKIES + WALLS, rng), _pick(GROUNDS + WOODS, rng)
    picture_HW3 = _gradient(height_px, width_px, upper, lower)
    layer_HW3 = picture_HW3.copy()
    for _ in range(rng.integers(6, 18)):
        centre = (int(rng.uniform(0, width_px)), int(rng.uniform(0, height_px)))
        radius = int(max(height_px, width_px) * rng.uniform(0.02, 0.1))
        cv2.circle(layer_HW3, centre, radius, _shaded(_pick(SKIES + WALLS, rng), 1.12), -1, cv2.LINE_AA)
    return _over(picture_HW3, layer_HW3, 0.35)


def _cloud(picture_HW3: Pixels, x: float, y: float, radius: float, sky: Colour, rng: Generator) -> None:
    for _ in range(4):
        centre = (int(x + radius * rng.uniform(-1.4, 1.4)), int(y + radius * rng.uniform(-0.2, 0.2)))
        axes = (max(1, int(radius)), max(1, int(radius * 0.45)))
        cv2.ellipse(picture_HW3, centre, axes, 0, 0, 360, _shaded(sky, 1.14), -1, cv2.LINE_AA)


def _hills(picture_HW3: Pixels, level: float, colour: Colour, rng: Generator) -> None:
    height_px, width_px, _ = picture_HW3.shape
    x_P = np.linspace(0, width_px, 24)
    phase, waves = rng.uniform(0, 2 * np.pi, 2), rng.uniform(0.6, 2.2, 2)
    y_P = level + height_px * 0.035 * np.sin(waves[:, None] * 2 * np.pi * x_P / width_px + phase[:, None]).sum(axis=0)
    ridge_P2 = np.concatenate([np.stack([x_P, y_P], axis=1), [[width_px, height_px], [0, height_px]]])
    cv2.fillPoly(picture_HW3, [ridge_P2.astype(np.int32)], colour, cv2.LINE_AA)


def _bush(picture_HW3: Pixels, x: float, base: float, radius: float, colour: Colour, rng: Generator) -> None:
    tone = _shaded(colour, rng.uniform(0.85, 1.1))
    cv2.ellipse(
        picture_HW3,
        (int(x), int(base)),
        (max(1, int(radius * 1.5)), max(1, int(radius * 0.3))),
        0,
        0,
        360,
        _shaded(colour, 0.9),
        -1,
    )
    for shift in (-0.7, 0.0, 0.7):
        centre = (int(x + shift * radius), int(base - radius * (0.6 if shift else 0.9)))
        cv2.circle(picture_HW3, centre, max(1, int(radius * 0.65)), tone, -1, cv2.LINE_AA)


def _house(picture_HW3: Pixels, left: int, top: int, right: int, bottom: int, rng: Generator) -> None:
    wall = _shaded(_pick(WALLS + WOODS, rng), rng.uniform(0.8, 1.0))
    cv2.rectangle(picture_HW3, (left, top), (right, bottom), wall, -1)
    cv2.rectangle(picture_HW3, (left, top), (right, top + max(1, (bottom - top) // 20)), _shaded(wall, 0.8), -1)
    step_px = max(5, (right - left) // int(rng.integers(3, 6)))
    pane_px = max(2, step_px // 2)
    for y in range(top + step_px // 2, bottom - pane_px, step_px):
        for x in range(left + step_px // 3, right - pane_px, step_px):
            cv2.rectangle(picture_HW3, (x, y), (x + pane_px, y + pane_px), _shaded(wall, 0.78), -1)


def _frame(picture_HW3: Pixels, x: float, y: float, half_px: float, rng: Generator) -> None:
    half_width, half_height = max(2, int(half_px * rng.uniform(0.8, 1.6))), max(2, int(half_px))
    corners = (int(x) - half_width, int(y) - half_height), (int(x) + half_width, int(y) + half_height)
    cv2.rectangle(picture_HW3, *corners, _pick(SKIES, rng), -1)
    cv2.circle(picture_HW3, (int(x), int(y) + half_height // 3), half_height // 2, _pick(GROUNDS, rng), -1, cv2.LINE_AA)
    cv2.rectangle(picture_HW3, *corners, _shaded(_pick(WOODS, rng), 0.8), max(1, half_height // 6))


def _boards(picture_HW3: Pixels, edge: int, wood: Colour, rng: Generator) -> None:
    height_px, width_px, _ = picture_HW3.shape
    cv2.rectangle(picture_HW3, (0, edge), (width_px, height_px), wood, -1)
    vanishing_x = rng.uniform(0, width_px)
    for x in np.linspace(-width_px, 2 * width_px, 18):
        start = (int(vanishing_x + (x - vanishing_x) * 0.45), edge)
        cv2.line(picture_HW3, start, (int(x), height_px), _shaded(wood, 0.86), 1, cv2.LINE_AA)


def _scatter(picture_HW3: Pixels, rng: Generator) -> None:
    """Scatter translucent scraps, sticks and pebbles."""
    height_px, width_px, _ = picture_HW3.shape
    side_px, layer_HW3 = max(height_px, width_px), picture_HW3.copy()
    for _ in range(rng.integers(5, 20)):
        tone = _shaded(_pick(WALLS + WOODS + GROUNDS, rng), rng.uniform(0.6, 1.1))
        centre_2 = rng.uniform(0, 1, 2) * (width_px, height_px)
        points_P2 = (centre_2 + rng.normal(0, side_px * rng.uniform(0.012, 0.05), (4, 2))).astype(np.int32)
        kind = rng.integers(3)
        if kind == 0:
            cv2.line(layer_HW3, points_P2[0].tolist(), points_P2[1].tolist(), tone, 1 + side_px // 160, cv2.LINE_AA)
        elif kind == 1:
            cv2.circle(layer_HW3, points_P2[0].tolist(), 1 + int(side_px * rng.uniform(0.004, 0.025)), tone, -1, cv2.LINE_AA)
        else:
            cv2.fillPoly(layer_HW3, [cv2.convexHull(points_P2)], tone, cv2.LINE_AA)
    picture_HW3[:] = _over(picture_HW3, layer_HW3, 0.7)


def _uneven(picture_HW3: Pixels, rng: Generator) -> Pixels:
    """Return the picture with coarse and fine blotches, so that no surface is flat."""
    height_px, width_px, _ = picture_HW3.shape
    blotches_HW = np.full((height_px, width_px), 128, np.float32)
    for cells, strength in ((4, 12), (24, 9)):
        coarse = rng.uniform(-strength, strength, (cells, cells)).astype(np.float32)
        blotches_HW += cv2.resize(coarse, (width_px, height_px), interpolation=cv2.INTER_LINEAR)
    level_HW3 = cv2.cvtColor(blotches_HW.astype(np.uint8), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(picture_HW3, 1, level_HW3, 1, -128)  # type: ignore[no-any-return]


def _gradient(height_px: int, width_px: int, upper: Colour, lower: Colour) -> Pixels:
    down_H1 = np.linspace(0, 1, height_px)[:, None]
    rows_H3 = np.clip(np.array(upper) + (np.array(lower) - upper) * down_H1, 0, 255).astype(np.uint8)
    return cv2.repeat(rows_H3[:, None], 1, width_px)  # type: ignore[no-any-return]


def _over(picture_HW3: Pixels, layer_HW3: Pixels, opacity: float) -> Pixels:
    return cv2.addWeighted(layer_HW3, opacity, picture_HW3, 1 - opacity, 0)  # type: ignore[no-any-return]


def _pick(colours: tuple[Colour, ...], rng: Generator) -> Colour:
    """Return one of the colours, slightly varied."""
    red, green, blue = colours[rng.integers(len(colours))]
    shift = rng.uniform(-12, 12, 3).tolist()
    return (red + shift[0], green + shift[1], blue + shift[2])


def _shaded(colour: Colour, gain: float) -> Colour:
    return (min(255.0, colour[0] * gain), min(255.0, colour[1] * gain), min(255.0, colour[2] * gain))


def _mixed(first: Colour, second: Colour, share: float) -> Colour:
    red, green, blue = ((1 - share) * a + share * b for a, b in zip(first, second, strict=True))
    return (red, green, blue)


PLACES: dict[str, Callable[[int, int, Generator], Pixels]] = {
    "outdoors": _outdoors,
    "street": _street,
    "indoors": _indoors,
    "tabletop": _tabletop,
    "haze": _haze,
}
