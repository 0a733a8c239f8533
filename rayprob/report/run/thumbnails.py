"""Images of samples, and thumbnails of them as small JPEG data URIs; a page contains its images."""

import base64
import logging
from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from rayprob.arrays import Pixels
from rayprob.data.manifest.dataset import Manifest
from rayprob.errors import RayprobError
from rayprob.images.decode import decode
from rayprob.loader.reader import SampleReader
from rayprob.loader.shards import LocalShards, RangeReads, are_local
from rayprob.report.run.files import Note, RunFiles
from rayprob.text import counted

LONG_SIDE_PX = 200
QUALITY = 72
log = logging.getLogger(__name__)


def pictures(files: RunFiles, rows: Iterable[int]) -> tuple[dict[int, Pixels], list[Note]]:
    """Return the images of rows of the predictions that can be read, RGB [H, W, 3], and a note if some cannot."""
    if files.dataset is None or files.split not in files.dataset.splits:
        return {}, []
    manifest = files.dataset.split(files.split)
    place = {sample_id: row for row, sample_id in enumerate(manifest.sample_ids_N.tolist())}
    members = [(SampleReader(one.manifest.root, _shards(one.manifest)), one.manifest.reading) for one in manifest.members]
    found: dict[int, Pixels] = {}
    faults = []
    for row in sorted(set(rows)):
        try:
            sample = manifest.sample(place[int(files.predictions.sample_ids_N[row])])
            reader, reading = members[sample.member]
            found[row] = decode(reader.read(sample), reading)
        except (RayprobError, ValueError, KeyError) as error:
            faults.append(str(error))
    if not faults:
        return found, []
    log.warning("%d images cannot be shown: %s", len(faults), faults[0])
    return found, [Note(f"{counted(len(faults), 'image')} cannot be shown; the first error: {faults[0]}")]


def shrunk(image_HW3: NDArray[np.uint8]) -> str:
    """Return an RGB image as a data URI of a JPEG of at most LONG_SIDE_PX."""
    height_px, width_px, _ = image_HW3.shape
    scale = LONG_SIDE_PX / max(height_px, width_px)
    small_HW3: Any = image_HW3
    if scale < 1:
        shape = max(round(width_px * scale), 1), max(round(height_px * scale), 1)
        small_HW3 = cv2.resize(image_HW3, shape, interpolation=cv2.INTER_AREA)
    small: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(small_HW3), quality=QUALITY, colorsubsampling="420")
    return "data:image/jpeg;base64," + base64.b64encode(small).decode()


def _shards(manifest: Manifest) -> LocalShards | RangeReads:
    return LocalShards(manifest.root) if are_local(manifest.root, manifest.shards) else RangeReads(manifest.root)
