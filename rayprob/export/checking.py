"""Whether an exported file gives a bundle's answers: drawn images of several sizes and batches go through both."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from rayprob.arrays import Pixels
from rayprob.errors import ModelError
from rayprob.loader.augment import resize
from rayprob.probability.families import family_of
from rayprob.probability.graphs.probabilities import Probabilities
from rayprob.runs.bundle import Bundle
from rayprob.seeds import derive

TOLERANCE = 1e-4
CHECKED_BATCHES = (1, 2, 5)
EXAMPLE_PX = (97, 131)  # distinct from each other and from the batch, so that no two dimensions are confused
Reader = Callable[[Pixels], Sequence[NDArray[Any]]]  # images [N, H, W, 3] -> the outputs in order


@dataclass(frozen=True)
class Exported:
    """The written file: its outputs, its size, and the largest difference between it and PyTorch over `batches`."""

    path: str
    outputs: tuple[str, ...]
    size_bytes: int
    largest_difference: float
    batches: tuple[int, ...] = CHECKED_BATCHES


def require_packages(packages: Sequence[str], what: str) -> None:
    """Raise ModelError, which names the extra, if a package that `what` needs is missing."""
    missing = []
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError:
            missing.append(package)
    if missing:
        raise ModelError(f"{what} needs the packages {', '.join(missing)}, which are missing; run pip install 'rayprob[onnx]'")


def largest_difference(bundle: Bundle, read: Reader) -> float:
    """Return the largest difference of any output between a file and the bundle, over several batches and image sizes."""
    differences = []
    for batch in CHECKED_BATCHES:
        images_NHWC = drawn_images(batch)
        found = dict(zip(probabilities_of(bundle).names, read(images_NHWC), strict=True))
        wanted = expected(bundle, images_NHWC)
        differences += [float(np.abs(found[name] - wanted[name]).max()) for name in wanted]
    return float(np.max(differences))  # nan if any is, unlike Python's max


def require_agreement(difference: float, reader: str, packages: str) -> None:
    """Raise ModelError for a difference above TOLERANCE between `reader` and PyTorch, before anything is written."""
    if not difference <= TOLERANCE:  # nan also counts as disagreement
        raise ModelError(
            f"{reader} differs from PyTorch by {difference:.2g}, more than {TOLERANCE:g}, so nothing was written; "
            f"this model cannot be exported faithfully with these versions of {packages}"
        )


def expected(bundle: Bundle, images_NHWC: Pixels) -> dict[str, NDArray[Any]]:
    """Return the reference outputs, from the evaluation transform, PyTorch and the bundle's own calibration."""
    squashed = np.stack([resize(image_HWC, bundle.transform_spec.size_px) for image_HWC in images_NHWC])
    with torch.inference_mode():
        outputs = bundle.classifier(torch.from_numpy(squashed).permute(0, 3, 1, 2))
    return probabilities_of(bundle).expected(bundle.distribution(outputs))


def probabilities_of(bundle: Bundle) -> Probabilities:
    """Return the graph of a bundle's calibration. Raises ModelError for a family or calibrator that has none."""
    return family_of(bundle.classifier.family).build_graph(bundle.calibrator)


def drawn_images(batch: int, height_px: int | None = None, width_px: int | None = None) -> Pixels:
    """Return smooth random images of one size, which differs from batch to batch in the check."""
    random = np.random.default_rng(derive(0, "export", batch))
    height_px, width_px = height_px or int(random.integers(40, 700)), width_px or int(random.integers(40, 700))
    coarse = random.integers(0, 256, (batch, 9, 12, 3), dtype=np.uint8)
    return np.stack([cv2.resize(image, (width_px, height_px), interpolation=cv2.INTER_CUBIC) for image in coarse])
