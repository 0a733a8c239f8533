"""Transforms, against Pillow and torchvision."""

import io
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from torchvision.transforms import InterpolationMode, v2

from rayprob.errors import SpecError
from rayprob.images.decode import EncodedImage
from rayprob.images.reading import READ_UPRIGHT
from rayprob.loader.augment import StrongSpec, TransformSpec, build_transform, cutout, random_crop, resize
from rayprob.loader.randaugment import OPERATIONS, randaugment
from tests.loader.tiny import photo

NAMES = ("resize", "paper", "strong")


def scene(height_px: int = 60, width_px: int = 80, seed: int = 0) -> np.ndarray:
    """Return a smooth image in colour, on which resampling filters agree."""
    coarse = np.random.default_rng(seed).integers(20, 220, (5, 6, 3), dtype=np.uint8)
    return np.array(Pillow.fromarray(coarse).resize((width_px, height_px), Pillow.Resampling.BICUBIC))


def encoded(image: np.ndarray, mode: str = "RGB", kind: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Pillow.fromarray(image).convert(mode).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 2**63 - 1))
@settings(max_examples=25, deadline=None)
def test_a_transform_depends_on_its_seed_alone(name: str, seed: int) -> None:
    transform = build_transform(TransformSpec(name=name, size_px=20))
    jpeg, state = EncodedImage(photo(3), READ_UPRIGHT), torch.get_rng_state()
    image = transform(jpeg, seed)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    assert (pickle.loads(pickle.dumps(transform))(jpeg, seed) == image).all()
    into = np.zeros((2, 20, 20, 3), dtype=np.uint8)[1]
    assert (transform(jpeg, seed, into) == image).all()
    assert image.shape == (20, 20, 3)
    assert image.dtype == np.uint8
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ["paper", "strong"])
def test_training_transforms_differ_between_seeds(name: str) -> None:
    transform = build_transform(TransformSpec(name=name, size_px=20))
    assert len({transform(EncodedImage(photo(3), READ_UPRIGHT), seed).tobytes() for seed in range(20)}) == (
        2 if name == "paper" else 20
    )


def test_paper_shows_the_image_or_its_mirror() -> None:
    jpeg = EncodedImage(photo(3), READ_UPRIGHT)
    straight = build_transform(TransformSpec(name="resize", size_px=20))(jpeg, 0)
    seen = [build_transform(TransformSpec(name="paper", size_px=20))(jpeg, seed) for seed in range(200)]
    mirrored = sum((image == straight[:, ::-1]).all() for image in seen)
    assert mirrored + sum((image == straight).all() for image in seen) == 200
    assert 70 < mirrored < 130


@pytest.mark.parametrize(("height_px", "width_px"), [(60, 80), (30, 300), (16, 16), (300, 10), (10, 10)])
def test_resize_is_pillows_antialiased_bilinear(height_px: int, width_px: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height_px, width_px, 3), dtype=np.uint8)
    ours, pillows = resize(image, 24), np.asarray(Pillow.fromarray(image).resize((24, 24), Pillow.Resampling.BILINEAR))
    assert np.abs(ours.astype(int) - pillows).max() <= 1


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.05, 1), st.integers(0, 1000))
@settings(max_examples=100, deadline=None)
def test_crops_lie_inside_and_keep_their_share_of_the_area(height_px: int, width_px: int, min_area: float, seed: int) -> None:
    image = np.arange(height_px * width_px * 3, dtype=np.uint32).astype(np.uint8).reshape(height_px, width_px, 3)
    crop = random_crop(image, min_area, random.Random(seed))
    assert crop.shape[0] <= height_px
    assert crop.shape[1] <= width_px
    # Rounding the sides moves the area by at most half a row and half a column.
    assert (crop.shape[0] + 0.5) * (crop.shape[1] + 0.5) >= min_area * height_px * width_px


def test_cutout_puts_out_one_square_of_one_colour() -> None:
    image = scene(40, 40)
    for seed in range(30):
        changed = (cutout(image, 0.5, random.Random(seed)) != image).any(axis=2)
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        assert 10 <= len(rows) <= 20
        assert 10 <= len(columns) <= 20
    assert (image == scene(40, 40)).all()


@pytest.mark.parametrize("name", list(OPERATIONS))
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("magnitude", [3, 9, 30])
def test_each_operation_of_randaugment_is_torchvisions(name: str, sign: int, magnitude: int) -> None:
    image = scene(96, 96, seed=magnitude)
    oracle = v2.RandAugment(interpolation=InterpolationMode.BILINEAR, fill=[128] * 3)
    magnitudes_of, signed = oracle._AUGMENTATION_SPACE[name]
    magnitudes = magnitudes_of(31, 96, 96)
    strength = 0.0 if magnitudes is None else float(magnitudes[magnitude]) * (sign if signed else 1)
    theirs = oracle._apply_image_or_video_transform(
        Pillow.fromarray(image), name, strength, interpolation=InterpolationMode.BILINEAR, fill=oracle._fill
    )
    ours = OPERATIONS[name](image, sign * magnitude / 30)
    difference = np.abs(ours.astype(int) - np.asarray(theirs))
    if name in ("ShearX", "ShearY", "Rotate"):
        # Pillow and OpenCV differ in the one line of pixels where the image ends.
        assert (difference > 2).mean() < 0.02
    else:
        assert difference.max() <= 2


def test_randaugment_has_torchvisions_operations_and_draws_all_of_them() -> None:
    assert set(OPERATIONS) == set(v2.RandAugment()._AUGMENTATION_SPACE)
    image = scene(48, 48)
    seen = {randaugment(image, 1, 15, random.Random(seed)).tobytes() for seed in range(300)}
    assert len(seen) == 5 + 2 * 9  # 5 operations have no direction, 9 have two
    assert (randaugment(image, 0, 15, random.Random(0)) == image).all()


def test_a_flat_image_survives_every_operation() -> None:
    flat = np.full((8, 8, 3), 77, dtype=np.uint8)
    assert (OPERATIONS["AutoContrast"](flat, 0) == flat).all()
    assert (OPERATIONS["Equalize"](flat, 0) == flat).all()


def test_faults_of_a_transform_spec_name_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"name: unknown transform 'stong'; nearest: strong; allowed: resize, paper, strong"):
        TransformSpec.parse({"name": "stong"})
    with pytest.raises(SpecError, match="the part `strong` is set, but the transform is 'paper'; use name: strong"):
        TransformSpec.parse({"name": "paper", "strong": {"cutout": 0.1}})
    with pytest.raises(SpecError, match="unknown key under strong: 'cutuot'; nearest: cutout"):
        TransformSpec.parse({"name": "strong", "strong": {"cutuot": 0.1}})
    spec = TransformSpec(name="strong", size_px=20, strong=StrongSpec(min_area=0.5))
    assert TransformSpec.parse(spec.model_dump()) == spec
