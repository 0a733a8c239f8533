"""Maps of where labels are seen, drawn over their image: a panel per label. H rows and W columns of a map."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from rayprob.arrays import Floats, Pixels
from rayprob.explain.explanation import Explanation
from rayprob.text import cut, printable

PER_ROW = 4
TITLE_CELLS = 34
TITLE_INCHES = 0.42
FOR, AGAINST = "#d7301f", "#2b6cb0"
VEIL = 0.35  # how much of the image's colour stays, so that colours of the map stand out


def maps_height(pixels_HWC: Pixels, number: int, width_inches: float) -> float:
    """Return the height in inches of the panels for `number` labels."""
    panel_inches = width_inches / PER_ROW * min(pixels_HWC.shape[0] / pixels_HWC.shape[1], 1.5)
    return math.ceil(number / PER_ROW) * (panel_inches + TITLE_INCHES)


def draw_maps(figure: Any, pixels_HWC: Pixels, explanations: Sequence[Explanation]) -> None:
    """Draw a panel per label: the image in grey, red where it speaks for the label and blue where it speaks against it.

    Each map has its own scale, whose end its title states.
    """
    rows = math.ceil(len(explanations) / PER_ROW)
    panels = figure.subplots(rows, PER_ROW, squeeze=False).flatten()
    grey_HW = pixels_HWC.mean(axis=2)
    backdrop_HWC = (VEIL * pixels_HWC + (1 - VEIL) * (127 + grey_HW[:, :, None] / 2)).astype(np.uint8)
    for axes in panels:
        axes.set_axis_off()
        axes.set_anchor("NW")
    for axes, one in zip(panels, explanations, strict=False):
        _panel(axes, backdrop_HWC, one)


def _panel(axes: Axes, backdrop_HWC: Pixels, one: Explanation) -> None:
    height_px, width_px = backdrop_HWC.shape[:2]
    left, top, right, bottom = one.box
    largest = float(np.abs(one.grid_HW).max())
    axes.imshow(backdrop_HWC, extent=(0, width_px, height_px, 0))
    axes.imshow(
        one.grid_HW / (largest or 1.0),
        cmap=COLOURS,
        vmin=-1,
        vmax=1,
        interpolation="bicubic" if one.grid_HW.size > 1 else "nearest",
        extent=(left * width_px, right * width_px, bottom * height_px, top * height_px),
    )
    axes.set_xlim(0, width_px)
    axes.set_ylim(height_px, 0)
    axes.set_title(_title(one, largest), loc="left", fontsize=8.5, color="#1f2933", linespacing=1.3)


def _title(one: Explanation, largest: float) -> str:
    scale = f"{one.method}, up to {largest:.2g}" if largest else f"{one.method}: 0 everywhere"
    return f"{cut(printable(one.label), TITLE_CELLS)}\n{scale}"


def _rgba(colour: str, opacity: float) -> tuple[float, float, float, float]:
    red, green, blue = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    return red, green, blue, opacity


def overlay(grid_HW: Floats) -> Pixels:
    """Return a map as RGBA [H, W, 4] in the colours of the panels, scaled by its largest value."""
    scaled_HW = grid_HW / (np.abs(grid_HW).max() or 1.0)
    rgba_HW4: Pixels = np.round(255 * COLOURS((scaled_HW + 1) / 2)).astype(np.uint8)
    return rgba_HW4


COLOURS = LinearSegmentedColormap.from_list(
    "for and against", [_rgba(AGAINST, 0.75), _rgba(AGAINST, 0.0), _rgba(FOR, 0.0), _rgba(FOR, 0.75)]
)
