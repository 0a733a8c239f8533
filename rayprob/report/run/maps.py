"""Maps of where a label is seen on the images of the page, as small PNGs for the top of their thumbnails."""

import base64
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby

import cv2

from rayprob.arrays import Pixels
from rayprob.errors import RayprobError
from rayprob.explain.colours import overlay
from rayprob.explain.explanation import Explanation
from rayprob.explain.members import Seen, explain
from rayprob.loader.augment import resize
from rayprob.runs.bundle import Bundle

LONG_SIDE_PX = 48  # of the PNG, which the browser enlarges smoothly
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelMap:
    """The map of a label as a data URI, the words for its largest place, and the method."""

    picture: str
    where: str
    method: str


def maps(
    bundle: Bundle | None, pixels_of: Mapping[int, Pixels], asked: Iterable[tuple[int, str]]
) -> dict[tuple[int, str], LabelMap]:
    """Return the maps of the labels asked for, by row and label, of images that are there.

    Returns none, with a line in the log, if the head cannot be explained or a package is missing: a page is complete without.
    """
    found: dict[tuple[int, str], LabelMap] = {}
    if bundle is None:
        return found
    try:
        for row, group in groupby(sorted(asked), key=lambda one: one[0]):
            if row in pixels_of:
                labels = [label for _, label in group]
                seen = Seen(bundle, resize(pixels_of[row], bundle.transform_spec.size_px))
                found |= {(row, one.label): _drawn(one, pixels_of[row]) for one in explain([seen], labels)}
    except RayprobError as error:
        log.info("the page has no maps of where labels are seen: %s", error)
    return found


def _drawn(one: Explanation, pixels_HWC: Pixels) -> LabelMap:
    """Return a map in the shape of its image, so that the page crops both alike."""
    height_px, width_px = pixels_HWC.shape[:2]
    scale = LONG_SIDE_PX / max(height_px, width_px)
    shape = max(round(width_px * scale), 1), max(round(height_px * scale), 1)
    rgba_HW4 = overlay(cv2.resize(one.grid_HW, shape, interpolation=cv2.INTER_CUBIC))
    _, png = cv2.imencode(".png", cv2.cvtColor(rgba_HW4, cv2.COLOR_RGBA2BGRA))
    return LabelMap("data:image/png;base64," + base64.b64encode(png.tobytes()).decode(), one.where, one.method)
