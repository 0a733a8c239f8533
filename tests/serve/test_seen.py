"""What a replica remembers is bounded by the bytes that it holds, whatever the family of the head."""

import io
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from rayprob.labels import LabelSpace
from rayprob.predict.images import ImageBytes
from rayprob.predict.members import Forecast
from rayprob.predict.reading import Loaded
from rayprob.probability.families import FAMILIES, family_of, from_outputs
from rayprob.probability.queries.answer import parse
from rayprob.runs.bundle import Bundle
from rayprob.serve.seen import SeenImage, SeenImages
from rayprob.serve.service import BundleService
from rayprob.serve.spec import Limits
from tests.loader.tiny import photo
from tests.predict.small import sampled_like
from tests.probability.test_families import outputs_of
from tests.serve.here import Here, client_of

LETTERS = LabelSpace(tuple("abcde"), (1, 2, 3, 4, 5))


class Pickler(pickle.Pickler):
    """Finds every array and tensor on its way through an object."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO())
        self.found: dict[int, Any] = {}

    def persistent_id(self, value: object) -> object:
        if isinstance(value, np.ndarray | torch.Tensor):
            self.found[id(value)] = value
            return id(value)
        return None


def array_bytes(*values: object) -> int:
    pickler = Pickler()
    pickler.dump(values)
    return sum(array.nbytes for array in pickler.found.values())


def seen_images(family: str) -> list[SeenImage]:
    """The images of one forward pass."""
    forecast = Forecast(from_outputs(family, outputs_of(family_of(family))))
    images = [ImageBytes("image", bytes([place])) for place in range(4)]
    return [SeenImage(image, Loaded(image, ()), forecast[[place]]) for place, image in enumerate(images)]


@pytest.mark.parametrize("family", FAMILIES)
def test_all_arrays_of_a_forecast_count_also_those_that_answers_add(family: str) -> None:
    images, seen = seen_images(family), SeenImages(10, 2**30)
    for place, one in enumerate(images):
        seen.put(str(place), one)
    distributions = [one.forecast.distribution for one in images]
    assert seen.size_bytes >= array_bytes(*distributions) + 4
    for place, distribution in enumerate(distributions):
        distribution.marginals()
        assert distribution.log_mixing_BK.shape[0] == 1
        distribution.prob(parse("P(a | (b | c))", LETTERS))
        seen.measure(str(place))
    assert seen.size_bytes >= array_bytes(*distributions) + 4


@pytest.mark.parametrize("family", FAMILIES)
def test_what_images_share_counts_once_and_nothing_remains_of_what_is_forgotten(family: str) -> None:
    images, seen = seen_images(family), SeenImages(1, 2**30)
    alone = []
    for place, one in enumerate(images):
        seen.put(str(place), one)
        alone.append(seen.size_bytes)
    together = SeenImages(10, 2**30)
    for place, one in enumerate(images):
        together.put(str(place), one)
    assert len(set(alone)) == 1
    is_shared = family in ("powerset", "recurrent", "masked")
    assert (together.size_bytes < sum(alone)) == is_shared
    least = SeenImages(10, together.size_bytes - 1)
    for place, one in enumerate(images):
        least.put(str(place), one)
    assert len(least) == 3


def test_an_object_that_holds_itself_is_counted_once() -> None:
    (one, *_), seen = seen_images("bernoulli"), SeenImages(10, 2**30)
    seen.put("a", one)
    before = seen.size_bytes
    vars(one.forecast.distribution)["itself"] = {"it": [one.forecast.distribution, np.ndarray]}
    seen.measure("a")
    assert seen.size_bytes == before


def test_what_a_question_adds_counts(bundle: Bundle, tmp_path: Any) -> None:
    sampled_like(bundle).save(str(tmp_path / "bundle"))
    here = Here(BundleService("small", str(tmp_path / "bundle"), Limits()))
    client = client_of(here)
    answer = client.post("/v1/predict", content=photo(0), headers={"content-type": "image/jpeg"}).json()
    seen = here.service.generation.seen
    (found,) = [one.forecast.distribution for one, _ in seen._seen.values()]
    assert found.log_mixing_BK.shape[0] == 1  # which draws label sets, and keeps them
    client.post("/v1/query", json={"sha256": answer["sha256"]})
    assert seen.size_bytes >= array_bytes(found) + len(photo(0))
