"""Converts the inputs of `Model.predict`: paths, bytes, PIL images, arrays [H, W, 3] and tensors [3, H, W]."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow

from rayprob.arrays import Pixels
from rayprob.errors import SampleError
from rayprob.images.decode import rgb_of
from rayprob.images.exif import orientation_of, turned
from rayprob.images.reading import ImageReading
from rayprob.predict.images import Image, ImageBytes, ImageFile
from rayprob.predict.pixels import DecodedImage

OneImage: TypeAlias = str | os.PathLike[str] | bytes | Pillow.Image | NDArray[Any] | torch.Tensor
Images: TypeAlias = list[Any] | tuple[Any, ...]  # of OneImage, but type checkers reject lists of mixed kinds

ALLOWED = "a path or URI, bytes of an image file, a PIL image, an array [H, W, 3] or a tensor [3, H, W], or a list of them"


@dataclass(frozen=True, eq=False)
class PillowImage:
    """A PIL image. One opened from a file has the orientation of that file, until `ImageOps.exif_transpose` turns it."""

    name: str
    image: Pillow.Image
    orientation: int
    sample_id: None = None

    @classmethod
    def of(cls, name: str, given: Pillow.Image) -> "PillowImage":
        """Return a copy, so that an answer keeps its image. Raises SampleError for an image whose range is unknown."""
        rgb_of(given)
        image = given.copy()
        image.format = given.format
        return cls(name, image, orientation_of(given.info.get("exif", b"")))

    def decode(self, reading: ImageReading) -> DecodedImage:
        """Return the pixels, upright where `reading` says so."""
        pixels_HWC = rgb_of(self.image, reading.window)
        return DecodedImage(turned(pixels_HWC, self.orientation) if reading.orientation == "upright" else pixels_HWC)


@dataclass(frozen=True, eq=False)
class ImagePixels:
    """An image as RGB in memory, uint8 [H, W, 3]."""

    name: str
    pixels_HWC: Pixels
    sample_id: None = None

    def decode(self, reading: ImageReading) -> DecodedImage:
        """Return the pixels."""
        return DecodedImage(self.pixels_HWC)


def images_of(given: object) -> tuple[list[Image], bool]:
    """Return the images passed to `Model.predict`, and whether it is a single one. Raises SampleError.

    Lists, tuples, and arrays or tensors with a batch dimension are several images.
    """
    if isinstance(given, list | tuple) or (isinstance(given, np.ndarray | torch.Tensor) and given.ndim == 4):
        return list(_named(given)), False
    return [_image(given, "image")], True


def _named(several: Iterable[Any]) -> Iterator[Image]:
    for place, one in enumerate(several):
        yield _image(one, f"images[{place}]")


def _image(given: object, name: str) -> Image:
    """Return one image; `name` names an image without a path."""
    match given:
        case str() | os.PathLike():
            return ImageFile(os.fspath(given))
        case bytes() | bytearray() | memoryview():
            return ImageBytes(name, bytes(given))
        case Pillow.Image():
            return PillowImage.of(name, given)
        case np.ndarray():
            return ImagePixels(name, _rgb(given, name, "array", "[H, W, 3] or [H, W]"))
        case torch.Tensor():
            array = given.detach().cpu()
            as_last = array.permute(1, 2, 0) if array.ndim == 3 else array
            array_HWC = (as_last.float() if as_last.is_floating_point() else as_last).numpy()
            return ImagePixels(name, _rgb(array_HWC, name, "tensor", "[3, H, W] or [H, W]", tuple(given.shape)))
    raise SampleError(f"{name} is a {type(given).__name__}; expected {ALLOWED}")


def _rgb(array: NDArray[Any], name: str, kind: str, layout: str, shape: tuple[int, ...] | None = None) -> Pixels:
    """Return an array [H, W, 3], or [H, W] for grey, as RGB uint8. `shape` is the one to report in an error."""
    shape = shape or array.shape
    grey = array.ndim == 2
    if not grey and (array.ndim != 3 or array.shape[2] != 3):
        raise SampleError(f"{name} has the wrong shape: {kind} {list(shape)}; expected {layout}")
    if not array.size:
        raise SampleError(f"{name} is empty: its shape is {list(shape)}")
    pixels = _bytes(array, name, kind)
    pixels_HWC: Pixels = np.require(np.repeat(pixels[:, :, None], 3, axis=2) if grey else pixels, np.uint8, ["C", "W"])
    return pixels_HWC  # in a layout that torch accepts without a copy or a warning


def _bytes(array: NDArray[Any], name: str, kind: str) -> NDArray[np.uint8]:
    """Return uint8 unchanged, and floats from 0 to 1 as the nearest of 256 steps."""
    if array.dtype == np.uint8:
        return np.asarray(array, dtype=np.uint8)
    if not np.issubdtype(array.dtype, np.floating):
        raise SampleError(f"{name} has values of type {array.dtype}; expected uint8, or floats from 0 to 1")
    lowest, highest = float(array.min()), float(array.max())
    if not (lowest >= 0 and highest <= 1):  # also true for nan
        raise SampleError(
            f"{name} has values from {lowest:.4g} to {highest:.4g}; expected a float {kind} with values from 0 to 1, without "
            "normalization by mean and standard deviation, which the model applies itself"
        )
    return np.asarray(np.rint(array * 255), dtype=np.uint8)
