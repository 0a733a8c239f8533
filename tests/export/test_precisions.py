"""Smaller ONNX files: near the bundle's answers, refused by name where something is missing, and their loss measured."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from typer.testing import CliRunner

from rayprob.cli.app import app
from rayprob.errors import ModelError, SpecError
from rayprob.export import onnx_file
from rayprob.export.checking import expected
from rayprob.export.onnx_file import export_onnx
from rayprob.export.precisions import to_fp16, to_int8
from rayprob.models.build import ModelSpec
from rayprob.runs.bundle import Bundle
from tests.export.test_onnx import Tiny, drawn, under_a_prior
from tests.predict.small import make_bundle


class Convolved(Tiny):
    """A network of one convolution, which int8 can quantise."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self.convolution = torch.nn.Conv2d(3, 3, 3, padding=1)

    def features(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(self.convolution(images_BCHW.float() / 255), 10).flatten(1)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """A bundle with a label prior, whose graph has four outputs, one of them a constant."""
    made = make_bundle(3, {"name": "bernoulli"})
    return replace(made, classifier=Convolved(made.model_spec).eval(), calibrator=under_a_prior("platt", 0.6))


@pytest.fixture(scope="module")
def model(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Its ONNX graph in float32."""
    path = tmp_path_factory.mktemp("onnx") / "b.onnx"
    export_onnx(bundle, str(path))
    return path.read_bytes()


def answers(model: Any, images: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return dict(zip([output.name for output in session.get_outputs()], session.run(None, {"images": images}), strict=True))


@pytest.mark.parametrize(("convert", "most"), [(to_fp16, 0.005), (to_int8, 0.1)], ids=["fp16", "int8"])
def test_a_smaller_graph_answers_nearly_as_the_bundle(bundle: Bundle, model: bytes, convert: Any, most: float) -> None:
    images = drawn(8, 32, 32)
    found = answers(convert(onnx.load_from_string(model), (image[None] for image in images)), images)
    wanted = expected(bundle, images)
    assert found.keys() == wanted.keys()
    difference = np.abs(found["marginals"] - wanted["marginals"]).max()
    assert 0 < difference < most
    assert all(values.dtype == np.float32 for values in found.values())


def test_int8_quantises_the_convolution_and_not_the_resize(model: bytes) -> None:
    converted = to_int8(onnx.load_from_string(model), (image[None] for image in drawn(2, 32, 32)))
    weights = {constant.name: constant.data_type for constant in converted.graph.initializer}
    quantised = [name for name, kind in weights.items() if kind == onnx.TensorProto.INT8 and name.endswith("_quantized")]
    assert len(quantised) == 1
    assert "convolution" in quantised[0]


def test_int8_without_images_is_refused(model: bytes) -> None:
    with pytest.raises(ModelError, match="int8 needs images that calibrate its ranges"):
        to_int8(onnx.load_from_string(model), ())


def test_an_unknown_precision_is_refused_before_anything_is_computed(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"unknown precision 'int4'.*float32, fp16, int8"):
        export_onnx(bundle, str(tmp_path / "b.onnx"), precision="int4")


def test_a_graph_that_overflows_is_not_written(
    bundle: Bundle, model: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "_exported", lambda bundle: onnx.load_from_string(model))
    monkeypatch.setattr(onnx_file, "largest_difference", lambda bundle, read: next(differences))
    differences = iter((0.0, float("nan")))
    with pytest.raises(ModelError, match="in fp16, onnxruntime computes nan, so nothing was written; export in float32"):
        export_onnx(bundle, str(tmp_path / "b.onnx"), precision="fp16")
    assert not list(tmp_path.iterdir())


def test_the_file_records_its_precision(bundle: Bundle, model: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "_exported", lambda bundle: onnx.load_from_string(model))
    exported = export_onnx(bundle, str(tmp_path / "b.onnx"), precision="fp16")
    assert exported.largest_difference < 0.005
    (entry,) = onnx.load(tmp_path / "b.onnx").metadata_props
    assert json.loads(entry.value)["precision"] == "fp16"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give at least one of --onnx FILE, --torch FILE and --hub DIR"),
        (["--torch", "a.pt2", "--precision", "fp16"], "--precision fp16 is that of an ONNX graph; add --onnx FILE"),
        (["--onnx", "a", "--precision", "int4"], "--precision must be one of float32, fp16, int8; got int4"),
        (["--onnx", "a", "--data", "shards"], "--data has the images for a smaller graph"),
        (["--onnx", "a", "--force"], "--force is for --hub DIR"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["export", "demo/run", *options], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert message in result.output
