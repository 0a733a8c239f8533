"""`Explanation`: a map of one label over an image. H rows, W columns."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from rayprob.arrays import Floats
from rayprob.files.documents import json_values

WHOLE_IMAGE = (0.0, 0.0, 1.0, 1.0)
ROWS, COLUMNS = ("top", "centre", "bottom"), ("left", "centre", "right")


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where a label is seen in an image: a grid of values, the top row first.

    The logit is the log-odds of the label's marginal before calibration, evidence and label prior. With `exact`, it is the sum
    of the grid and `rest`, the part that belongs to no place, such as the bias. The grid covers `box` of the image as the
    network saw it: left, top, right and bottom as fractions.
    """

    label: str
    method: str
    grid_HW: Floats
    exact: bool
    logit: float | None = None
    rest: float | None = None
    box: tuple[float, float, float, float] = WHOLE_IMAGE

    @property
    def peak(self) -> tuple[float, float]:
        """The centre of the largest cell: its x from the left and y from the top, as fractions of the image."""
        row, column = np.unravel_index(int(self.grid_HW.argmax()), self.grid_HW.shape)
        left, top, right, bottom = self.box
        height, width = self.grid_HW.shape
        return left + (column + 0.5) / width * (right - left), top + (row + 0.5) / height * (bottom - top)

    @property
    def where(self) -> str:
        """The place of the peak in words, such as `centre left`; `nowhere` for a map that is 0 or less everywhere."""
        if not self.grid_HW.max() > 0:
            return "nowhere"
        x, y = self.peak
        row, column = ROWS[min(int(3 * y), 2)], COLUMNS[min(int(3 * x), 2)]
        return row if row == column else f"{row} {column}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON: numbers have six significant digits, and `values` is the rows of the grid."""
        height, width = self.grid_HW.shape
        facts = {"label": self.label, "method": self.method, "exact": self.exact, "logit": self.logit, "rest": self.rest}
        found: dict[str, Any] = json_values(
            facts | {"height": height, "width": width, "box": self.box, "values": self.grid_HW.tolist()}
        )
        return found
