"""`Model.explain` and `Answer.maps`."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

import rayprob as rp
from rayprob.errors import QueryError, SampleError, StorageError, UnknownLabel
from tests.explain.small import make_bundle, photo, with_net


@pytest.fixture
def model(tmp_path: Path) -> Iterator[rp.Model]:
    with with_net():
        make_bundle({"name": "csra"}, pooling="places").save(str(tmp_path / "bundle"))
        yield rp.load(tmp_path / "bundle")


def test_a_map_and_its_rest_are_the_logit_of_an_uncalibrated_answer(model: rp.Model) -> None:
    answer = model.predict(photo())
    for one in model.explain(photo()):
        np.testing.assert_allclose(one.grid_HW.sum() + one.rest, one.logit, atol=1e-5)
        np.testing.assert_allclose(1 / (1 + np.exp(-one.logit)), answer.marginals[one.label], atol=1e-6)


def test_an_answer_has_the_maps_of_its_label_set_and_of_the_most_probable_labels(model: rp.Model) -> None:
    answer = model.predict(photo())
    labels = {one.label for one in answer.maps()}
    assert labels == {*answer.label_set, *sorted(answer.marginals, key=answer.marginals.__getitem__)[-3:]}
    (one,), (other,) = answer.maps("blue", method="gradcam"), model.explain(photo(), ["blue"], method="gradcam")
    np.testing.assert_array_equal(one.grid_HW, other.grid_HW)


def test_maps_are_those_of_the_same_image_in_any_form(model: rp.Model, tmp_path: Path) -> None:
    Pillow.fromarray(photo()).save(tmp_path / "a.png")
    stored = io.BytesIO()
    Pillow.fromarray(photo()).save(stored, "PNG")
    maps = [model.explain(given, "red")[0].grid_HW for given in (photo(), tmp_path / "a.png", stored.getvalue())]
    np.testing.assert_array_equal(maps[0], maps[1])
    np.testing.assert_array_equal(maps[0], maps[2])


def test_errors_are_those_of_predict_and_of_the_method(model: rp.Model, tmp_path: Path) -> None:
    with pytest.raises(SampleError, match="explain takes one image"):
        model.explain([photo()])  # type: ignore[arg-type]
    with pytest.raises(StorageError, match=r"missing\.jpg"):
        model.explain(tmp_path / "missing.jpg", "red")
    (tmp_path / "a.jpg").write_text("hello")
    with pytest.raises(SampleError, match=r"a\.jpg"):
        model.explain(tmp_path / "a.jpg", "red")
    with pytest.raises(UnknownLabel, match="nearest: red"):
        model.explain(photo(), "rad")
    with pytest.raises(QueryError, match="possible: contributions, gradcam, integrated_gradients"):
        model.explain(photo(), "red", method="attention")
