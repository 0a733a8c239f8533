"""Bundles of a small convolutional network with random weights, for maps of where labels are seen."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from rayprob.arrays import Pixels
from rayprob.explain.members import Seen
from rayprob.labels import LabelSpace
from rayprob.loader.augment import TransformSpec
from rayprob.models.backbones import BACKBONES, Cut
from rayprob.models.build import ModelSpec, build_classifier
from rayprob.runs.bundle import Bundle

LABELS = LabelSpace(("red", "green", "blue", "bright"), (1, 2, 3, 4))
SIZE_PX, SIDE = 32, 4


def _net(weights: str | None, image_size_px: int | None, load: bool) -> Cut:
    stages = nn.Sequential(
        *(nn.Conv2d(3, 12, 4, stride=4), nn.ReLU(inplace=True), nn.Conv2d(12, 24, 3, stride=2, padding=1), nn.ReLU())
    )
    return Cut(stages, 24, ("head",), mean=(0.5,) * 3, std=(0.5,) * 3)


@contextmanager
def with_net() -> Iterator[None]:
    """Register the backbone `net`: SIDE x SIDE places of 24 features, for images of SIZE_PX."""
    BACKBONES["net"] = _net
    try:
        yield
    finally:
        del BACKBONES["net"]


def make_bundle(head: dict[str, object], *, seed: int = 0, size_px: int = SIZE_PX, **model: object) -> Bundle:
    """Return a bundle whose weights are random, and large enough that images differ."""
    torch.manual_seed(seed)
    spec = ModelSpec.parse({"backbone": "net", "head": head, **model})
    classifier = build_classifier(spec, len(LABELS)).eval()
    with torch.no_grad():
        for parameter in filter(lambda one: one.requires_grad, classifier.parameters()):
            parameter.add_(0.2 * torch.randn_like(parameter))
    return Bundle(classifier, spec, LABELS, TransformSpec(size_px=size_px))


def photo(seed: int = 0, size_px: int = SIZE_PX) -> Pixels:
    """Return an image as a network takes it, uint8 [size_px, size_px, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (size_px, size_px, 3)).astype(np.uint8)


def seen(bundle: Bundle, seed: int = 0) -> list[Seen]:
    return [Seen(bundle, photo(seed, bundle.transform_spec.size_px))]
