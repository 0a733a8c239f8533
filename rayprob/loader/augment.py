"""Transforms by name: an image file and a seed in, uint8 [size_px, size_px, 3] out, the same bytes for the same seed.

Every random choice comes from the seed alone, never from a global generator.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, Self, cast

import cv2
import numpy as np
import torch
from pydantic import Field, model_validator

from rayprob.arrays import Pixels
from rayprob.config.parts import PartSpec
from rayprob.config.spec import Spec
from rayprob.images.decode import EncodedImage
from rayprob.loader.randaugment import randaugment
from rayprob.registry import PartTable, choose


class StrongSpec(Spec):
    """What `strong` adds to a flip; a part is off at 0."""

    crop_probability: float = Field(default=0.5, ge=0, le=1)
    """Probability of a random crop; the whole image is squashed otherwise."""
    min_area: float = Field(default=0.25, gt=0, le=1)
    """Smallest crop, as a fraction of the image's area."""
    randaugment_ops: int = Field(default=2, ge=0, le=14)
    """Operations of RandAugment per image."""
    randaugment_magnitude: int = Field(default=9, ge=0, le=30)
    """Their magnitude, 0 to 30."""
    cutout: float = Field(default=0.5, ge=0, le=1)
    """Side of the square that is blanked out, as a fraction of size_px."""
    cutout_probability: float = Field(default=0.5, ge=0, le=1)
    """Probability of a cutout."""


class TransformSpec(PartSpec):
    """How an image becomes an input: `resize` for evaluation, `paper` and `strong` for training."""

    kind: ClassVar[str] = "transform"

    name: str = "resize"
    """resize for evaluation; paper or strong for training; or a plugin's."""
    size_px: int = Field(default=448, gt=0, le=16_384)
    """Height and width of the input, in pixels."""

    @classmethod
    def table(cls) -> "Mapping[str, Callable[..., Transform]]":
        return TRANSFORMS


class OwnTransformSpec(TransformSpec):
    """The transforms of this module; each of them records the options of `strong`."""

    strong: StrongSpec = StrongSpec()
    """Settings of `strong`."""

    @model_validator(mode="after")
    def _strong_is_used(self) -> Self:
        if self.name != "strong" and self.strong != StrongSpec():
            raise ValueError(f"the part `strong` is set, but the transform is {self.name!r}; use name: strong, or remove it")
        return self


class Transform(Protocol):
    """An image file and a seed -> uint8 [size_px, size_px, 3]. Raises SampleError for a file that does not decode.

    A transform may write its image into `into` and return that array, which saves an allocation.
    """

    @property
    def size_px(self) -> int:
        """Height and width of the returned image."""
        ...

    def __call__(self, image: EncodedImage, seed: int, into: Pixels | None = None) -> Pixels:
        """Return the transformed image."""
        ...


def build_transform(spec: TransformSpec) -> Transform:
    """Return the transform that a spec describes; it can be pickled."""
    return choose(TRANSFORMS, spec.name, "transform")(spec)


@dataclass(frozen=True)
class Resize:
    """Squash the whole image to a square, antialiased; the seed is ignored."""

    size_px: int

    def __call__(self, image: EncodedImage, seed: int, into: Pixels | None = None) -> Pixels:
        """Return the squashed image."""
        return resize(image.decode(), self.size_px)


@dataclass(frozen=True)
class Paper:
    """Squash and flip: half of the seeds mirror the image."""

    size_px: int

    def __call__(self, image: EncodedImage, seed: int, into: Pixels | None = None) -> Pixels:
        """Return the squashed image, mirrored or not."""
        return _flipped(resize(image.decode(), self.size_px), random.Random(seed), into)


@dataclass(frozen=True)
class Strong:
    """Squash or crop at random, flip, RandAugment (Cubuk et al., 2020), cutout (DeVries and Taylor, 2017)."""

    size_px: int
    spec: StrongSpec

    def __call__(self, image: EncodedImage, seed: int, into: Pixels | None = None) -> Pixels:
        """Return the augmented image."""
        chance, pixels = random.Random(seed), image.decode()
        if chance.random() < self.spec.crop_probability:
            pixels = random_crop(pixels, self.spec.min_area, chance)
        pixels = _flipped(resize(pixels, self.size_px), chance)
        pixels = randaugment(pixels, self.spec.randaugment_ops, self.spec.randaugment_magnitude, chance)
        if chance.random() < self.spec.cutout_probability:
            pixels = cutout(pixels, self.spec.cutout, chance)
        return pixels


def resize(image: Pixels, size_px: int) -> Pixels:
    """Return the image squashed to a square: bilinear, antialiased when shrinking, as in Pillow and torchvision."""
    # This stride order makes torch choose its kernel for interleaved bytes, and return [height, width, 3] without a copy.
    pixels_BCHW = torch.from_numpy(image)[None].permute(0, 3, 1, 2)
    resized_BCHW = torch.nn.functional.interpolate(
        pixels_BCHW, (size_px, size_px), mode="bilinear", antialias=True, align_corners=False
    )
    squashed: Pixels = resized_BCHW.permute(0, 2, 3, 1)[0].contiguous().numpy()
    return squashed


def random_crop(image: Pixels, min_area: float, chance: random.Random) -> Pixels:
    """Return a crop with `min_area` to 1 of the image's area and an aspect of 3:4 to 4:3, or the image if ten do not fit."""
    height_px, width_px, _ = image.shape
    for _ in range(10):
        area_px2 = height_px * width_px * chance.uniform(min_area, 1.0)
        aspect = (4 / 3) ** chance.uniform(-1.0, 1.0)
        crop_height_px, crop_width_px = round((area_px2 / aspect) ** 0.5), round((area_px2 * aspect) ** 0.5)
        if 0 < crop_height_px <= height_px and 0 < crop_width_px <= width_px:
            top = chance.randint(0, height_px - crop_height_px)
            left = chance.randint(0, width_px - crop_width_px)
            return np.ascontiguousarray(image[top : top + crop_height_px, left : left + crop_width_px])
    return image


def cutout(image: Pixels, side: float, chance: random.Random) -> Pixels:
    """Return the image with a square, `side` times its size, filled with a random colour; it may be partly outside."""
    size_px = image.shape[0]
    half_px = int(size_px * side / 2)
    row, column = chance.randrange(size_px), chance.randrange(size_px)
    colour = [chance.randrange(256) for _ in range(3)]
    image = image.copy()
    image[max(0, row - half_px) : row + half_px, max(0, column - half_px) : column + half_px] = colour
    return image


def _flipped(image: Pixels, chance: random.Random, into: Pixels | None = None) -> Pixels:
    return cast(Pixels, cv2.flip(image, 1, dst=into)) if chance.random() < 0.5 else image


def _resize(spec: OwnTransformSpec) -> Transform:
    return Resize(spec.size_px)


def _paper(spec: OwnTransformSpec) -> Transform:
    return Paper(spec.size_px)


def _strong(spec: OwnTransformSpec) -> Transform:
    return Strong(spec.size_px, spec.strong)


TRANSFORMS: PartTable[Callable[..., Transform]] = PartTable(
    "TRANSFORMS", {"resize": _resize, "paper": _paper, "strong": _strong}
)
