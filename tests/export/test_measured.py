"""The loss of a smaller file is judged on the annotations of a split, next to PyTorch on the same images."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from typer.testing import CliRunner

from rayprob.arrays import Pixels
from rayprob.cli.app import app
from rayprob.data.manifest.dataset import Dataset
from rayprob.errors import DatasetError, RunError
from rayprob.export.checking import expected
from rayprob.export.measured import ExportImages
from rayprob.runs.bundle import Bundle
from tests.predict.small import make_bundle


@pytest.fixture(scope="module")
def folder(tiny: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A bundle alone, with the labels of the tiny dataset."""
    made = make_bundle(1, {"name": "bernoulli"}, labels=Dataset.open(tiny).label_space)
    made.save(str(tmp_path_factory.mktemp("measured") / "bundle"))
    return str(tmp_path_factory.getbasetemp() / "measured0" / "bundle")


def test_a_file_is_judged_on_every_image_of_the_split_as_pytorch_is(folder: str, tiny: str) -> None:
    bundle = Bundle.load(folder)
    answers: list[np.ndarray] = []

    def same(images_NHWC: Pixels) -> list[np.ndarray]:
        answers.append(expected(bundle, images_NHWC)["marginals"])
        return [answers[-1]]

    def opposite(images_NHWC: Pixels) -> list[np.ndarray]:
        return [1 - answers[-1]]

    found = ExportImages.open(folder, tiny, "val").measure({"same": same, "opposite": opposite}, "val", 10_000)
    targets_NL, marginals_NL = Dataset.open(tiny).split("val").targets(), np.concatenate(answers)
    has_positive_L = targets_NL.any(axis=0)
    wanted = average_precision_score(targets_NL[:, has_positive_L], marginals_NL[:, has_positive_L], average="macro")
    assert found["same"].num_images == found["same"].of_images == len(targets_NL)
    assert found["same"].largest_difference == 0
    assert found["same"].mAP == (pytest.approx(wanted), pytest.approx(wanted))
    assert found["opposite"].mAP[0] == found["same"].mAP[0] != found["opposite"].mAP[1]
    assert found["opposite"].largest_difference == pytest.approx(np.abs(1 - 2 * marginals_NL).max())


def test_images_are_evenly_spaced_and_those_of_calibration_come_from_the_holdout(folder: str, tiny: str) -> None:
    images = ExportImages.open(folder, tiny, "val")
    few = images.measure({"none": lambda images_NHWC: [np.zeros((len(images_NHWC), 4))]}, "val", 9)["none"]
    assert few.num_images == 9 < few.of_images
    calibration = list(images.for_calibration())
    assert len(calibration) == min(64, Dataset.open(tiny).splits["holdout"])
    assert {image.shape for image in calibration} == {(1, 32, 32, 3)}


def test_a_bundle_without_a_dataset_and_an_unknown_split_are_refused(folder: str, tiny: str) -> None:
    with pytest.raises(RunError, match=r"is a bundle; give the run's folder, .* or a dataset with --data"):
        ExportImages.open(folder, None, "val")
    with pytest.raises(DatasetError, match="has no split 'test'"):
        ExportImages.open(folder, tiny, "test")


def test_int8_without_a_dataset_is_refused_before_the_export(folder: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["export", folder, "--onnx", str(tmp_path / "b.onnx"), "--precision", "int8"])
    assert isinstance(result.exception, RunError)
    assert not list(tmp_path.iterdir())
