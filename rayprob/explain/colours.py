"""The colours of maps: red where a place speaks for a label, blue where it speaks against it, clear at 0."""

import numpy as np
from matplotlib.colors import LinearSegmentedColormap

from rayprob.arrays import Floats, Pixels

FOR, AGAINST = "#d7301f", "#2b6cb0"
OPACITY = 0.75


def _rgba(colour: str, opacity: float) -> tuple[float, float, float, float]:
    red, green, blue = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    return red, green, blue, opacity


def scaled(grid_HW: Floats) -> Floats:
    """Return a map in -1..1: divided by its largest absolute value, or 0 where it is 0 everywhere."""
    return grid_HW / (np.abs(grid_HW).max() or 1.0)


def overlay(grid_HW: Floats) -> Pixels:
    """Return a map as RGBA [H, W, 4], to draw on its image."""
    rgba_HW4: Pixels = np.round(255 * np.asarray(COLOURS((scaled(grid_HW) + 1) / 2))).astype(np.uint8)
    return rgba_HW4


COLOURS = LinearSegmentedColormap.from_list(
    "for and against", [_rgba(AGAINST, OPACITY), _rgba(AGAINST, 0.0), _rgba(FOR, 0.0), _rgba(FOR, OPACITY)]
)
