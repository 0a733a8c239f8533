"""An exported graph gives PyTorch's answers from the same pixels, and says what its outputs mean."""

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from scipy.special import expit
from torch import nn
from typer.testing import CliRunner

from rayprob.cli.app import app
from rayprob.errors import ModelError
from rayprob.export import checking
from rayprob.export.checking import expected
from rayprob.export.network import Graph
from rayprob.export.onnx_file import export_onnx
from rayprob.export.squash import Squash
from rayprob.loader.augment import resize
from rayprob.models.build import ModelSpec
from rayprob.models.classifier import Classifier
from rayprob.models.heads import build_head
from rayprob.models.pooling import build_pooling
from rayprob.probability.calibration.affine import AffineCalibrator
from rayprob.probability.calibration.calibrators import fit_calibrator
from rayprob.probability.calibration.prior import PriorCalibrator
from rayprob.probability.distributions.mixture import LabelMixture
from rayprob.probability.graphs.prior import PriorProbabilities
from rayprob.runs.bundle import Bundle
from tests.predict.small import LABELS, make_bundle


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, str]:
    """A bundle with a mixture head, and where it was exported to by the verb."""
    folder = tmp_path_factory.mktemp("export")
    bundle = make_bundle(1, {"name": "mixture", "components": 3, "rank": 2, "dropout": 0.3})
    bundle.save(str(folder / "bundle"))
    result = CliRunner().invoke(app, ["export", str(folder), "--onnx", str(folder / "b.onnx")])
    assert result.exit_code == 0, result.output
    assert "MB; marginals, mixing_weights, component_probabilities" in result.output
    assert "onnxruntime differs from PyTorch by " in result.output
    return bundle, str(folder / "b.onnx")


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, 256, (*shape, 3), dtype=np.uint8)


def small(bundle: Bundle) -> Bundle:
    """The same bundle with a backbone of one layer, which exports in no time."""
    return replace(bundle, classifier=Tiny(bundle.model_spec).eval())


class Tiny(Classifier):
    """A head on the mean colours of nine fields of the image."""

    def __init__(self, spec: ModelSpec) -> None:
        nn.Module.__init__(self)
        torch.manual_seed(5)
        self.head = build_head(spec.head, 27, len(LABELS))
        torch.nn.init.normal_(self.head.get_submodule("linear").weight, std=2.0)
        self.pooling = build_pooling("gap")
        self.family, self.norm, self.is_frozen, self.auxiliary = str(self.head.family), "train", False, None

    def features(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        return nn.functional.avg_pool2d(images_BCHW.float() / 255, 10).flatten(1)


@pytest.mark.parametrize(("height_px", "width_px"), [(32, 32), (480, 640), (97, 31), (1, 5), (700, 32), (13, 1000)])
def test_the_squash_in_the_graph_is_that_of_evaluation_bit_for_bit(height_px: int, width_px: int) -> None:
    image = drawn(height_px, width_px)
    squashed = Squash(32)(torch.from_numpy(image)[None])[0].permute(1, 2, 0).numpy()
    assert np.array_equal(squashed, resize(image, 32))


@pytest.mark.parametrize("shape", [(1, 60, 80), (2, 32, 32), (5, 200, 33), (3, 1, 1)])
def test_onnxruntime_answers_as_pytorch_for_any_batch_and_size(mixture: tuple[Bundle, str], shape: tuple[int, ...]) -> None:
    bundle, path = mixture
    images = drawn(*shape)
    session = onnxruntime.InferenceSession(path)
    found = dict(zip([output.name for output in session.get_outputs()], session.run(None, {"images": images}), strict=True))
    with torch.inference_mode():
        squashed = np.stack([resize(image, 32) for image in images])
        distribution = bundle.distribution(bundle.classifier(torch.from_numpy(squashed).permute(0, 3, 1, 2)))
    np.testing.assert_allclose(found["marginals"], distribution.marginals(), atol=1e-5)
    np.testing.assert_allclose(found["mixing_weights"], np.exp(distribution.log_mixing_BK), atol=1e-5)
    mixed = np.einsum("bk,bkl->bl", found["mixing_weights"], found["component_probabilities"])
    np.testing.assert_allclose(mixed, found["marginals"], atol=1e-6)
    assert found["marginals"].std() > 0.1


def test_the_file_says_what_its_outputs_mean(mixture: tuple[Bundle, str]) -> None:
    bundle, path = mixture
    model = onnx.load(path)
    facts = json.loads({entry.key: entry.value for entry in model.metadata_props}["rayprob"])
    assert (facts["labels"], facts["size_px"], facts["family"]) == (list(LABELS.names), 32, "mixture")
    assert facts["thresholds"]["label_OF1"] == pytest.approx(bundle.thresholds["label_OF1"].values_L.tolist())
    assert facts["guarantees"]["0.1"]["threshold"] == 0.2
    assert (facts["calibrator"], len(facts["bundle"])) == ("shared_platt", 16)
    assert "uint8 [N, H, W, 3], RGB" in model.doc_string
    (given,) = model.graph.input
    assert [size.dim_param or size.dim_value for size in given.type.tensor_type.shape.dim] == ["batch", "height", "width", 3]


def fitted(name: str) -> Any:
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (400, 6))
    return fit_calibrator(name, logits, random.random((400, 6)) < 1 / (1 + np.exp(-logits)), np.ones((400, 6), bool))


@pytest.mark.parametrize("calibrator", [None, "temperature", "platt", "isotonic"])
def test_every_calibrator_of_independent_labels_is_in_the_graph(calibrator: str | None) -> None:
    bundle = replace(small(make_bundle(3, {"name": "bernoulli"})), calibrator=calibrator and fitted(calibrator))
    images = drawn(40, 50, 60)
    with torch.inference_mode():
        (marginals,) = Graph(bundle)(torch.from_numpy(images))
    np.testing.assert_allclose(marginals, expected(bundle, images)["marginals"], atol=1e-6)


@pytest.mark.slow
def test_an_isotonic_calibrator_survives_export(tmp_path: Path) -> None:
    bundle = replace(small(make_bundle(3, {"name": "bernoulli"})), calibrator=fitted("isotonic"))
    exported = export_onnx(bundle, str(tmp_path / "b.onnx"))
    assert (exported.outputs, exported.batches) == (("marginals",), (1, 2, 5))
    assert exported.largest_difference < 1e-4
    assert exported.size_bytes == (tmp_path / "b.onnx").stat().st_size


def under_a_prior(name: str, strength: float) -> PriorCalibrator:
    """A calibrator with a prior that knows all labels but the last."""
    random = np.random.default_rng(1)
    p_KL = random.uniform(0.02, 0.9, (5, 6))
    p_KL[:, -1] = 0.5
    return PriorCalibrator(fitted(name), strength, "scenes", LabelMixture(random.dirichlet(np.ones(5)), p_KL))


@pytest.mark.parametrize(("name", "strength"), [("temperature", 0.0), ("platt", 0.6), ("platt", 2.0)])
def test_a_label_prior_is_in_the_graph(name: str, strength: float) -> None:
    bundle = replace(small(make_bundle(3, {"name": "bernoulli"})), calibrator=under_a_prior(name, strength))
    images = drawn(40, 50, 60)
    with torch.inference_mode():
        found = dict(zip(PriorProbabilities.names, Graph(bundle)(torch.from_numpy(images)), strict=True))
    wanted = expected(bundle, images)
    for output, values in found.items():
        np.testing.assert_allclose(values, wanted[output], atol=1e-5)
    component_NKL = expit(wanted["logits"][:, None] + wanted["component_offsets"])
    np.testing.assert_allclose(
        np.einsum("nk,nkl->nl", wanted["mixing_weights"], component_NKL), wanted["marginals"], atol=1e-12
    )
    assert (np.abs(wanted["marginals"] - expit(wanted["logits"])).max() > 0.01) == (strength > 0)


@pytest.mark.slow
def test_a_label_prior_survives_export(tmp_path: Path) -> None:
    bundle = replace(small(make_bundle(3, {"name": "bernoulli"})), calibrator=under_a_prior("platt", 0.6))
    exported = export_onnx(bundle, str(tmp_path / "b.onnx"))
    assert exported.outputs == ("marginals", "logits", "mixing_weights", "component_offsets")
    assert exported.largest_difference < 1e-4
    shapes = [output.shape for output in onnxruntime.InferenceSession(tmp_path / "b.onnx").get_outputs()]
    assert [shape[1:] for shape in shapes[:3]] + [shapes[3]] == [[6], [6], [5], [5, 6]]


def test_a_head_that_starts_from_a_prior_is_in_the_graph() -> None:
    bundle = small(make_bundle(1, {"name": "mixture", "components": 3, "prior": "mine.safetensors"}))
    torch.nn.init.normal_(bundle.classifier.get_parameter("head.offsets"))
    images = drawn(40, 50, 60)
    with torch.inference_mode():
        found = Graph(bundle)(torch.from_numpy(images))
    for array, (name, wanted) in zip(found, expected(bundle, images).items(), strict=True):
        np.testing.assert_allclose(array, wanted, atol=1e-6, err_msg=name)


def test_a_graph_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = small(make_bundle(3, {"name": "bernoulli"}))
    wrong = AffineCalibrator("temperature", np.array([1.5]), np.zeros(1))
    really = checking.expected
    monkeypatch.setattr(checking, "expected", lambda one, images: really(replace(one, calibrator=wrong), images))
    with pytest.raises(
        ModelError, match=r"onnxruntime differs from PyTorch by 0\.\d+, more than 0.0001, so nothing was written"
    ):
        export_onnx(bundle, str(tmp_path / "b.onnx"))
    assert not list(tmp_path.iterdir())


class Stubborn(Tiny):
    """Asks the values of its input how to go on, which no graph can."""

    def features(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        features = super().features(images_BCHW)
        return features if float(features.sum()) > 0 else -features


def test_a_model_without_a_graph_is_refused_with_its_reason(tmp_path: Path) -> None:
    bundle = make_bundle(3, {"name": "bernoulli"})
    with pytest.raises(ModelError, match=r"squeezenet1_1 cannot be exported to ONNX \(\w+: .+\); use another backbone"):
        export_onnx(replace(bundle, classifier=Stubborn(bundle.model_spec).eval()), str(tmp_path / "b.onnx"))


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> ModuleType:
        raise ImportError(name)

    monkeypatch.setattr(checking.importlib, "import_module", missing)
    with pytest.raises(ModelError, match=r"needs the packages onnx, onnxscript, onnxruntime, .* pip install 'rayprob\[onnx\]'"):
        export_onnx(make_bundle(3, {"name": "bernoulli"}), str(tmp_path / "b.onnx"))


def test_a_calibrator_of_another_kind_is_refused() -> None:
    bundle = make_bundle(3, {"name": "mixture", "components": 2})
    with pytest.raises(ModelError, match=r"calibrator 'platt' has no graph; calibrate with --prior none and one of identity"):
        Graph(replace(bundle, calibrator=fitted("platt")))
