"""Maps of where labels are seen, drawn over their image: a panel per label. H rows and W columns of a map."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from rayprob.arrays import Pixels
from rayprob.explain.colours import COLOURS, scaled
from rayprob.explain.explanation import Explanation
from rayprob.text import cut, printable

PER_ROW = 4
TITLE_CELLS = 34
TITLE_INCHES = 0.42
VEIL = 0.35  # how much of the image's colour stays, so that colours of the map stand out


def maps_height(pixels_HWC: Pixels, number: int, width_inches: float) -> float:
    """Return the height in inches of the panels for `number` labels."""
    panel_inches: float = width_inches / PER_ROW * min(pixels_HWC.shape[0] / pixels_HWC.shape[1], 1.5)
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
        scaled(one.grid_HW),
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
