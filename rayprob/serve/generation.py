"""A bundle as it was loaded, in one version of its files, and what it has seen. A changed bundle becomes a new generation."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rayprob.errors import BundleError
from rayprob.predict.images import ImageBytes
from rayprob.predict.job import open_predictor, tensors_of
from rayprob.predict.members import Forecast, Predictor
from rayprob.predict.question import default_rule, guarantee_of
from rayprob.predict.reading import Loaded, load
from rayprob.probability.decisions.rules import RECALL
from rayprob.runs.bundle import Bundle, bundle_fingerprint
from rayprob.runs.card import read_card
from rayprob.serve.seen import SeenImages


@dataclass(frozen=True, eq=False)
class Generation:
    """A predictor, the fingerprint of the files that it was read from, its card then, and the images that it has seen.

    `computing` is held during a forward pass: a map that explains a label puts hooks on the network.
    """

    predictor: Predictor
    fingerprint: str
    card: Mapping[str, Any]
    seen: SeenImages
    computing: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def load(cls, folder: str, seen: SeenImages) -> "Generation":
        """Read the bundle in a folder and compute one blank image, so that the first request finds everything warm.

        Raises BundleError if it is damaged, or if it changes while it is read; StorageError if it is missing.
        """
        fingerprint = bundle_fingerprint(folder)
        predictor = open_predictor([Bundle.load(folder)])
        if bundle_fingerprint(folder) != fingerprint:
            raise BundleError(f"the bundle at {folder} changed while it was read; try again")
        blank = tuple(np.zeros((one.size_px, one.size_px, 3), np.uint8) for one in predictor.inputs)
        predictor.forecast(tensors_of([Loaded(ImageBytes("blank", b""), blank)], predictor))
        return cls(predictor, fingerprint, read_card(folder), seen)

    def labels(self) -> dict[str, Any]:
        """Return the labels, and the rules with what they guarantee, as plain data."""
        bundle = self.predictor.bundle
        rules = [
            {"name": name, "guarantee": guarantee_of(bundle, name), "thresholds": _thresholds(bundle, name)}
            for name in bundle.rules
        ]
        return {"labels": list(bundle.label_space.names), "rules": rules, "default_rule": default_rule(bundle)}


@dataclass(frozen=True, eq=False)
class Waiting:
    """An image that waits for a forward pass, with the generation whose transform resized it."""

    generation: Generation
    loaded: Loaded

    @classmethod
    def of(cls, generation: Generation, image: ImageBytes) -> "Waiting":
        """Decode and resize an image. Raises SampleError."""
        loaded = load(image, generation.predictor.inputs)
        if loaded.error is not None:
            raise loaded.error
        return cls(generation, loaded)


@dataclass(frozen=True, eq=False)
class Computed:
    """The forecast of an image; `batch` is the size of its forward pass for the first image of each pass, else 0."""

    waiting: Waiting
    forecast: Forecast
    batch: int


def _thresholds(bundle: Bundle, rule: str) -> list[float] | float | None:
    """Return the threshold of each label, in column order, or that of all; None for a rule that is not made of thresholds."""
    if rule in bundle.thresholds:
        values: list[float] = bundle.thresholds[rule].values_L.tolist()
        return values
    control = bundle.guarantees.get(rule.removeprefix(RECALL)) if rule.startswith(RECALL) else None
    return control.threshold if control else None


def forecast_together(waiting: Sequence[Waiting]) -> list[Computed]:
    """Return the forecasts of images, in order, by one forward pass per generation: there are two just after a reload."""
    found: dict[int, Computed] = {}
    for generation in dict.fromkeys(one.generation for one in waiting):
        places = [place for place, one in enumerate(waiting) if one.generation is generation]
        predictor = generation.predictor
        with generation.computing:
            forecast = predictor.forecast(tensors_of([waiting[place].loaded for place in places], predictor))
        for row, place in enumerate(places):
            found[place] = Computed(waiting[place], forecast[[row]], 0 if row else len(places))
    return [found[place] for place in range(len(waiting))]
