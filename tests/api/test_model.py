"""`load` and `Model.predict`: every kind of input gives the answers of its pixels, and files those of `rayprob predict`."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from PIL import ImageOps

import rayprob as rp
from rayprob.errors import BundleError, LabelError, ModelError, QueryError, SampleError, SpecError, StorageError
from rayprob.images.decode import decode
from rayprob.images.reading import READ_AS_STORED, READ_UPRIGHT, ImageReading
from rayprob.predict.job import PredictJob
from rayprob.predict.record import Record
from rayprob.report.run.thumbnails import shrunk
from tests.images.every_kind import turned_file
from tests.loader.tiny import photo
from tests.predict.small import NAMES, make_bundle

PIXELS = decode(photo(1), READ_AS_STORED)


def encoded(image: Pillow.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("num_images", [1, 5])
def test_files_get_the_numbers_of_predict_to_the_bit(model: rp.Model, bundle_path: str, photos: Path, num_images: int) -> None:
    paths = sorted(map(str, photos.iterdir()))[:num_images]
    asked = {"queries": ["P(fork & knife)"], "evidence": ["dining table=1"]}
    asking, images = PredictJob((bundle_path,), tuple(paths), asked).open()
    records = [outcome for outcome in asking.outcomes(images) if isinstance(outcome, Record)]
    answers = model.predict(paths, queries="P(fork & knife)", evidence={"dining table": True})
    assert len(records) == len(answers) == num_images
    for record, answer in zip(records, answers, strict=True):
        assert np.array_equal(answer.marginals_L, record.marginals_L)
        assert answer.to_dict() == record.to_dict()
        assert (answer.entropy, list(answer.answers.values())) == (record.entropy_nats, [record.answers[0].probability])


@pytest.mark.parametrize(
    "given",
    [
        photo(1),
        bytearray(photo(1)),
        encoded(Pillow.fromarray(PIXELS)),
        Pillow.fromarray(PIXELS),
        PIXELS,
        PIXELS[:, ::-1][:, ::-1],
        PIXELS / np.float32(255),
        torch.from_numpy(PIXELS).permute(2, 0, 1),
        torch.from_numpy(PIXELS).permute(2, 0, 1) / 255,
        (torch.from_numpy(PIXELS).permute(2, 0, 1) / 255).to(torch.float64).requires_grad_(),
    ],
    ids=["jpeg", "bytearray", "png", "pil", "array", "strided", "floats", "tensor", "float tensor", "double with gradient"],
)
def test_the_same_pixels_get_the_same_numbers_whatever_they_come_in(model: rp.Model, tmp_path: Path, given: Any) -> None:
    (tmp_path / "photo.jpg").write_bytes(photo(1))
    of_file = model.predict(tmp_path / "photo.jpg")
    assert np.array_equal(model.predict(given).marginals_L, of_file.marginals_L)


@pytest.mark.parametrize("reading", [READ_AS_STORED, READ_UPRIGHT], ids=["0.1", "upright"])
def test_exif_turns_files_bytes_and_pil_images_alike_where_the_model_was_trained_so(
    tmp_path: Path, reading: ImageReading
) -> None:
    replace(make_bundle(0, {"name": "bernoulli"}), reading=reading).save(str(tmp_path / "bundle"))
    model, content = rp.load(tmp_path / "bundle"), turned_file("JPEG", 6)
    (tmp_path / "photo.jpg").write_bytes(content)
    expected = model.predict(decode(content, reading)).marginals_L
    with Pillow.open(tmp_path / "photo.jpg") as image:
        for given in (tmp_path / "photo.jpg", content, image):
            assert np.array_equal(model.predict(given).marginals_L, expected)
        upright = model.predict(ImageOps.exif_transpose(image)).marginals_L
    assert np.array_equal(upright, expected) == (reading == READ_UPRIGHT)


def test_an_answer_shows_its_image_as_the_model_saw_it(tmp_path: Path) -> None:
    replace(make_bundle(0, {"name": "bernoulli"}), reading=READ_UPRIGHT).save(str(tmp_path / "bundle"))
    model, content = rp.load(tmp_path / "bundle"), turned_file("JPEG", 6)
    assert shrunk(decode(content, READ_UPRIGHT)) in model.predict(content)._repr_html_()


def test_grey_and_read_only_arrays_are_images_too(model: rp.Model) -> None:
    grey = np.ascontiguousarray(PIXELS[:, :, 0])
    grey.flags.writeable = False
    as_rgb = model.predict(np.stack([grey] * 3, axis=2)).marginals_L
    assert np.array_equal(model.predict(grey).marginals_L, as_rgb)
    assert np.array_equal(model.predict(torch.from_numpy(grey.copy())).marginals_L, as_rgb)


def test_one_input_gives_one_answer_and_several_give_a_list(model: rp.Model, photos: Path) -> None:
    mixed = [photos / "photo-0.jpg", PIXELS, Pillow.fromarray(PIXELS[:8])]
    assert [answer.name for answer in model.predict(mixed)] == [str(mixed[0]), "images[1]", "images[2]"]
    assert model.predict([]) == []
    batch = np.stack([PIXELS, PIXELS[::-1]])
    for several in (batch, torch.from_numpy(batch).permute(0, 3, 1, 2), list(batch), tuple(batch)):
        answers = model.predict(several)
        assert isinstance(answers, list)
        np.testing.assert_array_equal(answers[1].marginals_L, model.predict(list(batch))[1].marginals_L)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("gone.jpg", StorageError, "gone.jpg"),
        (b"hello", SampleError, r"image is a file that begins b'hell', not a JPEG"),
        (b"\x89PNG", SampleError, "image is a PNG whose first bytes are damaged"),
        (7, SampleError, r"image is a int; expected a path or URI, bytes .* or a list of them"),
        ([PIXELS, None], SampleError, r"images\[1\] is a NoneType"),
        (PIXELS.transpose(2, 0, 1), SampleError, r"image has the wrong shape: array \[3, 24, 32\]; expected \[H, W, 3\]"),
        (torch.zeros(24, 32, 3), SampleError, r"wrong shape: tensor \[24, 32, 3\]; expected \[3, H, W\] or \[H, W\]"),
        (np.zeros((0, 4, 3), np.uint8), SampleError, r"image is empty: its shape is \[0, 4, 3\]"),
        (PIXELS.astype(np.int64), SampleError, "values of type int64; expected uint8, or floats from 0 to 1"),
        (PIXELS.astype(np.float32), SampleError, r"values from \d+ to 25\d; expected a float array with values from 0 to 1"),
        (torch.full((3, 4, 4), torch.nan), SampleError, "values from nan to nan; expected a float tensor"),
    ],
    ids=str,
)
def test_what_is_not_an_image_is_named(model: rp.Model, given: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        model.predict(given)
    assert isinstance(caught.value, rp.RayprobError)


def test_a_folder_is_not_an_image(model: rp.Model, photos: Path) -> None:
    with pytest.raises(StorageError, match="photos is a folder, not an image; give the files in it"):
        model.predict(photos)


def test_what_cannot_be_asked_is_refused(model: rp.Model) -> None:
    for asked, error, message in (
        ({"evidence": {"dinning table": True}}, LabelError, "unknown label 'dinning table'; nearest: dining table"),
        (
            {"evidence": {"dog": "yes"}},
            QueryError,
            r"evidence for 'dog' must be True \(present\) or False \(absent\); got 'yes'",
        ),
        ({"queries": "P(frok)"}, QueryError, "unknown label 'frok'; nearest: fork"),
        ({"rule": "label_CF1"}, QueryError, "unknown rule for label sets 'label_CF1'; nearest: label_OF1"),
        ({"batch": 0}, SpecError, "batch must be at least 1; got 0"),
    ):
        with pytest.raises(error, match=message):
            model.predict(PIXELS, **asked)  # type: ignore[call-overload]


def test_evidence_is_read_as_on_the_command_line(model: rp.Model) -> None:
    said = [
        model.predict(PIXELS, evidence=evidence).marginals
        for evidence in ({"dog": True, "cat": 0}, ["dog=1", "!cat"], {"dog": np.True_, "cat": False})
    ]
    assert said[0] == said[1] == said[2]
    assert model.predict(PIXELS, evidence="dog").evidence == {"dog": True}  # type: ignore[call-overload]


def test_a_model_states_its_labels_rules_and_guarantees(model: rp.Model, bundle_path: str) -> None:
    assert model.labels == NAMES
    assert model.rules == ("label_OF1", "recall@0.1", "best_F1", "top_set")
    assert list(model.guarantees) == ["recall@0.1"]
    assert model.guarantees["recall@0.1"].startswith("misses at most 10 % of an image's labels on average")
    about = "squeezenet1_1 with head mixture, 6 labels, calibrated by shared_platt"
    assert repr(model) == f"Model('{bundle_path}': {about})"


def test_several_folders_make_an_ensemble(bundle_path: str, tmp_path: Path) -> None:
    make_bundle(2, {"name": "mixture", "components": 3}).save(str(tmp_path / "other"))
    ensemble = rp.load(bundle_path, tmp_path / "other")
    assert ", 2 members, " in repr(ensemble)
    assert ensemble.guarantees == {}
    parts = [rp.load(path).predict(PIXELS).marginals_L for path in (bundle_path, tmp_path / "other")]
    answer = ensemble.predict(PIXELS, rule="recall@0.1")
    np.testing.assert_allclose(answer.marginals_L, np.mean(parts, axis=0), rtol=1e-6)
    assert answer.uncertainty is not None
    assert answer.uncertainty.members == 2
    assert (answer.guarantee, answer.notes[0].startswith("no guarantee")) == (None, True)


def test_dropout_gives_members_and_what_cannot_be_loaded_is_named(bundle_path: str, tmp_path: Path) -> None:
    dropped = rp.load(bundle_path, mc_dropout=3).predict(PIXELS).uncertainty
    assert dropped is not None
    assert dropped.members == 3
    with pytest.raises(BundleError, match="no bundle at"):
        rp.load(tmp_path)
    with pytest.raises(ModelError, match="use one of them"):
        rp.load(bundle_path, bundle_path, mc_dropout=3)
